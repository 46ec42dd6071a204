"""RAFT-Stereo, against the official network's numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detfill import fill_, smooth_pair
from golden import ROOT
from naive import tensor
from torch import Tensor, nn

from visionattn.registry import MODELS
from visionattn.stereo.raft_stereo import RAFTStereo
from visionattn.stereo.row_lookup import LeanRowLookup, StoredRowLookup
from visionattn.weights.loading import load_checkpoint

FOLDER = ROOT / "stereo"
NUMBERS = sorted(FOLDER.glob("raftstereo_*.npz"))
NAMES = sorted(FOLDER.glob("raftstereo_*_state_dict.json"))
REALTIME: dict[str, Any] = {"downsample": 3, "scales": 2, "shared_backbone": True, "slow_fast": True}
OPTIONS: dict[str, dict[str, Any]] = {"default": {}, "realtime": REALTIME}
"""By the second word of a file's name."""


def pair(height: int = 64, width: int = 128) -> tuple[Tensor, Tensor]:
    left, right = smooth_pair(height, width, disp=6, scale=255.0)
    return 2 * (left.float() / 255) - 1, 2 * (right.float() / 255) - 1


@pytest.mark.skipif(not NAMES, reason=f"no golden names of RAFT-Stereo in {FOLDER}: set VISIONATTN_GOLDEN")
@pytest.mark.parametrize("path", NAMES, ids=lambda path: path.stem)
def test_golden_names_and_shapes_of_the_parameters(path: Path) -> None:
    listed = json.loads(path.read_text())
    model = RAFTStereo(**OPTIONS[path.stem.split("_")[1]])
    assert sum(p.numel() for p in model.parameters()) == listed["params"]
    assert [[key, list(t.shape)] for key, t in model.state_dict().items()] == [row[:2] for row in listed["entries"]]


@pytest.mark.skipif(not NUMBERS, reason=f"no golden RAFT-Stereo in {FOLDER}: set VISIONATTN_GOLDEN")
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "lean"])
@pytest.mark.parametrize("path", NUMBERS, ids=lambda path: path.stem)
def test_golden_disparities(path: Path, stored: bool) -> None:
    height, width, steps = map(int, re.search(r"(\d+)x(\d+)_it(\d+)", path.stem).groups())
    with np.load(path) as arrays:
        recorded = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    kind = path.stem.split("_")[1]
    model = fill_(RAFTStereo(steps, stored_correlation=stored, **OPTIONS[kind]), 1.0)
    changes: list[Tensor] = []
    model.update_block.flow_head.register_forward_hook(lambda *call: changes.append(call[2]))
    left, right = pair(height, width)
    with torch.no_grad():
        outputs = model(left, right)  # batch norms keep their statistics, so training shows every step of eval
        (evaluated,) = model.eval()(left, right)
    assert len(outputs) == steps == sum(key.startswith("iter") for key in recorded)
    for step, output in enumerate(outputs):
        torch.testing.assert_close(-output, recorded[f"iter{step}"][:, 0], rtol=0, atol=2e-4)
    torch.testing.assert_close(-evaluated, recorded["up"][:, 0], rtol=0, atol=2e-4)
    print(f"{path.stem}: {(evaluated + recorded['up'][:, 0]).abs().max().item():.1e} px at most")
    lowres = torch.stack(changes[:steps]).sum(0)
    torch.testing.assert_close(lowres[:, :1], recorded["lowres"][:, :1], rtol=0, atol=2e-4)


