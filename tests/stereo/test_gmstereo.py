"""GMStereo, against the official network's numbers."""

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
from torch import Tensor

from visionattn.registry import MODELS
from visionattn.stereo.gmstereo import GMStereo
from visionattn.weights.loading import load_checkpoint

FOLDER = ROOT / "stereo"
NUMBERS = sorted(FOLDER.glob("gmstereo_*.npz"))
NAMES = sorted(FOLDER.glob("gmstereo_*_state_dict.json"))
SMALL: dict[str, Any] = {"channels": 16, "layers": 2, "expansion": 1}

# The official network was given pairs that had been normalised and rounded to float32.
_MEAN = torch.tensor([0.485, 0.456, 0.406]).double().view(3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).double().view(3, 1, 1)


def pair(height: int = 64, width: int = 128) -> tuple[Tensor, Tensor]:
    left, right = smooth_pair(height, width, disp=6)
    return ((left - _MEAN) / _STD).float(), ((right - _MEAN) / _STD).float()


def options(path: Path) -> dict[str, Any]:
    """Those in a file's name."""
    scales = int(re.search(r"scale(\d)", path.stem)[1])
    steps = re.search(r"regrefine(\d+)", path.stem)
    return {"splits": {1: (2,), 2: (2, 8)}[scales], "refinements": int(steps[1]) if steps else 0}


@pytest.mark.skipif(not NAMES, reason=f"no golden names of GMStereo in {FOLDER}: set VISIONATTN_GOLDEN")
@pytest.mark.parametrize("path", NAMES, ids=lambda path: path.stem)
def test_golden_names_and_shapes_of_the_parameters(path: Path) -> None:
    listed = json.loads(path.read_text())
    model = GMStereo(**options(path))
    assert sum(p.numel() for p in model.parameters()) == listed["params"]
    assert [[key, list(t.shape)] for key, t in model.state_dict().items()] == [row[:2] for row in listed["entries"]]


@pytest.mark.skipif(not NUMBERS, reason=f"no golden GMStereo in {FOLDER}: set VISIONATTN_GOLDEN")
@pytest.mark.parametrize("path", NUMBERS, ids=lambda path: path.stem)
def test_golden_disparities(path: Path) -> None:
    """In float64, as near to a float64 record as it can be, and to a float32 one as four times float32's own error."""
    height, width = map(int, re.search(r"(\d+)x(\d+)", path.stem).groups())
    with np.load(path) as arrays:
        recorded = {key: torch.from_numpy(arrays[key]).double() for key in arrays.files if key != "precision"}
        exact = str(arrays["precision"]) == "float64"
    model = fill_(GMStereo(**options(path)), 1.0)
    left, right = pair(height, width)
    with torch.no_grad():
        single = model(left, right)
        outputs = model.double()(left.double(), right.double())
        (evaluated,) = model.float().eval()(left, right)
    stages = sorted((key for key in recorded if key.startswith("train_pred")), key=lambda key: int(key[10:]))
    assert len(outputs) == len(stages) > 0
    for output, rough, key in zip(outputs, single, stages, strict=True):
        own_error = (output - rough).abs().max().item()
        assert own_error < 0.02, key
        torch.testing.assert_close(output, recorded[key], rtol=0, atol=max(4 * own_error, 1e-3))
    torch.testing.assert_close(outputs[-1], recorded["eval_disp"], rtol=0, atol=1e-5 if exact else 0.02)
    torch.testing.assert_close(evaluated, single[-1], rtol=0, atol=1e-6)
    for kind, found in (("float64", outputs[-1]), ("float32", evaluated)):
        print(f"{path.stem}, ours in {kind}: {(found - recorded['eval_disp']).abs().max().item():.1e} px at most")


def test_equal_views_are_as_good_as_others() -> None:
    """The official test of self against cross attention takes equal views for one."""
    model = fill_(GMStereo(**SMALL), 1.0).double().eval()
    left, _ = (view.double() for view in pair())
    with torch.no_grad():
        (same,), (near,) = model(left, left), model(left, left + 1e-9)
    torch.testing.assert_close(same, near, rtol=0, atol=1e-3)


