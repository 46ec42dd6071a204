"""Evaluation pictures: of the right pairs, with the right names, and what they show."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from visionattn.registry import HOOKS
from visionattn.stereo.packing import PackStereo, StereoSample
from visionattn.stereo.pictures import file_name
from visionattn.visualization.disparity_panel import disparity_panel
from visionattn.visualization.prediction_view import prediction_view


def _raw(index: int, known: bool = True) -> dict:
    rng = np.random.default_rng(index)
    left, right = rng.integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    raw = {"left": left, "right": right, "name": f"A/{index:04d}"}
    if known:
        raw |= {"disparity": rng.uniform(1, 40, (20, 30)).astype(np.float32), "valid": rng.random((20, 30)) < 0.9}
        raw["nonoccluded"] = rng.random((20, 30)) < 0.8
    return raw


def _predicted(raw: dict, error: float) -> tuple[dict, StereoSample]:
    packed = PackStereo()(raw)
    truth = raw.get("disparity", np.full((20, 30), 9.0, np.float32))
    packed["data_samples"].predicted = torch.from_numpy(truth + np.float32(error))
    return packed["inputs"], packed["data_samples"]


def _runner(work_dir: Path, size: int, batch: int, rank: int = 0, world: int = 1) -> SimpleNamespace:
    loader = SimpleNamespace(dataset=range(size), batch_size=batch)
    return SimpleNamespace(
        val_dataloader=loader, test_dataloader=loader, work_dir=str(work_dir), rank=rank, world_size=world
    )


def _evaluate(hook: object, runner: SimpleNamespace, raws: list[dict], part: str, error: float = 0.5) -> None:
    getattr(hook, f"before_{part}_epoch")(runner)
    mine = raws[runner.rank :: runner.world_size]
    batch = runner.val_dataloader.batch_size
    for number, start in enumerate(range(0, len(mine), batch)):
        pairs = [_predicted(raw, error) for raw in mine[start : start + batch]]
        inputs = {side: [views[side] for views, _ in pairs] for side in ("left", "right")}
        outputs = [sample for _, sample in pairs]
        getattr(hook, f"after_{part}_iter")(runner, number, {"inputs": inputs}, outputs)


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_pictures_are_the_panels_of_evenly_spaced_pairs(batch: int, part: str, tmp_path: Path) -> None:
    raws = [_raw(index) for index in range(5)]
    hook = HOOKS.build({"type": "visionattn.DisparityPictureHook", "number": 3, "high": 50.0})
    runner = _runner(tmp_path, 5, batch)
    for error in (4.0, 0.5):  # the second evaluation replaces the pictures of the first
        _evaluate(hook, runner, raws, part, error)
    files = sorted((tmp_path / "pictures").iterdir())
    assert [file.name for file in files] == ["A_0000.png", "A_0002.png", "A_0004.png"]
    for file, raw in zip(files, raws[::2], strict=True):
        truth = np.where(raw["valid"], raw["disparity"], 0)
        expected = disparity_panel(
            raw["left"], raw["disparity"] + np.float32(0.5), truth, raw["valid"], raw["nonoccluded"], high=50.0
        )
        np.testing.assert_array_equal(cv2.imread(str(file))[..., ::-1], expected)


def test_processes_share_the_pictures(tmp_path: Path) -> None:
    raws = [_raw(index) for index in range(7)]
    raws.append(raws[0])  # the sampler's repetition
    for rank in range(2):
        hook = HOOKS.build({"type": "visionattn.DisparityPictureHook", "number": 4})
        _evaluate(hook, _runner(tmp_path / str(rank), 7, 2, rank, 2), raws, "val")
    names = [sorted(file.name for file in (tmp_path / str(rank)).rglob("*.png")) for rank in range(2)]
    assert names == [["A_0000.png", "A_0002.png", "A_0004.png", "A_0006.png"], []]


def test_no_pictures_and_more_than_there_are(tmp_path: Path) -> None:
    for number, written in ((0, 0), (99, 3)):
        hook = HOOKS.build({"type": "visionattn.DisparityPictureHook", "number": number})
        _evaluate(hook, _runner(tmp_path / str(number), 3, 2), [_raw(index) for index in range(3)], "val")
        assert len(list((tmp_path / str(number)).rglob("*.png"))) == written
    with pytest.raises(ValueError, match="number=-1 of pictures must be 0 or more"):
        HOOKS.build({"type": "visionattn.DisparityPictureHook", "number": -1})


def test_the_best_and_the_worst_pairs_are_kept_for_the_report(tmp_path: Path) -> None:
    raws = [_raw(index) for index in range(7)]
    raws[4]["valid"][:] = False  # nothing to be right or wrong about
    shares = [0.3, 0.9, 0.1, 0.6, 1.0, 0.8, 0.2]
    hook = HOOKS.build({"type": "visionattn.DisparityPictureHook", "number": 0, "extremes": 2})
    runner = _runner(tmp_path, 7, 3)
    hook.before_val_epoch(runner)
    expected = []
    for index, (raw, share) in enumerate(zip(raws, shares, strict=True)):
        inputs, sample = _predicted(raw, 0.0)
        wrong = torch.rand(20, 30, generator=torch.Generator().manual_seed(index)) < share
        sample.predicted += 50.0 * wrong
        if raw["valid"].any():
            expected.append((100 * (1 - wrong.numpy()[raw["valid"]].mean()), f"A_{index:04d}"))
        batch = {"inputs": {side: view[None] for side, view in inputs.items()}}
        hook.after_val_iter(runner, index, batch, [sample])
    hook.after_val_epoch(runner)
    folder = tmp_path / "evaluation" / "examples"
    written = json.loads((folder / "0.json").read_text())["examples"]
    expected = sorted(expected)
    assert [(round(one["score"], 6), one["path"]) for one in written] == [
        (pytest.approx(score, abs=1e-5), name) for score, name in expected[:2] + expected[-2:]
    ]
    for one in written:
        assert [tile["title"].split()[0] for tile in one["tiles"]] == ["left", "truth", "disparity", "error:"]
        assert all(cv2.imread(str(folder / tile["file"])) is not None for tile in one["tiles"])


def test_a_tested_pair_without_truth_is_shown_too(tmp_path: Path) -> None:
    raw = _raw(3, known=False)
    inputs, sample = _predicted(raw, 0.0)
    hook = HOOKS.build({"type": "visionattn.TestPicturesHook", "out": str(tmp_path / "out")})
    batch = {"inputs": {side: view[None] for side, view in inputs.items()}}
    hook.after_test_iter(_runner(tmp_path, 1, 1), 0, batch, [sample])
    written = cv2.imread(str(tmp_path / "out" / "A_0003.png"))[..., ::-1]
    np.testing.assert_array_equal(written, disparity_panel(raw["left"], np.full((20, 30), 9.0, np.float32)))


def test_a_prediction_of_another_size_is_what_the_picture_has() -> None:
    inputs, sample = _predicted(_raw(0, known=False), 0.0)
    sample.predicted = torch.full((40, 60), 3.0)
    assert prediction_view(sample, inputs, {}).picture.shape[1] > 120


def test_files_are_called_after_what_is_known() -> None:
    assert file_name(StereoSample(metainfo={"name": "TEST/A/0000\\6"})) == "TEST_A_0000_6"
    assert file_name(StereoSample(metainfo={"left_path": "/data/left/0007.png"})) == "0007"
    assert file_name(StereoSample(), 12) == "000012"