@pytest.mark.parametrize("width", [16, 13, 9])
def test_both_lookups_give_the_same_and_so_do_their_gradients(width: int) -> None:
    left, right = tensor(2, 6, 3, width).requires_grad_(), tensor(2, 6, 3, width, seed=1).requires_grad_()
    centre = width * torch.rand(2, 3, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weight = tensor(2, 3 * 5, 3, width, seed=3)
    found = [kind(left, right, 3, 2)(centre) for kind in (StoredRowLookup, LeanRowLookup)]
    assert found[0].shape == weight.shape
    torch.testing.assert_close(*found)
    grads = [torch.autograd.grad((out * weight).sum(), (left, right)) for out in found]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("config", [{}, REALTIME], ids=["default", "realtime"])
def test_every_used_parameter_gets_a_gradient(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = MODELS.build({"type": "visionattn.RAFTStereo", "iterations": 2, "training_iterations": 3, **config})
    views = pair(64, 64)
    disparities = model.train()(*views)
    assert [tuple(d.shape) for d in disparities] == [(1, 64, 64)] * 3
    sum(d.square().mean() for d in disparities).backward()
    unused = ("cnet.layer5", "cnet.outputs32", "update_block.gru32") if config else ()  # of a third scale
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {name for name, _ in model.named_parameters() if unused and name.startswith(unused)}
    assert len(model.eval()(*views)) == 1


def test_the_lean_lookup_trains_as_the_stored_one() -> None:
    config = {"iterations": 2, "scales": 1, "shared_backbone": True, "downsample": 3}
    models = [RAFTStereo(**config, stored_correlation=stored) for stored in (True, False)]
    views = [view.double() for view in pair(64, 64)]
    for model in models:
        model.load_state_dict(models[0].state_dict())
        sum(d.square().mean() for d in model.double()(*views)).backward()
    grads = [{name: p.grad for name, p in model.named_parameters() if p.grad is not None} for model in models]
    assert len(grads[0]) > 50
    torch.testing.assert_close(*grads)


def test_batch_norms_keep_their_statistics_while_training() -> None:
    frozen, moving = RAFTStereo(1), RAFTStereo(1, norm_eval=False)
    for model in (frozen, moving):
        model.train()
        model(*pair(32, 32))
    assert not frozen.cnet.norm1.running_mean.any()
    assert moving.cnet.norm1.running_mean.any()


def test_an_official_checkpoint_loads(tmp_path: Path) -> None:
    source = RAFTStereo(1)
    torch.save({f"module.{key}": value for key, value in source.state_dict().items()}, tmp_path / "official.pth")
    model = RAFTStereo(1)
    assert load_checkpoint(model, tmp_path / "official.pth").complete
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_view_may_look_at_the_other() -> None:
    plain = RAFTStereo(1, **REALTIME).eval()
    model = RAFTStereo(1, **REALTIME, cross_view="EfficientAttention").eval()
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert {key.split(".")[0] for key in missing} == {"cross_view"}
    views = pair()
    with torch.no_grad():
        assert torch.equal(model(*views)[0], plain(*views)[0])
        nn.init.ones_(model.cross_view.gamma)
        assert not torch.allclose(model(*views)[0], plain(*views)[0])


def test_autocast_stays_near_float32() -> None:
    torch.manual_seed(0)
    model = RAFTStereo(2).eval()
    views = pair(32, 64)
    with torch.no_grad():
        (wanted,) = model(*views)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (found,) = model(*views)
    assert found.dtype == torch.float32
    assert (found - wanted).abs().max() < 0.1 * wanted.abs().max()


@pytest.mark.slow
def test_it_exports_as_one_graph() -> None:
    model = fill_(RAFTStereo(2, **REALTIME), 1.0).eval()
    views = pair(64, 64)
    with torch.no_grad():
        program = torch.export.export(model, views)
        torch.testing.assert_close(program.module()(*views), model(*views), rtol=1e-4, atol=1e-4)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="scales=4 must be 1 to 3"):
        RAFTStereo(scales=4)
    with pytest.raises(ValueError, match="iterations=0 must be 1 or more"):
        RAFTStereo(0)
    model = RAFTStereo(1)
    assert (model.divisor, model.smallest) == (32, 32)
    with pytest.raises(ValueError, match="that 32 divides, 32 and more, got 64 x 120; pad the pair"):
        model(torch.zeros(1, 3, 64, 120), torch.zeros(1, 3, 64, 120))
    assert RAFTStereo(1, **REALTIME).smallest == 64
