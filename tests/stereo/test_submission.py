"""Submissions, file by file, as the benchmarks' own descriptions have them; read back without our readers."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from visionattn.registry import METRICS


def _sample(left_path: str, seed: int = 0, **more: Any) -> dict[str, Any]:
    predicted = torch.rand(5, 8, generator=torch.Generator().manual_seed(seed)) * 80
    return {"predicted": predicted, "left_path": left_path, "ori_shape": (5, 8), "seconds": 0.125, **more}


def _archive(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def _floats(pfm: bytes) -> np.ndarray:
    """A PFM by its description: three lines, then rows of floats from the bottom up, little-endian by the minus."""
    kind, size, scale, values = pfm.split(b"\n", 3)
    width, height = map(int, size.split())
    assert kind == b"Pf"
    assert float(scale) < 0
    return np.frombuffer(values, "<f4").reshape(height, width)[::-1]


def _write(kind: str, out: Path, samples: list[dict[str, Any]], **options: Any) -> None:
    writer = METRICS.build({"type": f"visionattn.{kind}Submission", "out": str(out), **options})
    for start in range(0, len(samples), 2):
        writer.process(None, samples[start : start + 2])
    assert writer.evaluate(len(samples)) == {}


@pytest.mark.parametrize(
    ("kind", "archive", "place"), [("KITTI2012", "kitti2012", ""), ("KITTI2015", "kitti2015", "disp_0/")]
)
def test_kittis_files(kind: str, archive: str, place: str, tmp_path: Path) -> None:
    samples = [_sample(f"/data/testing/image_2/{index:06d}_10.png", index) for index in range(3)]
    samples[1]["predicted"][0, :3] = torch.tensor([0.0, -1.0, 400.0])
    _write(kind, tmp_path, samples)
    files = _archive(tmp_path / f"{archive}.zip")
    assert list(files) == [f"{place}{index:06d}_10.png" for index in range(3)]
    for sample, content in zip(samples, files.values(), strict=True):
        steps = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert steps.dtype == np.uint16
        assert steps.shape == (5, 8)
        assert (steps > 0).all(), "0 says that the method found nothing"
        np.testing.assert_allclose(steps / 256, sample["predicted"].clip(0, 65535 / 256), atol=1 / 256)


def test_middleburys_files(tmp_path: Path) -> None:
    scenes = ["trainingQ/Adirondack", "trainingQ/Teddy", "testQ/Plants"]
    samples = [_sample(f"/data/MiddEval3/{scene}/im0.png", index) for index, scene in enumerate(scenes)]
    _write("Middlebury", tmp_path, samples, method="EA-PSMNet")
    files = _archive(tmp_path / "middlebury.zip")
    assert set(files) == {f"{scene}/{name}" for scene in scenes for name in ("disp0EA-PSMNet.pfm", "timeEA-PSMNet.txt")}
    for scene, sample in zip(scenes, samples, strict=True):
        np.testing.assert_array_equal(_floats(files[f"{scene}/disp0EA-PSMNet.pfm"]), sample["predicted"])
        assert float(files[f"{scene}/timeEA-PSMNet.txt"]) == 0.125
    assert (tmp_path / "middlebury" / "testQ" / "Plants" / "disp0EA-PSMNet.pfm").is_file()


def test_eth3ds_files(tmp_path: Path) -> None:
    samples = [
        _sample(f"/data/two_view_test/{scene}/im0.png", seed) for seed, scene in enumerate(("lakeside_1l", "sand_1s"))
    ]
    _write("ETH3D", tmp_path, samples)
    files = _archive(tmp_path / "eth3d.zip")
    assert set(files) == {
        f"low_res_two_view/{scene}.{end}" for scene in ("lakeside_1l", "sand_1s") for end in ("pfm", "txt")
    }
    np.testing.assert_array_equal(_floats(files["low_res_two_view/sand_1s.pfm"]), samples[1]["predicted"])
    assert files["low_res_two_view/lakeside_1l.txt"].split() == [b"runtime", b"0.125"]


def test_an_archive_holds_this_evaluation_alone(tmp_path: Path) -> None:
    writer = METRICS.build({"type": "visionattn.KITTI2015Submission", "out": str(tmp_path)})
    for number in (0, 1):
        writer.process(None, [_sample(f"{number:06d}_10.png")])
        writer.evaluate(1)
        assert list(_archive(tmp_path / "kitti2015.zip")) == [f"disp_0/{number:06d}_10.png"]


def test_an_incomplete_submission_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = METRICS.build({"type": "visionattn.KITTI2015Submission", "out": str(tmp_path)})
    said: list[tuple[str, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "visionattn.stereo.submission.print_log",
            lambda text, logger, level=logging.INFO: said.append((text, level)),
        )
        writer.process(None, [_sample("000000_10.png")])
        writer.evaluate(1)
        writer.COUNTS = (1,)
        writer.process(None, [_sample("000000_10.png")])
        writer.evaluate(1)
    assert [level for _, level in said] == [logging.INFO, logging.WARNING, logging.INFO]
    assert "kitti2015.zip has 1 disparity maps; a complete submission has 200" in said[1][0]


def test_what_cannot_be_submitted_is_refused(tmp_path: Path) -> None:
    kitti, middlebury, eth3d = (
        METRICS.build({"type": f"visionattn.{kind}Submission", "out": str(tmp_path)})
        for kind in ("KITTI2015", "Middlebury", "ETH3D")
    )
    with pytest.raises(ValueError, match=r"0006\.png is no image of KITTI's, which are called 000000_10"):
        kitti.process(None, [_sample("a/0006.png")])
    with pytest.raises(ValueError, match=r"im0\.png lies in no folder such as trainingQ/SCENE"):
        middlebury.process(None, [_sample("two_view/scene/im0.png")])
    with pytest.raises(ValueError, match=r"left\.png is no SCENE/im0\.png"):
        eth3d.process(None, [_sample("scene/left.png")])
    with pytest.raises(ValueError, match=r"is 6 x 8, its disparity 5 x 8: .* take transforms that crop or scale out"):
        kitti.process(None, [_sample("000000_10.png", ori_shape=(6, 8))])
    with pytest.raises(ValueError, match=r"000000_10\.png: the disparity is NaN or infinite"):
        kitti.process(None, [_sample("000000_10.png", predicted=torch.full((5, 8), torch.nan))])
    with pytest.raises(ValueError, match=r"s/im0\.png has no run time"):
        eth3d.process(None, [_sample("s/im0.png", seconds=None)])
    with pytest.raises(ValueError, match='set out="FOLDER"'):
        METRICS.build({"type": "visionattn.ETH3DSubmission"}).process(None, [_sample("s/im0.png")])
    for method in ("a b", "sparse_s", "", "a/b"):
        with pytest.raises(ValueError, match="method="):
            METRICS.build({"type": "visionattn.MiddleburySubmission", "method": method})
