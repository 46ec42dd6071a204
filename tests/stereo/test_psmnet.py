"""PSMNet, against the official network's numbers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detfill import fill_, smooth_pair, tensor
from golden import ROOT
from torch import Tensor
from torch.nn import functional as F

from visionattn.stereo.psmnet import Hourglass, PSMNet, PyramidFeatures
from visionattn.weights.loading import load_checkpoint

FOLDER = ROOT / "stereo"
EVALUATED = sorted(FOLDER.glob("psmnet_stackhourglass_[0-9]*.npz"))
TRAINED = sorted(FOLDER.glob("psmnet_stackhourglass_train_*.npz"))
NAMES = FOLDER / "psmnet_stackhourglass_state_dict.json"
NORMS = FOLDER / "psmnet_stackhourglass_train.json"
needs_golden = pytest.mark.skipif(not EVALUATED, reason=f"no golden PSMNet in {FOLDER}: set VISIONATTN_GOLDEN")

# Recorded in float64 from parameters, mean and deviation that had been rounded to float32.
_MEAN = torch.tensor([0.485, 0.456, 0.406]).double().view(3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).double().view(3, 1, 1)


def pair(height: int, width: int, disparity: int = 6) -> tuple[Tensor, Tensor]:
    left, right = smooth_pair(height, width, disp=disparity)
    return (left - _MEAN) / _STD, (right - _MEAN) / _STD


def arrays_of(path: Path) -> dict[str, Tensor]:
    with np.load(path) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def numbers(path: Path) -> list[int]:
    """Those in a file's name: sides and the largest disparity."""
    return [int(n) for n in re.findall(r"\d+", path.stem)]


@pytest.mark.skipif(not NAMES.is_file(), reason=f"no {NAMES}: set VISIONATTN_GOLDEN")
def test_golden_names_and_shapes_of_the_parameters() -> None:
    listed = json.loads(NAMES.read_text())
    model = PSMNet()
    assert sum(p.numel() for p in model.parameters()) == listed["params"] == 5_224_768
    assert [[key, list(t.shape)] for key, t in model.state_dict().items()] == [row[:2] for row in listed["entries"]]


