"""GwcNet, against the official network's numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detfill import fill_, smooth_pair, tensor
from golden import ROOT
from torch import Tensor
from torch.nn import functional as F

from visionattn.registry import MODELS
from visionattn.stereo.gwcnet import GwcNet
from visionattn.weights.loading import load_checkpoint

FOLDER = ROOT / "stereo"
CONCAT_CHANNELS = {"gwcnet-g": 0, "gwcnet-gc": 12}
PARAMETERS = {"gwcnet-g": 6_518_560, "gwcnet-gc": 6_909_728}


def family(*endings: str) -> list[object]:
    """Name and files of every network that has them all, by what follows the name; skipped where there is none."""
    found = []
    for name in CONCAT_CHANNELS:
        files = [sorted(FOLDER.glob(f"{name}_{ending}")) for ending in endings]
        found += [pytest.param(name, *row, id=f"{name} {row[0].stem}") for row in zip(*files, strict=False)]
    reason = f"no golden gwcnet-*_{endings[0]} in {FOLDER}: set VISIONATTN_GOLDEN"
    return found or [pytest.param(*[None] * (1 + len(endings)), marks=pytest.mark.skip(reason=reason))]


def arrays_of(path: Path) -> dict[str, Tensor]:
    with np.load(path) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def made(name: str, path: Path) -> tuple[GwcNet, Tensor, Tensor]:
    """The network as it was recorded, in float64, and the pair."""
    height, width, max_disparity = (int(n) for n in re.findall(r"\d+", path.stem))
    model = GwcNet(max_disparity, concat_channels=CONCAT_CHANNELS[name])
    # Parameters, mean and deviation had been rounded to float32 when it was recorded.
    mean, std = (torch.tensor(t).double().view(3, 1, 1) for t in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    left, right = smooth_pair(height, width, disp=6)
    return fill_(model, 1.0).double(), (left - mean) / std, (right - mean) / std


@pytest.mark.parametrize(("name", "listed"), family("state_dict.json"))
def test_golden_names_and_shapes_of_the_parameters(name: str, listed: Path) -> None:
    wanted = json.loads(listed.read_text())
    model = GwcNet(concat_channels=CONCAT_CHANNELS[name])
    assert sum(p.numel() for p in model.parameters()) == wanted["params"] == PARAMETERS[name]
    assert [[key, list(t.shape)] for key, t in model.state_dict().items()] == [row[:2] for row in wanted["entries"]]


@pytest.mark.parametrize(("name", "path"), family("[0-9]*x[0-9]*_d[0-9]*.npz"))
def test_golden_disparity_features_and_costs(name: str, path: Path) -> None:
    recorded = {key: t.double() for key, t in arrays_of(path).items()}
    model, left, right = made(name, path)
    model.eval()
    seen: dict[str, Tensor] = {}
    model.dres2.register_forward_hook(lambda *call: seen.update(dres2=call[2]))
    model.classif3.register_forward_hook(lambda *call: seen.update(classif3=call[2]))
    with torch.no_grad():
        groups, concat = model.feature_extraction(left)
        (disparity,) = model(left, right)
    double = dict(seen)
    with torch.no_grad():
        (single,) = model.float()(left.float(), right.float())
        model.align_corners = True
        (aligned,) = model.double()(left, right)
    for found, key in (
        (groups[:, ::8], "gwc_feature_every8"),
        (double["dres2"][:, ::8], "dres2_every8"),
        (double["classif3"], "cost3"),
        (disparity, "eval_disp_align0"),
        (aligned, "eval_disp_align1"),
    ):
        torch.testing.assert_close(
            found.double(), recorded[key], rtol=0, atol=3e-6 * recorded[key].abs().max().item(), msg=key
        )
    assert ("concat_feature" in recorded) == (concat is not None)
    if concat is not None:
        torch.testing.assert_close(concat, recorded["concat_feature"], rtol=1e-6, atol=1e-6)
    limit = 4 * recorded["fp32_max_abs_diff_align0"].item()  # the official code's own float32 against its float64
    torch.testing.assert_close(single.double(), disparity, rtol=0, atol=limit)


@pytest.mark.parametrize(("name", "path", "norms"), family("[0-9]*x[0-9]*_d[0-9]*.npz", "train.json"))
def test_golden_training_step(name: str, path: Path, norms: Path) -> None:
    model, left, right = made(name, path)
    disparities = model.train()(left, right)
    truth = tensor("gt", tuple(disparities[0].shape), 0, 60)
    counted = (truth > 0) & (truth < model.max_disparity)
    loss = sum(
        weight * F.smooth_l1_loss(d[counted], truth[counted])
        for weight, d in zip((0.5, 0.5, 0.7, 1.0), disparities, strict=True)
    )
    recorded = arrays_of(path)
    for index, disparity in enumerate(disparities):
        torch.testing.assert_close(disparity, recorded[f"train_disp{index}"].double(), rtol=0, atol=5e-5)
    wanted = json.loads(norms.read_text())
    assert loss.item() == pytest.approx(wanted["loss"], rel=1e-7)
    loss.backward()
    found = {key: p.grad.norm().item() for key, p in model.named_parameters()}
    assert found.keys() == wanted["grad_norm"].keys()
    for key, norm in wanted["grad_norm"].items():
        assert found[key] == pytest.approx(norm, rel=1e-5, abs=1e-9), key


def test_an_official_checkpoint_loads(tmp_path: Path) -> None:
    official, model = fill_(GwcNet(16, concat_channels=12), 1.0), GwcNet(16, concat_channels=12)
    state = {f"module.{key}": value for key, value in official.state_dict().items()}
    torch.save({"epoch": 15, "model": state, "optimizer": {}}, tmp_path / "official.ckpt")
    report = load_checkpoint(model, tmp_path / "official.ckpt")
    assert not report.missing
    assert not report.unexpected
    for key, value in official.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_it_is_built_by_name_and_says_which_sides_it_takes() -> None:
    model = MODELS.build({"type": "visionattn.GwcNet", "max_disparity": 16, "groups": 4}).eval()
    side = max(model.divisor, model.smallest)
    with torch.no_grad():
        assert [d.shape for d in model(*torch.randn(2, 1, 3, side, 2 * side))] == [(1, side, 2 * side)]
    with pytest.raises(ValueError, match="that 16 divides, 16 and more, got 16 x 40; pad the pair"):
        model(*torch.randn(2, 1, 3, side, side + 24))
    with pytest.raises(ValueError, match="max_disparity=40 must be a multiple of 16, such as"):
        GwcNet(40)
