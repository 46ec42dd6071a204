"""Registers, spills and shared memory of every kernel, compiled for sm_90 without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hopper import LARGEST_SHARED, Resources, compiled
from torch import Tensor

from visionattn.ops.folded_mixing import Options, Weights
from visionattn.ops.kernels.dispatch import FOLDED_PRODUCTS, LARGE_SHARED, LITTLE_SHARED, TABLE
from visionattn.ops.kernels.memory_order import empty_volume
from visionattn.ops.kernels.window_case import WindowCase

pytestmark = pytest.mark.slow

HALF, FULL = torch.bfloat16, torch.float32
WIDTHS = ((32, 32), (64, 64), (128, 256))  # channels per head of q and k, and of v


def judge(found: dict[str, Resources], kernels: int, *, spilled: int = 0) -> None:
    """Raises unless so many kernels stay within the device's limits and spill at most so many bytes per thread."""
    assert len(found) == kernels
    limits = Resources(registers=255, spilled=spilled, shared=LARGEST_SHARED[90])
    wrong = {name: took for name, took in found.items() if any(a > b for a, b in zip(took, limits, strict=True))}
    assert not wrong


def tensors(dtype: torch.dtype, width: int, values: int) -> tuple[Tensor, Tensor, Tensor]:
    """q (and k), v and a mask of 4096 tokens, two heads of two images; only their kinds matter."""
    q, v = (torch.empty(2, 4096, 2, channels, dtype=dtype).transpose(1, 2) for channels in (width, values))
    return q, v, torch.ones(2, 4096, dtype=torch.bool)


