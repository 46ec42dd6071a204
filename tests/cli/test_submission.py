"""`visionattn test` on stereo: pictures of every pair, and submissions of pairs without truth."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_segmentation import write_segmentation
from tiny_stereo import tiny_pair, write_stereo

from visionattn.cli.main import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))


def test_testing_scores_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, checkpoint = map(str, write_stereo(tmp_path))
    assert main(["test", config, checkpoint, "--work-dir", "tested", "--out", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["pictures     tested/pictures: 2 files", "pictures     all: 5 files"]
    assert any("EPE" in line for line in lines)
    assert sorted(path.name for path in Path("tested/pictures").iterdir()) == ["000000_10.png", "000004_10.png"]
    assert sorted(path.name for path in Path("all").iterdir()) == [f"{index:06d}_10.png" for index in range(5)]


def test_a_submission_needs_no_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, checkpoint = map(str, write_stereo(tmp_path, known=False))
    assert main(["test", config, checkpoint, "--work-dir", "w", "--submission", "kitti2015"]) == 0
    out = capsys.readouterr().out
    assert "submission of 5 disparity maps in " in out
    assert "a complete submission has 200" in out
    with zipfile.ZipFile("w/evaluation/kitti2015.zip") as archive:
        assert archive.namelist() == [f"disp_0/{index:06d}_10.png" for index in range(5)]
        for index in range(5):
            content = np.frombuffer(archive.read(f"disp_0/{index:06d}_10.png"), np.uint8)
            steps = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(steps, 256 * tiny_pair(index)["left"][..., 0].astype(np.uint16))


def test_mistakes_are_answered_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, checkpoint = map(str, write_stereo(tmp_path))
    assert main(["test", config, checkpoint, "--submission", "eth3d", "--method", "Mine"]) == 2
    assert "--method is a name in Middlebury's files; eth3d has none" in capsys.readouterr().err
    other = str(write_segmentation(tmp_path, images=1))
    assert main(["test", other, checkpoint, "--submission", "eth3d"]) == 2
    assert "--submission eth3d is for stereo" in capsys.readouterr().err