@needs_golden
@pytest.mark.parametrize("path", EVALUATED, ids=lambda path: path.stem)
def test_golden_disparity_features_and_costs(path: Path) -> None:
    height, width, max_disparity = numbers(path)
    recorded = arrays_of(path)
    model = fill_(PSMNet(max_disparity), 1.05).eval()
    seen: dict[str, Tensor] = {}
    model.dres0.register_forward_hook(lambda *call: seen.update(dres0=call[2]))
    model.classif3.register_forward_hook(lambda *call: seen.update(classif3=call[2]))
    left, right = (image.float() for image in pair(height, width))
    with torch.no_grad():
        features = model.feature_extraction(left)
        (disparity,) = model(left, right)
    torch.testing.assert_close(features[:, ::4], recorded["feat_left"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen["dres0"][:, ::8, ::3], recorded["dres0_sub"], rtol=1e-4, atol=1e-4)
    tolerance = 4 * recorded["fp32_max_abs_diff_align0"].item()  # the official code's own float32 against its float64
    torch.testing.assert_close(disparity, recorded["eval_disp_align0"][:, 0], rtol=0, atol=tolerance)


@needs_golden
@pytest.mark.slow
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("path", EVALUATED, ids=lambda path: path.stem)
def test_golden_disparity_in_float64(path: Path, align_corners: bool) -> None:
    height, width, max_disparity = numbers(path)
    model = fill_(PSMNet(max_disparity, align_corners=align_corners), 1.05).double().eval()
    with torch.no_grad():
        (disparity,) = model(*pair(height, width))
    recorded = arrays_of(path)[f"eval_disp_align{int(align_corners)}"][:, 0].double()
    torch.testing.assert_close(disparity, recorded, rtol=0, atol=1e-5)


@pytest.mark.skipif(not (TRAINED and NORMS.is_file()), reason=f"no golden training step in {FOLDER}")
@pytest.mark.slow
@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_golden_training_step(path: Path) -> None:
    batch, height, width, max_disparity = numbers(path)
    assert batch == 2
    model = fill_(PSMNet(max_disparity), 1.05).double().train()
    pairs = [pair(height, width, disparity) for disparity in (6, 11)]
    left, right = (torch.cat(views) for views in zip(*pairs, strict=True))
    disparities = model(left, right)
    truth = tensor("gt", (batch, height, width), 0, 20)
    counted = truth < max_disparity
    loss = sum(
        weight * F.smooth_l1_loss(d[counted], truth[counted])
        for weight, d in zip((0.5, 0.7, 1.0), disparities, strict=True)
    )
    recorded = arrays_of(path)
    for index, disparity in enumerate(disparities, 1):
        wanted = recorded[f"train_disp{index}_every4"].double()
        torch.testing.assert_close(disparity[:, ::4, ::4], wanted, rtol=0, atol=1e-4)
    assert loss.item() == pytest.approx(recorded["train_loss"].item(), rel=1e-6)
    loss.backward()
    norms = json.loads(NORMS.read_text())["grad_norm"]
    found = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    assert found.keys() == norms.keys()
    for name, norm in norms.items():
        assert found[name] == pytest.approx(norm, rel=1e-4, abs=1e-8), name


@pytest.mark.skipif(not (FOLDER / "submodules.npz").is_file(), reason=f"no golden hourglass in {FOLDER}")
def test_golden_hourglass() -> None:
    recorded = arrays_of(FOLDER / "submodules.npz")
    hourglass = fill_(Hourglass(8), 1.414).eval()
    with torch.no_grad():
        first = hourglass(recorded["hg_in"])
        second = hourglass(recorded["hg_out"], recorded["hg_pre"], recorded["hg_post"])
    for name, found in zip(("out", "pre", "post"), first, strict=True):
        torch.testing.assert_close(found, recorded[f"hg_{name}"], rtol=1e-5, atol=1e-5)
    for name, found in zip(("out", "pre", "post"), second, strict=True):
        torch.testing.assert_close(found, recorded[f"hg2_{name}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("EfficientAttention", ("spp", "cost", "hourglass")),
        # In the volume it would store the square of its size.
        pytest.param("NonLocal", ("hourglass",), marks=pytest.mark.slow),
    ],
)
def test_inserted_attention_leaves_a_checkpoint_as_it_was(name: str, places: tuple[str, ...], tmp_path: Path) -> None:
    plain = fill_(PSMNet(16), 1.05).eval()
    state = {f"module.{key}": value for key, value in plain.state_dict().items()}
    torch.save({"epoch": 10, "state_dict": state}, tmp_path / "official.tar")
    model = PSMNet(16, attention={place: {"type": name} for place in places}).eval()
    report = load_checkpoint(model, tmp_path / "official.tar", strict=False)
    assert not report.unexpected
    assert {key.split(".")[0] for key in report.missing} == {"attention"}
    left, right = (image.float() for image in pair(256, 256))
    with torch.no_grad():
        (before,), (after,) = plain(left, right), model(left, right)
        assert torch.equal(before, after)
        for plugin in model.attention.values():
            torch.nn.init.ones_(plugin.gamma)
        assert not torch.allclose(before, model(left, right)[0])


@pytest.mark.parametrize("align_corners", [False, True])
def test_pooled_maps_are_enlarged_as_align_corners_says(align_corners: bool) -> None:
    torch.manual_seed(0)
    features, seen = PyramidFeatures(align_corners).eval(), {}
    features.stages = lambda image: image.split([64, 128, 128], dim=1)
    features.branch4.register_forward_hook(lambda module, inputs, pooled: seen.update(pooled=pooled))
    features.lastconv.register_forward_pre_hook(lambda module, inputs: seen.update(joined=inputs[0]))
    with torch.no_grad():
        features(torch.randn(1, 320, 64, 72))
    pooled = seen["pooled"][0].movedim(0, -1)
    assert pooled.shape == (8, 9, 32)
    between = 9 * 7 / 63 if align_corners else 9.5 / 8 - 0.5  # the pooled rows that row 9 lies between
    first, second = pooled[int(between), 0], pooled[int(between) + 1, 0]
    wanted = first + (between - int(between)) * (second - first)
    torch.testing.assert_close(seen["joined"][0, 192:224, 9, 0], wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_every_parameter_gets_a_gradient() -> None:
    model = fill_(PSMNet(16, attention={"cost": {"type": "EfficientAttention", "qkv_bias": False}}), 1.05)
    disparities = model(*torch.randn(2, 2, 3, 256, 256))
    assert [list(d.shape) for d in disparities] == [[2, 256, 256]] * 3
    sum(d.mean() for d in disparities).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="max_disparity=100 must be a multiple of 16, such as 96"):
        PSMNet(100)
    with pytest.raises(KeyError, match="no place 'ssp' for attention; it has spp, cost, hourglass"):
        PSMNet(16, attention={"ssp": "EfficientAttention"})
    model = PSMNet(16)
    image = torch.zeros(1, 3, 256, 256)
    with pytest.raises(ValueError, match=r"one size, got \[1, 3, 256, 256\] and \[1, 3, 256, 272\]"):
        model(image, torch.zeros(1, 3, 256, 272))
    with pytest.raises(ValueError, match=r"that 16 divides, 256 and more, got 256 x 250; pad the pair"):
        model(image[..., :250], image[..., :250])


def test_it_is_built_by_name_without_segmentation() -> None:
    program = """
import sys
from visionattn.registry import MODELS
model = MODELS.build(dict(type="visionattn.PSMNet", max_disparity=16, attention=dict(spp="EfficientAttention")))
print(type(model).__name__, sorted(name for name in sys.modules if name.split(".")[0] == "mmseg"))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[-2] == "PSMNet []"
