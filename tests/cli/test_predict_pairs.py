"""`visionattn predict CONFIG CHECKPOINT LEFT RIGHT` from end to end."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_segmentation import write_segmentation
from tiny_stereo import SIZE, tiny_pair, write_stereo

from visionattn.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_stereo(folder, 3)
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _predict(folder: Path, *more: str) -> list[str]:
    return ["predict", str(folder / "red.py"), str(folder / "weights.pth"), *more, "--out", "out", "--device", "cpu"]


def test_a_pair_becomes_maps_and_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = (str(folder / side / "000001_10.png") for side in ("left", "right"))
    assert main(_predict(folder, left, right)) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"out/000001_10_{rest}" for rest in ("disparity.png", "disparity.pfm", "colours.png")
    ]
    assert said.err == ""
    steps = cv2.imread("out/000001_10_disparity.png", cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(steps, 256 * tiny_pair(1)["left"][..., 0].astype(np.uint16))


def test_folders_and_a_camera(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    camera = ["--focal", "100", "--baseline", "0.5", "--offset", "2", "--centre", "20", "10", "--farthest", "9"]
    assert main(_predict(folder, str(folder / "left"), str(folder / "right"), *camera)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 18
    assert all(Path(line).is_file() for line in lines)
    for index in range(3):
        depth = np.load(f"out/{index:06d}_10_depth.npy")
        assert depth.shape == SIZE
        np.testing.assert_allclose(depth, 50 / (2 + index + 2), rtol=1e-6)
        header, _, body = Path(f"out/{index:06d}_10_cloud.ply").read_bytes().partition(b"end_header\n")
        count = SIZE[0] * SIZE[1] if index == 2 else 0  # 12.5 and 10 metres are too far
        assert f"element vertex {count}\n".encode() in header
        if count:
            first = np.frombuffer(body, "<f4", 3)
            np.testing.assert_allclose(first, np.array([-20, -10, 100]) / 100 * depth[0, 0], rtol=1e-5)


def test_a_swapped_pair_is_warned_of_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = (str(folder / side / "000002_10.png") for side in ("left", "right"))
    assert main(_predict(folder, right, left)) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("visionattn: warning: ")
    assert "look swapped" in line


def test_mistakes_are_answered_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = (str(folder / side / "000000_10.png") for side in ("left", "right"))
    assert cv2.imwrite("small.png", np.zeros((10, 52, 3), np.uint8))
    for more, answer in (
        ([left], "predicts on pairs: expected a left and a right image, got 1"),
        ([left, "nothing.png"], "no image nothing.png"),
        ([left, "small.png"], "small.png is 10 x 52 (height x width)"),
        ([left, right, "--focal", "100"], "needs --focal PIXELS and --baseline METRES; --baseline is missing"),
        ([left, right, "--offset", "1"], "--focal is missing"),
        ([left, right, "--focal", "0", "--baseline", "1"], "focal=0 must be a positive number of pixels"),
    ):
        capsys.readouterr()
        assert main(_predict(folder, *more)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("visionattn: error: ")
        assert answer in line
    assert not Path("out").exists()
    config = write_segmentation(tmp_path, images=1)
    assert main(["predict", str(config), "none.pth", left, "--out", "out", "--focal", "3", "--baseline", "1"]) == 2
    assert "--focal and --baseline are for pairs of images" in capsys.readouterr().err
