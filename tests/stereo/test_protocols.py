"""Protocols of stereo evaluation, against the figures of the official functions and against loops."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from golden import ROOT
from torch import Tensor

from visionattn.stereo.errors import FIELDS, error_sums
from visionattn.stereo.protocols import PROTOCOLS, protocol

FOLDER = ROOT / "stereo"
needs_golden = pytest.mark.skipif(
    not all((FOLDER / name).is_file() for name in ("metrics.json", "metrics_inputs.npz")),
    reason=f"no golden metrics in {FOLDER}: set VISIONATTN_GOLDEN",
)


def sums_of(name: str, disparity: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """The table of a data set."""
    known = truth > 0 if known is None else known
    counted = protocol(name).counted
    rows = [error_sums(d, t, counted(t, k), k) for d, t, k in zip(disparity, truth, known, strict=True)]
    return torch.stack(rows)


def figures(name: str, disparity: Tensor, truth: Tensor) -> dict[str, float]:
    return protocol(name).reduce(sums_of(name, disparity, truth))


def recorded() -> tuple[Tensor, Tensor, dict[str, object]]:
    with np.load(FOLDER / "metrics_inputs.npz") as arrays:
        disparity, truth = torch.from_numpy(arrays["pred"]), torch.from_numpy(arrays["gt"])
    return disparity, truth, json.loads((FOLDER / "metrics.json").read_text())


@needs_golden
def test_golden_gwcnet() -> None:
    disparity, truth, wanted = recorded()
    found = figures("gwcnet", disparity, truth)
    for ours, theirs in {"EPE": "EPE", "D1": "D1", "bad-1": "Thres1", "bad-2": "Thres2", "bad-3": "Thres3"}.items():
        factor = 1 if ours == "EPE" else 100
        assert found[ours] == pytest.approx(factor * wanted["gwcnet"][theirs], rel=1e-6)


@needs_golden
def test_golden_openstereo_and_unimatch_image_by_image() -> None:
    disparity, truth, wanted = recorded()
    theirs = wanted["openstereo_per_image"]
    names = {
        "EPE": "EPE",
        "D1": "D1_percent",
        "bad-1": "bad1_percent",
        "bad-2": "bad2_percent",
        "bad-3": "bad3_percent",
    }
    for index in range(len(truth)):
        found = figures("openstereo", disparity[index : index + 1], truth[index : index + 1])
        for ours, name in names.items():
            assert found[ours] == pytest.approx(theirs[name][index], rel=1e-6)
        limited = torch.where(truth < 192, truth, 0)  # the recorded mask: 0 < d < 192
        found = figures("unimatch", disparity[index : index + 1], limited[index : index + 1])
        assert found["EPE"] == pytest.approx(wanted["unimatch_per_image"][index]["EPE"], rel=1e-6)
        assert found["D1"] == pytest.approx(100 * wanted["unimatch_per_image"][index]["D1"], rel=1e-6)


@needs_golden
def test_golden_psmnet_and_raft() -> None:
    disparity, truth, wanted = recorded()
    assert figures("psmnet", disparity, truth)["EPE"] == pytest.approx(
        wanted["psmnet_main_test"]["EPE_batch_mean_mask_lt192"], rel=1e-6
    )
    found, theirs = figures("raft", disparity, truth), wanted["raftstereo_validate_things"]
    assert found["EPE"] == pytest.approx(theirs["EPE_mean_of_image_means"], rel=1e-6)
    assert found["bad-1"] == pytest.approx(theirs["D1_all_pixels_gt1px_percent"], rel=1e-6)


@needs_golden
def test_golden_pixels_of_all_images_pooled() -> None:
    disparity, truth, wanted = recorded()
    found, theirs = figures("visionattn", disparity, truth), wanted["unimatch_batch_pixel_mean"]
    assert found["EPE-pixels"] == pytest.approx(theirs["EPE"], rel=1e-6)
    for ours, name in {"D1": "D1", "bad-1": "bad1", "bad-2": "bad2", "bad-3": "bad3"}.items():
        assert found[f"{ours}-pixels"] == pytest.approx(100 * theirs[name], rel=1e-6)


@needs_golden
def test_golden_kitti_outliers() -> None:
    disparity, truth, wanted = recorded()
    found = figures("kitti", disparity, truth)["D1"]
    assert found == pytest.approx(100 * wanted["psmnet_finetune_3px_err"]["value"], rel=1e-6)


def test_a_disparity_that_is_not_a_number_is_wrong() -> None:
    truth = torch.full((1, 1, 4), 10.0)
    disparity = torch.tensor([[[10.0, math.nan, math.inf, 10.0]]])
    found = figures("visionattn", disparity, truth)
    assert [found[name] for name in ("bad-0.5", "bad-5", "D1")] == [50, 50, 50]
    assert math.isnan(found["EPE"])


def made_up(images: int = 19) -> tuple[Tensor, Tensor]:
    """Errors of several pixels; unknown pixels, pixels beyond every limit, an image with none, one with few, a batch
    with none."""
    generator = torch.Generator().manual_seed(0)
    truth = 300 * torch.rand(images, 6, 7, generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = 0
    truth[2] = 450.0
    truth[3] = 250.0
    truth[3, 0, :2] = 20.0
    truth[8:16] = 500.0
    disparity = truth + 4 * torch.randn(truth.shape, generator=generator)
    return disparity, truth


def naive(name: str, disparity: Tensor, truth: Tensor) -> dict[str, float]:
    """EPE and D1 by loops over images and pixels, from the specification's words."""
    images = []
    for d, t in zip(disparity.double().tolist(), truth.double().tolist(), strict=True):
        pixels = [(a, b) for row_a, row_b in zip(d, t, strict=True) for a, b in zip(row_a, row_b, strict=True)]
        if name in ("psmnet", "raft", "igev", "selective"):
            seen = [(a, b) for a, b in pixels if b < 192]
        else:
            limits = {"unimatch": 400.0, "kitti": math.inf, "middlebury": math.inf}
            seen = [(a, b) for a, b in pixels if 0 < b < limits.get(name, 192.0)]
        if name == "gwcnet" and len(seen) < 0.1 * sum(b > 0 for _, b in pixels):
            continue
        images.append(seen)

    def epe(seen: list[tuple[float, float]]) -> float:
        return sum(abs(a - b) for a, b in seen) / len(seen)

    def d1(seen: list[tuple[float, float]]) -> float:
        relative = 0.0 if name == "igev" else 0.05
        return 100 * sum(abs(a - b) > 3 and abs(a - b) > relative * b for a, b in seen) / len(seen)

    pooled = [pixel for seen in images for pixel in seen]
    if name == "kitti":
        return {"EPE": epe(pooled), "D1": d1(pooled)}
    if name in ("psmnet", "selective"):
        images = [[p for seen in images[i : i + 8] for p in seen] for i in range(0, len(images), 8)]
    counted = images if name in ("openstereo", "psmnet") else [seen for seen in images if seen]
    by_image = {
        "EPE": sum(epe(seen) if seen else 0.0 for seen in counted) / len(counted),
        "D1": sum(d1(seen) if seen else 0.0 for seen in counted) / len(counted),
    }
    if name == "raft":
        return {"EPE": by_image["EPE"]}
    return {**by_image, "D1": d1(pooled)} if name == "igev" else by_image


