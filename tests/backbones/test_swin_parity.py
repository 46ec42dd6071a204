"""Our Swins against timm's, torchvision's and mmseg's with the same weights, and microsoft's recorded blocks.

All maps and all gradients, those of the parameters carried over by the same conversion as the weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from torch import Tensor, nn

from visionattn.attention.window_v2 import WindowAttentionV2
from visionattn.backbones.build import create_backbone
from visionattn.backbones.named import named_backbones
from visionattn.blocks.transformer import TransformerBlock
from visionattn.weights.conversion import convert_weights

Run = Callable[[Tensor], list[Tensor]]
SMALL = {"embed_dim": 16, "depths": (1, 2, 3, 2), "num_heads": (1, 2, 4, 8), "drop_path_rate": 0.0}


# The peers: a model and how it answers with the maps of its stages, NCHW.


def timm_swin(size: Mapping[str, Any], window: int, image: tuple[int, int], v2: bool = False) -> tuple[nn.Module, Run]:
    kinds = pytest.importorskip("timm.models")
    kind = kinds.SwinTransformerV2 if v2 else kinds.SwinTransformer
    model = kind(img_size=image, window_size=window, num_classes=2, **size)
    return model, lambda x: model.forward_intermediates(x, intermediates_only=True)


def torchvision_swin(size: Mapping[str, Any], window: int, v2: bool = False) -> tuple[nn.Module, Run]:
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in size.items()}
    options["stochastic_depth_prob"] = options.pop("drop_path_rate")
    kinds = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2} if v2 else {}
    model = swin.SwinTransformer([4, 4], window_size=[window, window], num_classes=2, **options, **kinds)

    def run(x: Tensor) -> list[Tensor]:
        maps = []
        for number, part in enumerate(model.features):
            x = part(x)
            if number % 2:
                maps.append(x.permute(0, 3, 1, 2))
        return maps

    return model, run


def mmseg_swin(size: Mapping[str, Any], window: int) -> tuple[nn.Module, Run]:
    swin = pytest.importorskip("mmseg.models.backbones.swin")
    options = {"embed_dims" if name == "embed_dim" else name: value for name, value in size.items()}
    model = swin.SwinTransformer(window_size=window, **options)
    return model, model


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters())


def canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under our names, without what stands behind the stages of a classifier."""
    found = convert_weights(tensors, "timm")
    return {name: t for name, t in found.items() if name.partition(".")[0] not in ("norm", "head")}


