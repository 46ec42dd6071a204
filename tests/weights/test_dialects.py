"""Weights go to torchvision's, mmseg's and microsoft's models and come back bit for bit; the models then agree."""

from __future__ import annotations

import itertools
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from weights_peers import assert_same_state, image, mmseg_swin, parameters, timm_swin, torchvision_swin

from visionattn.weights.conversion import convert_weights
from visionattn.weights.dialects.names import NameTable

TINY: dict[str, Any] = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
HEADLESS = ("norm.*", "head.*")


# The models run in float64: in float32, two orders of the same sums may differ by more than 1e-5 in a deep one.


@torch.no_grad()
def assert_same_output(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    found, expected = (deepcopy(model).double()(x.double()) for model in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def assert_same_maps(timm: nn.Module, mmseg: nn.Module, x: Tensor) -> None:
    """timm's maps, normalised as mmseg does, are mmseg's."""
    timm, mmseg, x = deepcopy(timm).double(), deepcopy(mmseg).double(), x.double()
    maps = timm.forward_intermediates(x, intermediates_only=True)
    found = mmseg(x)
    assert len(found) == len(maps)
    for index, (one, other) in enumerate(zip(maps, found, strict=True)):
        norm = getattr(mmseg, f"norm{index}")
        expected = F.layer_norm(one.permute(0, 2, 3, 1), norm.normalized_shape, norm.weight, norm.bias)
        torch.testing.assert_close(other, expected.permute(0, 3, 1, 2), rtol=1e-6, atol=1e-6)


def check_torchvision(window: int, side: int, *, v2: bool, **size: Any) -> None:
    source = timm_swin(window, (side, side), v2=v2, **size)
    target = torchvision_swin(window, v2=v2, **size)
    converted = convert_weights(source.state_dict(), "torchvision", window=(window, window) if v2 else None)
    buffers = {name: value for name, value in target.state_dict().items() if name not in parameters(converted)}
    target.load_state_dict(converted, strict=True)
    assert_same_output(source, target, image(side, side))
    assert_same_state(convert_weights(target.state_dict(), "timm"), source.state_dict())
    # What was computed for torchvision is what torchvision computes.
    for name, value in buffers.items():
        torch.testing.assert_close(converted[name], value, rtol=0, atol=1e-6)
    assert len(buffers) == len(converted) - len(parameters(converted))


@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
def test_torchvision_is_equal_and_the_way_back_exact(v2: bool) -> None:
    check_torchvision(8 if v2 else 7, 64 if v2 else 56, v2=v2)


@pytest.mark.slow
@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
def test_torchvisions_swin_tiny_is_equal(v2: bool) -> None:
    check_torchvision(8 if v2 else 7, 256 if v2 else 224, v2=v2, **TINY)


def check_mmseg(window: int, extent: tuple[int, int], **size: Any) -> None:
    source, target = timm_swin(window, extent, **size), mmseg_swin(window, **size)
    converted = convert_weights(source.state_dict(), "mmseg", allow=HEADLESS)
    norms = {name: value for name, value in target.state_dict().items() if name.startswith("norm")}
    target.load_state_dict({**converted, **norms}, strict=True)
    assert_same_maps(source, target, image(*extent))
    back = convert_weights(target.state_dict(), "timm")
    headless = {n: value for n, value in source.state_dict().items() if not n.startswith(("norm.", "head."))}
    assert_same_state(back, {**headless, **norms})


def test_mmseg_is_equal_and_the_way_back_exact() -> None:
    check_mmseg(8, (256, 320))


@pytest.mark.slow
def test_mmsegs_swin_tiny_is_equal() -> None:
    check_mmseg(7, (448, 448), **TINY)


@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
def test_timm_reads_what_goes_to_microsoft_as_microsofts(v2: bool) -> None:
    from timm.models import swin_transformer, swin_transformer_v2

    source = timm_swin(4, (64, 64), v2=v2, depths=(1, 2, 1), num_heads=(1, 2, 4))
    microsoft = convert_weights(source.state_dict(), "microsoft")
    assert "layers.0.downsample.reduction.weight" in microsoft
    assert "head.weight" in microsoft
    reader: Any = swin_transformer_v2 if v2 else swin_transformer
    assert_same_state(reader.checkpoint_filter_fn(dict(microsoft), source), source.state_dict())
    assert_same_state(convert_weights(microsoft, "timm"), source.state_dict())


def _sources() -> dict[str, dict[str, dict[str, Tensor]]]:
    """By family and dialect, the same weights."""
    v1, v2, mmseg = timm_swin(7, (56, 56)), timm_swin(8, (64, 64), v2=True), mmseg_swin(7)
    headless = {name: value for name, value in v1.state_dict().items() if not name.startswith(("norm.", "head."))}
    norms = {name: value for name, value in mmseg.state_dict().items() if name.startswith("norm")}
    return {
        "Swin": {to: convert_weights(headless, to) for to in ("timm", "microsoft", "torchvision", "mmseg")},
        "Swin with output norms": {to: convert_weights({**headless, **norms}, to) for to in ("timm", "mmseg")},
        "Swin V2": {
            to: convert_weights(v2.state_dict(), to, window=(8, 8)) for to in ("timm", "microsoft", "torchvision")
        },
    }


def test_every_direction_is_exact() -> None:
    directions = 0
    for by_dialect in _sources().values():
        for (_, source), (to, expected) in itertools.product(by_dialect.items(), repeat=2):
            assert_same_state(convert_weights(source, to, window=_window(to, source)), expected)
            directions += 1
    assert directions == 4 * 4 + 2 * 2 + 3 * 3


def _window(to: str, state: dict[str, Tensor]) -> tuple[int, int] | None:
    needed = to == "torchvision" and any(name.endswith("logit_scale") for name in state)
    return (8, 8) if needed else None


def test_microsofts_buffers_are_not_taken_but_for_the_coordinates() -> None:
    """A Swin V2 that was trained for another window first: its table of coordinates tells, and torchvision uses it."""
    source = timm_swin(8, (64, 64), v2=True, pretrained_window_sizes=(6, 6))
    microsoft = convert_weights(source.state_dict(), "microsoft")
    for name, buffer in source.named_buffers():
        if not name.endswith("k_bias"):
            microsoft[name] = buffer
    assert any(name.endswith("relative_coords_table") for name in microsoft)
    microsoft["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 64, 64)
    assert_same_state(convert_weights(microsoft, "timm"), source.state_dict())
    target = torchvision_swin(8, v2=True)
    target.load_state_dict(convert_weights(microsoft, "torchvision"), strict=True)
    assert_same_output(source, target, image(64, 64))


def test_a_table_of_names_is_read_in_both_directions() -> None:
    table = NameTable(
        ("features.{2i+1}.{j}.*", "layers.{i}.blocks.{j}.*"), ("features.{2i+2}.*", "layers.{i+1}.down.*")
    )
    pairs = {
        "features.1.0.norm.bias": "layers.0.blocks.0.norm.bias",
        "features.7.12.x": "layers.3.blocks.12.x",
        "features.2.weight": "layers.1.down.weight",
    }
    for theirs, canonical in pairs.items():
        assert table.to_canonical(theirs) == canonical
        assert table.from_canonical(canonical) == theirs
    for name in ("features.0.weight", "features.1.0", "features.01.0.x", "xfeatures.1.0.x"):
        assert table.to_canonical(name) is None, name
    assert table.from_canonical("layers.0.down.weight") is None