@pytest.mark.parametrize("name", PROTOCOLS)
def test_each_protocol_is_its_words(name: str) -> None:
    disparity, truth = made_up()
    found = figures(name, disparity, truth)
    for figure, value in naive(name, disparity, truth).items():
        assert found[figure] == pytest.approx(value, rel=1e-12), figure


def test_protocols_differ_on_one_data_set() -> None:
    disparity, truth = made_up()
    assert len({round(figures(name, disparity, truth)["EPE"], 6) for name in PROTOCOLS}) >= 6


def test_nothing_counted_is_no_figure() -> None:
    empty = torch.full((2, 3, 4), 500.0)
    for name in ("visionattn", "unimatch", "selective"):
        assert math.isnan(figures(name, empty, empty)["EPE"])
    for name in ("gwcnet", "openstereo", "psmnet"):
        assert figures(name, empty, empty)["EPE"] == 0


def test_unknown_pixels_count_only_where_the_authors_count_them() -> None:
    truth = torch.tensor([[[0.0, 10.0]]])
    disparity = torch.tensor([[[6.0, 12.0]]])
    assert figures("visionattn", disparity, truth)["EPE"] == 2
    assert figures("psmnet", disparity, truth)["EPE"] == 4
    infinite = torch.tensor([[[math.inf, 10.0]]])
    known = torch.tensor([[[False, True]]])
    assert protocol("visionattn").reduce(sums_of("visionattn", disparity, infinite, known))["EPE"] == 2


def test_bad_input_is_named() -> None:
    with pytest.raises(
        KeyError, match=r"no evaluation protocol is called 'psm'; there are visionattn, psmnet.*did you mean 'psmnet'"
    ):
        protocol("psm")
    with pytest.raises(KeyError, match=r"called 'zzz'; there are [a-z, ]*middlebury\"?'?$"):
        protocol("zzz")
    ones = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"differ in shape.*\[2, 4\]"):
        error_sums(torch.ones(2, 4), ones, ones > 0, ones > 0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        error_sums(ones, ones * math.nan, ones > 0, ones > 0)
    assert error_sums(ones + 1, ones, ones > 0, ones > 0).tolist() == [6, 6, 6, 6, 0, 0, 0, 0, 0, 0]
    assert len(FIELDS) == 10
