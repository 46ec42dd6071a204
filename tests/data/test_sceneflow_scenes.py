"""Made-up stereo scenes in Scene Flow's layout: what is written, and when it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionattn.cli.main import main
from visionattn.data.pfm import read_pfm
from visionattn.data.sceneflow_scenes import in_final_pass, stereo_views, write_sceneflow

SMALL = {"size": (64, 80), "max_disparity": 20.0}


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_layout_is_that_of_flyingthings3d(tmp_path: Path) -> None:
    out = write_sceneflow(tmp_path / "sf", scenes=2, test=1, seed=3, **SMALL)
    assert set(_tree(out)) == {"made_up.json"} | {
        f"FlyingThings3D/{kind}/{scene}/{side}/0006.{'pfm' if kind == 'disparity' else 'png'}"
        for kind in ("frames_cleanpass", "frames_finalpass", "disparity", "disparity_occlusions")
        for scene in ("TRAIN/A/0000", "TRAIN/A/0001", "TEST/A/0000")
        for side in ("left", "right")
    }
    for split, code, index in (("TRAIN", 0, 1), ("TEST", 1, 0)):
        clean = stereo_views(3, index, (64, 80), 20.0, code)
        final = in_final_pass(clean, 3, index, 0.3, code)
        for side, image, pictured, disparity, hidden in (
            ("left", clean.left, final.left, clean.disparity, clean.hidden),
            ("right", clean.right, final.right, clean.right_disparity, clean.right_hidden),
        ):
            stem = f"{split}/A/{index:04d}/{side}/0006"
            root = out / "FlyingThings3D"
            np.testing.assert_array_equal(cv2.imread(str(root / f"frames_cleanpass/{stem}.png"))[..., ::-1], image)
            np.testing.assert_array_equal(cv2.imread(str(root / f"frames_finalpass/{stem}.png"))[..., ::-1], pictured)
            np.testing.assert_array_equal(read_pfm(root / f"disparity/{stem}.pfm"), disparity)
            stored = cv2.imread(str(root / f"disparity_occlusions/{stem}.png"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(stored, np.where(hidden, 255, 0))


def test_a_scene_depends_on_seed_split_and_number_alone(tmp_path: Path) -> None:
    few = _tree(write_sceneflow(tmp_path / "few", scenes=1, test=1, **SMALL))
    many = _tree(write_sceneflow(tmp_path / "many", scenes=3, test=2, **SMALL))
    other = _tree(write_sceneflow(tmp_path / "other", scenes=1, test=1, seed=1, **SMALL))
    shared = [name for name in few if name.startswith("FlyingThings3D")]
    assert len(shared) == 16
    assert all(few[name] == many[name] != other[name] for name in shared)
    images = [content for name, content in many.items() if "frames" in name]
    assert len(set(images)) == len(images) == 20, "two pictures are the same"


def test_a_folder_made_alike_is_left_and_another_refused(tmp_path: Path) -> None:
    out = write_sceneflow(tmp_path / "sf", scenes=1, test=0, **SMALL)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert write_sceneflow(str(out), scenes=1, test=0, **SMALL) == out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == times
    for changed in ({"scenes": 2}, {"seed": 1}, {"asymmetry": 0.0}, {"max_disparity": 21.0}):
        with pytest.raises(FileExistsError, match=r"other arguments \(.*scenes=1.*\); choose another folder"):
            write_sceneflow(out, **({"scenes": 1, "test": 0} | SMALL | changed))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dog.jpg").write_bytes(b"dog")
    with pytest.raises(FileExistsError, match="photos is not empty and was not made here"):
        write_sceneflow(tmp_path / "photos", scenes=1, **SMALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenes": 0}, "scenes=0 must be a whole number of 1 or more"),
        ({"test": -1}, "test=-1 must be a whole number of 0 or more"),
        ({"seed": 0.5}, r"seed=0\.5 must be a whole number of 0 or more"),
        ({"size": (63, 128)}, r"size=\(63, 128\) must be \(height, width\) of 64 pixels or more"),
        ({"size": (64, 64.0)}, "size=.* must be"),
        ({"size": 128}, "size=128 must be"),
        ({"max_disparity": 3}, "max_disparity=3 must be from 4 to the width, 960 pixels"),
        ({"max_disparity": 961}, "max_disparity=961 must be"),
        ({"max_disparity": float("nan")}, "max_disparity=nan must be"),
        ({"asymmetry": 1.5}, r"asymmetry=1\.5 must be from 0"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_sceneflow(tmp_path / "sf", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_what_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sf"
    argv = ["data", "synth", "sceneflow", str(out), "--scenes", "1", "--test", "1", "--seed", "4"]
    assert main([*argv, "--size", "64", "80", "--max-disparity", "20", "--asymmetry", "0"]) == 0
    assert capsys.readouterr().out == f"made-up stereo scenes in {out}\n"
    told = _tree(out)
    assert json.loads(told["made_up.json"])["asymmetry"] == 0
    assert told == _tree(write_sceneflow(tmp_path / "same", scenes=1, test=1, seed=4, asymmetry=0.0, **SMALL))
    assert main(["data", "synth", "sceneflow", str(tmp_path / "none"), "--size", "1", "2", "3"]) == 2
    assert "--size expects height and width, or one number for both; got 3 numbers" in capsys.readouterr().err