def test_an_official_checkpoint_loads(tmp_path: Path) -> None:
    source = fill_(GMStereo((2, 8), refinements=1, **SMALL), 1.0)
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    torch.save({"model": state, "step": 1}, tmp_path / "official.pth")
    model = GMStereo((2, 8), refinements=1, **SMALL)
    assert load_checkpoint(model, tmp_path / "official.pth").complete
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"splits": (2, 8), "refinements": 2},
        {"splits": (2, 4), "self_attention": "EfficientAttention", "cross_attention": "SoftmaxAttention"},
        {
            "self_attention": {"type": "WindowAttention", "window": (4, 4), "num_heads": 4},
            "cross_attention": {"type": "EfficientAttention"},
            "cross_rows": False,
        },
        {"splits": (1,), "features": {"type": "TimmBackbone", "model_name": "resnet10t"}},
        {
            "splits": (2, 8),
            "features": {"type": "SwinTransformer", "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)}
            | {"out_indices": (0, 1)},
        },
    ],
    ids=["published", "refined", "attention", "windows", "resnet", "swin"],
)
def test_every_parameter_gets_a_gradient(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = MODELS.build({"type": "visionattn.GMStereo", **SMALL, **config}).train()
    disparities = model(*pair())
    assert len(disparities) == 2 * len(model.splits) + model.refinements
    assert {tuple(d.shape) for d in disparities} == {(1, 64, 128)}
    sum((d * torch.rand_like(d)).mean() for d in disparities).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_attention_may_be_replaced_without_touching_the_rest() -> None:
    published, other = GMStereo(**SMALL), GMStereo(**SMALL, self_attention="EfficientAttention")
    names = ("q_proj", "k_proj", "v_proj", "merge")
    assert set(published.state_dict()) - set(other.state_dict()) == {
        f"transformer.layers.{layer}.self_attn.{name}.weight" for layer in range(2) for name in names
    }


def test_a_batch_is_its_pairs() -> None:
    model = fill_(GMStereo((2, 8), refinements=1, **SMALL), 1.0).double().eval()
    views = [torch.cat([view.double(), view.double().flip(2)]) for view in pair(32, 64)]
    with torch.no_grad():
        (batch,) = model(*views)
        alone = torch.cat([model(*(view[i : i + 1] for view in views))[0] for i in range(2)])
    torch.testing.assert_close(batch, alone, rtol=0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"splits": (2, 8), "refinements": 1}], ids=["published", "refined"])
def test_it_exports_as_one_graph(config: dict[str, Any]) -> None:
    model = fill_(GMStereo(**config, **SMALL), 1.0).eval()
    views = pair(32, 64)
    with torch.no_grad():
        program = torch.export.export(model, views)
        torch.testing.assert_close(program.module()(*views), model(*views), rtol=1e-4, atol=1e-3)


def test_autocast_stays_near_float32() -> None:
    model = fill_(GMStereo((2, 8), refinements=1, **SMALL), 0.5).eval()
    left, right = pair()
    with torch.no_grad():
        (wanted,) = model(left, right)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (found,) = model(left, right)
    assert found.dtype == torch.float32
    assert (found - wanted).abs().median() < 1


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"splits=\(2, 4, 8\) must hold one or two numbers of windows"):
        GMStereo((2, 4, 8))
    with pytest.raises(ValueError, match="refinements=-1 must be 0 or more"):
        GMStereo(refinements=-1)
    with pytest.raises(TypeError, match="WindowAttention cannot look at another map"):
        GMStereo(cross_attention="WindowAttention")
    with pytest.raises(ValueError, match=r"read at stride 8 and 4, and .* has maps at 16, 32; take another backbone"):
        GMStereo((2, 8), features={"type": "TimmBackbone", "model_name": "resnet10t", "out_indices": (3, 4)})
    model = GMStereo(**SMALL)
    assert (model.divisor, model.smallest) == (16, 16)
    with pytest.raises(ValueError, match="that 16 divides, 16 and more, got 64 x 120; pad the pair"):
        model(torch.zeros(1, 3, 64, 120), torch.zeros(1, 3, 64, 120))