def filled(model: nn.Module) -> nn.Module:
    """Random weights, in which nothing is zero that may be anything: V2's norms start there, and most biases."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.dim() == 1:
                parameter.copy_(noise * 0.1 + float("norm" in name and name.endswith("weight")))
            elif name.endswith(("bias_table", "logit_scale")):
                parameter.add_(noise / 4)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
    model.eval()  # mmseg's returns nothing
    return model


def assert_same(ours: nn.Module, peer: nn.Module, run: Run, image: tuple[int, int], tol: float) -> None:
    """All maps, and the gradients of the image and of every parameter, within tol of the largest number of each.

    In float32, of the largest gradient of the block that a parameter is of: the gradient of a bias table is a sum over
    all windows that nearly cancels, and float32 alone brings it 3e-5 off what float64 gives, here as in the peers.
    """
    dtype = next(peer.parameters()).dtype
    report = ours.to(dtype).eval().load_state_dict(canonical(parameters_of(peer)), strict=False)
    assert not report.unexpected_keys
    assert all(name.startswith("norm") for name in report.missing_keys)

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 3, *image, generator=generator, dtype=dtype).requires_grad_()
    maps, expected = ours(x), list(run(x))
    assert len(maps) == len(expected) == 4
    compared = {f"map {stage}": pair for stage, pair in enumerate(zip(maps, expected, strict=True))}
    weights = [torch.randn(m.shape, generator=generator, dtype=dtype) for m in expected]
    results = []
    for model, outs in ((ours, maps), (peer, expected)):
        loss = sum((m * w).mean() for m, w in zip(outs, weights, strict=True))
        leaves = parameters_of(model)
        grads = torch.autograd.grad(loss, [x, *leaves.values()], allow_unused=True)
        named = {name: g for name, g in zip(leaves, grads[1:], strict=True) if g is not None}
        results.append({"x": grads[0], **(named if model is ours else canonical(named))})
    assert results[0].keys() == results[1].keys()
    compared |= {f"gradient of {name}": (grad, results[1][name]) for name, grad in results[0].items()}
    assert all(a.shape == b.shape for a, b in compared.values())
    largest: dict[str, float] = {}
    for name, (_, theirs) in compared.items():
        place = scale_of(name, dtype)
        largest[place] = max(largest.get(place, 0.0), theirs.abs().max().item())
    errors = {name: (a - b).abs().max().item() / largest[scale_of(name, dtype)] for name, (a, b) in compared.items()}
    worst = {name: error for name, error in errors.items() if not error <= tol}
    assert not worst, f"{worst} exceed {tol}"


def scale_of(name: str, dtype: torch.dtype) -> str:
    """What shares one scale with `name`."""
    block = re.search(r"layers\.\d+\.blocks\.\d+", name)
    return block[0] if block and dtype is torch.float32 else name


def ours_of(size: Mapping[str, Any], v2: bool = False, **options: Any) -> nn.Module:
    return create_backbone({"type": "SwinTransformerV2" if v2 else "SwinTransformer", **size, **options})


def share_coordinates(ours: nn.Module, peer: nn.Module) -> nn.Module:
    """The peer with our log-spaced coordinates, which each computes in float32 by other steps."""
    theirs = [t for name, t in peer.named_buffers() if name.endswith("relative_coords_table")]
    for table, mixer in zip(theirs, (m for m in ours.modules() if isinstance(m, WindowAttentionV2)), strict=True):
        coordinates = mixer.log_spaced_offsets.reshape(table.shape).to(table.dtype)
        torch.testing.assert_close(table, coordinates, rtol=0, atol=1e-6)
        table.copy_(coordinates)
    return peer


# Small models in float64.


@pytest.mark.parametrize(
    ("image", "window", "last"), [((224, 224), 7, (7, 7)), ((112, 224), 7, (4, 7)), ((96, 96), 3, (3, 3))]
)
def test_small_equals_timm(image: tuple[int, int], window: int, last: tuple[int, int]) -> None:
    peer, run = timm_swin(SMALL, window, image)
    ours = ours_of(SMALL, window=[(window, window)] * 3 + [last], out_norms=False)
    assert_same(ours, filled(peer.double()), run, image, 1e-10)


@pytest.mark.parametrize("image", [(224, 224), (100, 76)])
def test_small_equals_torchvision(image: tuple[int, int]) -> None:
    peer, run = torchvision_swin(SMALL, 7)
    ours = ours_of(SMALL, window=(7, 7), out_norms=False)
    assert_same(ours, filled(peer.double()), run, image, 1e-10)


@pytest.mark.parametrize(
    ("image", "shift_covered_axes"),
    [((256, 320), False), ((259, 323), False), ((224, 224), True), ((61, 190), True), ((3, 5), True)],
)
def test_small_equals_mmseg(image: tuple[int, int], shift_covered_axes: bool) -> None:
    peer, run = mmseg_swin(SMALL, 7)
    ours = ours_of(SMALL, window=(7, 7), shift_covered_axes=shift_covered_axes)
    assert_same(ours, filled(peer.double()), run, image, 1e-10)


def test_mmseg_shifts_where_one_window_covers_an_axis() -> None:
    """Else the option would not be needed, and the test above would not tell."""
    peer, run = mmseg_swin(SMALL, 7)
    with pytest.raises(AssertionError, match="map 3"):
        assert_same(ours_of(SMALL), filled(peer.double()), run, (224, 224), 1e-3)


@pytest.mark.parametrize(("window", "windows"), [(8, (8, 8, 8, 8)), (16, (16, 16, 16, 8))])
def test_small_v2_equals_timm(window: int, windows: tuple[int, ...]) -> None:
    peer, run = timm_swin(SMALL, window, (256, 256), v2=True)
    ours = ours_of(SMALL, v2=True, window=[(length, length) for length in windows], out_norms=False)
    assert_same(ours, share_coordinates(ours, filled(peer.double())), run, (256, 256), 1e-10)


def test_small_v2_with_windows_of_the_pretraining_equals_timm() -> None:
    peer, run = timm_swin({**SMALL, "pretrained_window_sizes": (4, 4, 4, 2)}, 6, (192, 192), v2=True)
    trained = ((4, 4), (4, 4), (4, 4), (2, 2))
    ours = ours_of(SMALL, v2=True, window=(6, 6), pretrained_window=trained, out_norms=False)
    assert_same(ours, share_coordinates(ours, filled(peer.double())), run, (192, 192), 1e-10)


@pytest.mark.parametrize("image", [(256, 256), (100, 76)])
def test_small_v2_equals_torchvision(image: tuple[int, int]) -> None:
    peer, run = torchvision_swin(SMALL, 8, v2=True)
    ours = ours_of(SMALL, v2=True, window=(8, 8), out_norms=False)
    assert_same(ours, share_coordinates(ours, filled(peer.double())), run, image, 1e-10)


# The published sizes in float32.


def published(name: str) -> dict[str, Any]:
    return {**{key: named_backbones()[name][key] for key in SMALL}, "drop_path_rate": 0.0}


V1_NAMES = pytest.mark.parametrize("name", ["swin_tiny_window7", "swin_small_window7", "swin_base_window7"])


@pytest.mark.slow
@V1_NAMES
def test_published_size_equals_timm(name: str) -> None:
    peer, run = timm_swin(published(name), 7, (224, 224))
    assert_same(create_backbone({"type": name, "out_norms": False}), filled(peer), run, (224, 224), 1e-5)


@pytest.mark.slow
@V1_NAMES
def test_published_size_equals_torchvision(name: str) -> None:
    peer, run = torchvision_swin(published(name), 7)
    assert_same(create_backbone({"type": name, "out_norms": False}), filled(peer), run, (224, 224), 1e-5)


@pytest.mark.slow
@V1_NAMES
@pytest.mark.parametrize(
    ("image", "shift_covered_axes"), [((256, 320), False), ((259, 323), False), ((224, 224), True)]
)
def test_published_size_equals_mmseg(name: str, image: tuple[int, int], shift_covered_axes: bool) -> None:
    peer, run = mmseg_swin(published(name), 7)
    ours = create_backbone({"type": name, "shift_covered_axes": shift_covered_axes})
    assert_same(ours, filled(peer), run, image, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("window", [8, 16])
def test_published_v2_equals_timm(window: int) -> None:
    name = f"swinv2_tiny_window{window}"
    peer, run = timm_swin(published(name), window, (256, 256), v2=True)
    ours = create_backbone({"type": name, "out_norms": False})
    assert_same(ours, share_coordinates(ours, filled(peer)), run, (256, 256), 1e-5)


@pytest.mark.slow
def test_published_v2_equals_torchvision() -> None:
    peer, run = torchvision_swin(published("swinv2_tiny_window8"), 8, v2=True)
    ours = create_backbone({"type": "swinv2_tiny_window8", "out_norms": False})
    assert_same(ours, share_coordinates(ours, filled(peer)), run, (256, 256), 1e-5)


# microsoft's blocks; those of V2 stand with its attention.


@pytest.mark.parametrize("case", golden("attention", "swin1_block"))
def test_golden_microsoft_block(case: Golden) -> None:
    dim, grid = case.args
    m, s, heads = case.kwargs.get("window_size", 7), case.kwargs.get("shift_size", 0), case.kwargs["num_heads"]
    assert set(case.kwargs) <= {"window_size", "shift_size", "num_heads"}
    attention = {"type": "WindowAttention", "window": (m, m), "shift": (s, s), "num_heads": heads}
    block = TransformerBlock(dim, {**attention, "mask_padding": False}).double()
    block.load_state_dict(case.group("param"))
    x = case.group("in")["x"].clone().requires_grad_()
    out = block(x.reshape(len(x), *grid, -1)).reshape(case.out.shape)
    assert_golden(case, out, {"x": x}, dict(block.named_parameters()), tol=1e-10)