@pytest.mark.parametrize("dtype", [HALF, FULL])
@pytest.mark.parametrize(("width", "values"), WIDTHS)
def test_efficient_attention(dtype: torch.dtype, width: int, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from visionattn.ops.kernels import efficient_attention_triton as kernels
    from visionattn.ops.kernels import efficient_attention_triton_backward as backward

    q, v, mask = tensors(dtype, width, values)
    context, log_total = torch.empty(2, 2, width, values), torch.empty(2, 2, width)

    def launch() -> None:
        kernels.forward(q, q, v, mask, 1.0, True)
        backward.backward(v, q, q, v, mask, context, log_total, 1.0, True)

    judge(compiled(launch, monkeypatch), kernels=6)


@pytest.mark.parametrize(
    ("dtype", "channels", "key_dim", "heads"),
    [
        (HALF, 64, 64, 1),
        (HALF, 64, 64, 8),
        (HALF, 128, 64, 1),
        (HALF, 128, 128, 8),
        (FULL, 64, 32, 1),
        (FULL, 32, 64, 8),
    ],
)
def test_folded_attention(
    dtype: torch.dtype, channels: int, key_dim: int, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from visionattn.ops.kernels import folded_attention_triton as kernels
    from visionattn.ops.kernels import folded_attention_triton_backward as backward

    rows, options = 2 * key_dim + channels, Options(heads, key_dim, 1.0, True)
    shapes = (rows, channels), (rows,), (channels, channels), (channels,)
    weights = Weights(*(torch.empty(shape, dtype=dtype) for shape in shapes))
    saved = torch.zeros(2, key_dim, channels), torch.zeros(2, key_dim)

    def launch(options: Options, weights: Weights, maps: torch.dtype) -> None:
        x = torch.empty(2, 4096, channels, dtype=maps)
        kernels.forward(options, x, x if not options.adds_x else None, None, weights)
        backward.backward(options, x, x, None, weights, *saved)

    judge(compiled(partial(launch, options, weights, dtype), monkeypatch), kernels=5)
    if key_dim == 64:  # as under autocast, and without biases
        bare = weights._replace(qkv_bias=None, proj_bias=None)
        judge(compiled(partial(launch, options._replace(adds_x=False), bare, FULL), monkeypatch), kernels=5)


@pytest.mark.parametrize("dtype", [HALF, FULL, torch.float16])
@pytest.mark.parametrize(("width", "features"), [(64, 0), (128, 0), (32, 110), (64, 266)])
def test_feature_attention(dtype: torch.dtype, width: int, features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from visionattn.ops.kernels import feature_attention_triton as kernels
    from visionattn.ops.kernels import feature_attention_triton_backward as backward

    q, v, mask = tensors(dtype, width, width)
    projection = torch.empty(features, width) if features else None

    def launch() -> None:
        saved = kernels.forward(q, q, v, projection, mask)
        backward.backward(v, q, q, v, projection, mask, *saved)

    # Linear attention's backward holds a context of 128 x 128: it spills, as docs/kernels.md says.
    judge(compiled(launch, monkeypatch), kernels=5, spilled=0 if features or width < 128 else 1024)


@pytest.mark.parametrize("dtype", [HALF, FULL])
@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize(("window", "cosine"), [((7, 7), False), ((8, 8), True), ((16, 16), False)])
def test_window_attention(
    dtype: torch.dtype, width: int, window: tuple[int, int], cosine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from visionattn.ops.kernels import window_attention_triton as kernels
    from visionattn.ops.kernels import window_attention_triton_backward as backward

    heads, (height, breadth) = 3, window
    qkv = torch.empty(2, 70, 75, 3, heads, width, dtype=dtype)
    table, padding = torch.empty((2 * height - 1) * (2 * breadth - 1), heads), torch.empty(2, heads, width)
    mask = torch.ones(2, 70 * 75, dtype=torch.bool)
    given = qkv, table, padding, *((torch.empty(heads), mask) if cosine else (None, None))
    case = WindowCase(*given, window, (height // 2, breadth // 2), False, False)

    def launch() -> None:
        _, log_total = kernels.forward(case)
        backward.backward(qkv[:, :, :, 0], case, log_total)

    small = height * breadth <= 64
    # Some spill, as docs/kernels.md says, the backward in float32 most.
    spilled = 96 if dtype == HALF else 384 if small else 1280
    judge(compiled(launch, monkeypatch), kernels=2 if dtype == HALF and small else 3, spilled=spilled)


VOLUME = 2, 48, 64, 128
"""Images, planes, height and width of PSMNet's and GwcNet's costs for images of 256 x 512."""


@pytest.mark.parametrize("dtype", [HALF, FULL])
@pytest.mark.parametrize(("channels", "groups"), [(320, 40), (64, 8), (64, 1)])
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_group_correlation(
    dtype: torch.dtype, channels: int, groups: int, order: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from visionattn.ops.kernels import group_correlation_triton as kernels

    batch, planes, height, width = VOLUME
    features = torch.empty(batch, channels, height, width, dtype=dtype, memory_format=order)
    grad = empty_volume(features, batch, groups, planes, height, width)

    def launch() -> None:
        kernels.forward(features, features, planes, groups)
        kernels.backward(grad, features, features)

    judge(compiled(launch, monkeypatch), kernels=2)


@pytest.mark.parametrize("dtype", [HALF, FULL])
@pytest.mark.parametrize("align_corners", [False, True])
def test_upsampled_soft_argmax(dtype: torch.dtype, align_corners: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from visionattn.ops.kernels import upsampled_soft_argmax_triton as kernels

    logits = torch.empty(VOLUME, dtype=dtype)
    planes, height, width = (4 * extent for extent in VOLUME[1:])
    answer = torch.empty(VOLUME[0], height, width)

    def launch() -> None:
        kernels.forward(logits, planes, height, width, align_corners)
        kernels.backward(answer, logits, answer, answer, planes, align_corners)

    judge(compiled(launch, monkeypatch), kernels=2)


@pytest.mark.parametrize("dtype", [HALF, FULL])
@pytest.mark.parametrize("outputs", [32, 33])
def test_assembled_convolution(dtype: torch.dtype, outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from visionattn.ops.kernels import assembled_convolution_triton as kernels

    batch, planes, height, width = VOLUME
    grad = empty_volume(torch.empty((), dtype=dtype), batch, outputs, planes, height, width)
    of_left = grad.new_empty(batch, height, width, 5, outputs).permute(0, 3, 4, 1, 2)
    of_right, beyond, plane = (
        grad.new_empty(batch, height, columns, outputs).permute(0, 3, 1, 2) for columns in (width + 2, planes, width)
    )

    def launch() -> None:
        kernels.forward(of_left, of_right, beyond, plane, plane)
        kernels.backward(grad, of_left, of_right, beyond)

    judge(compiled(launch, monkeypatch), kernels=2)


@pytest.mark.parametrize("name", ["efficient", "feature", "random features", "folded, half", "folded", "windows"])
@pytest.mark.parametrize(("capability", "little"), [(80, False), (86, True), (120, True)])
def test_the_widest_case_that_is_served_fits(
    name: str, capability: int, little: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of `TABLE`; where there is little shared memory those of `LITTLE_SHARED` and of rows that it leaves."""
    pytest.importorskip("triton")
    assert (LARGEST_SHARED[capability] < LARGE_SHARED) == little
    found = compiled(widest_launches(little)[name], monkeypatch, capability=capability)
    assert found
    assert not {kernel: took for kernel, took in found.items() if took.shared > LARGEST_SHARED[capability]}


def widest_launches(little: bool) -> dict[str, Callable[[], object]]:
    from visionattn.ops.kernels import (
        efficient_attention_triton,
        efficient_attention_triton_backward,
        feature_attention_triton,
        feature_attention_triton_backward,
        folded_attention_triton,
        folded_attention_triton_backward,
        window_attention_triton,
        window_attention_triton_backward,
    )

    table = TABLE | LITTLE_SHARED if little else TABLE

    def efficient() -> None:
        q, v, mask = tensors(FULL, table["efficient_attention"].key_width, table["efficient_attention"].value_width)
        saved = torch.empty(2, 2, q.shape[-1], v.shape[-1]), torch.empty(2, 2, q.shape[-1])
        efficient_attention_triton.forward(q, q, v, mask, 1.0, True)
        efficient_attention_triton_backward.backward(v, q, q, v, mask, *saved, 1.0, True)

    def feature(features: int) -> None:
        width = table["feature_attention"].key_width
        q, v, mask = tensors(HALF, width, width)
        projection = torch.empty(features, q.shape[-1]) if features else None
        saved = feature_attention_triton.forward(q, q, v, projection, mask)
        feature_attention_triton_backward.backward(v, q, q, v, projection, mask, *saved)

    def folded(dtype: torch.dtype, channels: int, key_dim: int) -> None:
        assert channels * key_dim == FOLDED_PRODUCTS["float32" if dtype == FULL else "half"][little]
        rows, options = 2 * key_dim + channels, Options(4, key_dim, 1.0, True)
        shapes = (rows, channels), (rows,), (channels, channels), (channels,)
        weights = Weights(*(torch.empty(shape, dtype=dtype) for shape in shapes))
        x = torch.empty(2, 4096, channels, dtype=FULL)
        folded_attention_triton.forward(options, x, None, None, weights)
        saved = torch.zeros(2, key_dim, channels), torch.zeros(2, key_dim)
        folded_attention_triton_backward.backward(options, x, x, None, weights, *saved)

    def windows() -> None:
        width = table["window_attention"].key_width
        qkv = torch.empty(2, 70, 75, 3, 3, width, dtype=FULL)
        given = qkv, torch.empty(31 * 31, 3), torch.empty(2, 3, width), torch.empty(3), torch.ones(2, 70 * 75).bool()
        case = WindowCase(*given, (16, 16), (8, 8), False, False)
        _, log_total = window_attention_triton.forward(case)
        window_attention_triton_backward.backward(qkv[:, :, :, 0], case, log_total)

    return {
        "efficient": efficient,
        "feature": partial(feature, 0),
        "random features": partial(feature, 266),
        "folded, half": partial(folded, HALF, 128, 64 if little else 128),
        "folded": partial(folded, FULL, 32 if little else 64, 32),
        "windows": windows,
    }
