"""Multiply-accumulates: equal to hand formulas and to torch's counter where nothing is fused."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from math import ceil, log2
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import roi_align

from visionattn import build_attention, create_backbone, list_attention
from visionattn.analysis.macs import count_macs, published_form
from visionattn.attention.base import ContextMixer
from visionattn.attention.build import attention_class
from visionattn.ops.concatenation_convolution import assembled
from visionattn.ops.cost_volume import group_correlation_volume
from visionattn.ops.disparity_regression import upsampled_soft_argmax
from visionattn.ops.efficient_attention import efficient_attention
from visionattn.ops.feature_attention import favor_attention, linear_attention
from visionattn.ops.folded_mixing import Options, Weights
from visionattn.ops.kernels import dispatch, folded_attention_eager, window_attention_eager
from visionattn.ops.kernels.assembled_convolution import assembled_convolution_op
from visionattn.ops.kernels.efficient_attention import efficient_attention_op
from visionattn.ops.kernels.feature_attention import feature_attention_op
from visionattn.ops.kernels.folded_attention import folded_attention_op
from visionattn.ops.kernels.group_correlation import group_correlation_op
from visionattn.ops.kernels.upsampled_soft_argmax import upsampled_soft_argmax_op
from visionattn.ops.kernels.window_attention import window_attention_op
from visionattn.ops.kernels.window_case import WindowCase
from visionattn.ops.roi_align import roi_align_pyramid

B, H, W, C = 2, 18, 15, 32
N, INNER = H * W, C // 2
WINDOWS = ceil(H / 7) * ceil(W / 7)

MECHANISMS = [name for name in list_attention() if attention_class(name).__module__.startswith("visionattn.")]
# Of one image with the default options; a new mechanism brings its formula (docs/adding_a_mechanism.md).
BY_HAND = {
    "EfficientAttention": 4 * N * C * C + 2 * N * C * C,
    "ScaledEfficientAttention": 4 * N * C * C + 2 * N * C * C,
    "SoftmaxAttention": 4 * N * C * C + 2 * N * N * C,
    "NonLocal": 4 * N * C * INNER + 2 * N * N * INNER,
    "NonLocalGaussian": 2 * N * C * INNER + N * N * (C + C),  # the values are padded to the width of the keys
    "NonLocalDotProduct": 4 * N * C * INNER + 2 * N * INNER * INNER,
    "NonLocalConcatenation": 4 * N * C * INNER + 2 * N * INNER + N * N * INNER,
    "WindowAttention": 4 * N * C * C + WINDOWS * 49 * 49 * 2 * C,
    "WindowAttentionV2": 4 * N * C * C + WINDOWS * 49 * 49 * 2 * C,
    "LinearAttention": 4 * N * C * C + 2 * N * C * C // 8 + N * C,
    "DoubleAttention": N * C * 3 * (C // 4) + 2 * N * (C // 4) ** 2 + N * (C // 4) * C,
    # 8 heads of width 4 with int(4 log 4) = 5 features
    "Performer": 4 * N * C * C + 2 * N * C * 5 + 2 * N * 8 * 5 * 4 + N * 8 * 5,
    "PerformerReLU": 4 * N * C * C + 2 * N * C * 5 + 2 * N * 8 * 5 * 4 + N * 8 * 5,
    "AFTSimple": 4 * N * C * C,
    "AFTFull": 4 * N * C * C + N * N * 2 * C,
    "AFTLocal": 4 * N * C * C,
    "AFTConv": N * C * (C + 4 + C) + 11 * 11 * N * (C + 4) + N * C * C,
    "OptimisedAttention": 3 * N * C * C + 2 * N * N * C,
    "EfficientProjectionAttention": 2 * N * C * C + 2 * N * N * C,
    "SuperAttention": 2 * N * C * C + 3 * N * N * C,
    "Linformer": 4 * N * C * C + 4 * 256 * N * C,
    "AxialAttention": 4 * N * C * C + 2 * N * H * C,
    "CrissCrossAttention": 4 * N * C * C + 2 * N * (H + W) * C,
    # blocks of W queries see 3 W - 2 keys, and a column; blocks of W, and the last 4 of each
    "StridedSparseAttention": 4 * N * C * C + 2 * N * (3 * W - 2 + H) * C,
    "FixedSparseAttention": 4 * N * C * C + 2 * N * (W + 4 * H) * C,
    # tiles of 7 x 7 queries see 13 x 13 keys
    "LocalAttention": 4 * N * C * C + WINDOWS * 49 * 169 * 2 * C,
    "NeighborhoodAttention": 4 * N * C * C + WINDOWS * 49 * 169 * 2 * C,
    "LinformerPool": 4 * N * C * C + 2 * N * 8 * 8 * C,
    # tiles of 7 x 7 queries see 13 x 13 keys; 8 heads make 8 sums of keys and of values, and look at them
    "LongShortAttention": 4 * N * C * C + WINDOWS * 49 * 169 * 2 * C + N * C * 8 * 8 + 4 * N * 8 * C,
    # 4 of 8 heads see 3 x 3 windows of 7 x 7
    "LocalGlobalLinearAttention": 4 * N * C * C + WINDOWS * 49 * 441 * C + N * C * C // 8,
    # rows: what is in them, their summaries' values, and looking at these
    "Combiner": 4 * N * C * C + 2 * N * W * C + 2 * N * C + 2 * N * H * C,
    # crossing lines; above and below: mean queries and keys, shares and values of columns, looking at those of a row
    "CombinerAxial": 4 * N * C * C + 2 * N * (H + W) * C + 2 * (4 * N * H * C + 2 * N * W * C),
    "LinformerFree": 4 * N * C * C + 2 * N * C * C // 8,
    # 4 heads, keys of 16, values of C / 4: q, k and v; the content's lambda; those of positions; their application
    "LambdaLayer": N * C * (64 + 16 + C // 4) + N * 16 * (C // 4) * (1 + 23 * 23) + N * 16 * C,
    "LambdaLayerGlobal": N * C * (64 + 16 + C // 4) + N * 16 * (C // 4) * (1 + N) + N * 16 * C,
    "GMLP": N * C * 4 * C + N * N * 2 * C + N * 2 * C * C,
    # to half the rows and columns (9 of 18, 8 of 15) and back, for keys and values
    "FourierAttention": 4 * N * C * C + 2 * N * 72 * C + 2 * C * (9 * N + 9 * 8 * (W + 9 + 8)),
    "ChannelAttention": 2 * C * 256 * 16 + C * C * 16 + N * C * C,
    # values, gates, one head of width 64 over values of 2 C, what it saw
    "Mega": N * C * (2 * C + 64 + 4 * C) + N * N * (64 + 2 * C) + 2 * N * C * C,
    "MegaLaplace": N * C * (2 * C + 64 + 4 * C) + N * N * (64 + 2 * C) + 2 * N * C * C,
    # what positions give, and 7 steps, of 4 networks with so many gates
    "RTransformer": 4 * N * C * C + 2 * N * N * C + 4 * 8 * N * C * 3 * C,
    "RTransformerLSTM": 4 * N * C * C + 2 * N * N * C + 4 * 8 * N * C * 4 * C,
    "RTransformerRNN": 4 * N * C * C + 2 * N * N * C + 4 * 8 * N * C * C,
    # 4 rounds: 3 directions of the hash; 5 chunks of 64 see 128
    "LSHAttention": 3 * N * C * C + 4 * N * 3 * C + 4 * 5 * 64 * 128 * 2 * C,
    # 4 rounds: queries and keys on a line; 5 clusters of 64
    "SMYRF": 4 * N * C * C + 4 * 2 * N * C + 4 * 5 * 64 * 64 * 2 * C,
    "StackedAttention": 2 * (N * C * C + C * C + 2 * N * C) + C * C,
}
# Of what does not depend on the image; Swin V2: the network that makes its bias from 13 x 13 offsets, for 8 heads.
ONCE = {
    "WindowAttentionV2": 13 * 13 * (2 * 512 + 512 * 8),
    "AFTFull": N * N * 128,  # the bias of every pair, of two factors
    "Mega": 2 * 16 * C * (H + W),  # kernels of 16 exponentials, past and future, along both axes
    "MegaLaplace": 2 * 16 * C * (H + W),
}
# L log2 L for each line of L numbers, of B images and once; torch's counter does not see them. Mega: lines padded to
# twice their length, there and back, along both axes; and its kernels.
AVERAGES = sum((2 * B * 2 * N * C + 2 * extent * C) * log2(2 * extent) for extent in (H, W))
FOURIER = {"Mega": AVERAGES, "MegaLaplace": AVERAGES}


def ours(run: Callable[[], object]) -> int:
    with published_form():
        counted = count_macs(run)
    assert not counted.uncounted
    return counted.total


def by_torch(run: Callable[[], object]) -> int:
    """torch's own counter, with attention as two products."""
    with published_form(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


def test_every_mechanism_has_a_formula_here() -> None:
    assert sorted(BY_HAND) == MECHANISMS


@pytest.mark.parametrize("name", MECHANISMS)
def test_mechanism(name: str) -> None:
    torch.manual_seed(0)
    mixer = build_attention(name, C, grid=(H, W)).eval()
    x = torch.randn(B, H, W, C)
    counted = ours(lambda: mixer(x))
    mixer.eval()  # what it kept from the first forward is made again
    transforms = FOURIER.get(name, 0)
    rounding = 10 if transforms else 0
    assert counted == pytest.approx(by_torch(lambda: mixer(x)) + transforms, rel=0, abs=rounding)
    assert counted == pytest.approx(B * BY_HAND[name] + ONCE.get(name, 0) + transforms, rel=0, abs=rounding)


@pytest.mark.parametrize("name", [n for n in MECHANISMS if issubclass(attention_class(n), ContextMixer)])
def test_another_map_of_the_same_grid_costs_what_the_map_itself_does(name: str) -> None:
    torch.manual_seed(0)
    mixer = build_attention(name, C, grid=(H, W)).eval()
    x, context = torch.randn(2, B, H, W, C)
    counted = ours(lambda: mixer(x, context))
    assert counted == by_torch(lambda: mixer(x, context)) == B * BY_HAND[name] + ONCE.get(name, 0)


@pytest.mark.parametrize("heads", [1, 4])
def test_the_folded_form_counts_what_it_multiplies(heads: int) -> None:
    """4 N C D, the sums of exponentials as one product, and the small matrices (ops/folded_chunks.py)."""
    key_dim, value_dim, tokens = 16, 24, 80_000
    attention = {"type": "EfficientAttention", "num_heads": heads, "key_dim": key_dim, "value_dim": value_dim}
    mixer = build_attention(attention, C).eval()
    x = torch.randn(1, tokens, C)
    assert ours(lambda: mixer(x)) == tokens * (2 * C * (key_dim + value_dim) + 2 * key_dim * value_dim // heads)
    small = 2 * C * key_dim * value_dim // heads
    assert count_macs(lambda: mixer(x)).total == 4 * tokens * C * key_dim + tokens * heads * key_dim + small


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return torch.baddbmm(a.new_zeros(3, 5, 4), a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        return None, None


A, V = torch.randn(5, 7), torch.randn(7)
X, Y = torch.randn(3, 5, 7), torch.randn(3, 7, 4)
Q, K, VALUES = torch.randn(2, 6, 9, 8), torch.randn(2, 6, 11, 8), torch.randn(2, 6, 11, 5)
IMAGE = torch.randn(2, 8, 9, 10)
OPERATIONS: dict[str, tuple[Callable[[], object], int]] = {
    "mm": (lambda: A @ A.T, 5 * 7 * 5),
    "mm out": (lambda: torch.mm(A, A.T, out=torch.empty(5, 5)), 5 * 7 * 5),
    "addmm in place": (lambda: torch.zeros(5, 5).addmm_(A, A.T), 5 * 7 * 5),
    "matrix times vector": (lambda: A @ V, 5 * 7),
    "dot": (lambda: V @ V, 7),
    "addmv": (lambda: torch.addmv(torch.zeros(5), A, V), 5 * 7),
    "bmm": (lambda: X @ Y, 3 * 5 * 7 * 4),
    "baddbmm in place": (lambda: torch.zeros(3, 5, 4).baddbmm_(X, Y), 3 * 5 * 7 * 4),
    "addbmm": (lambda: torch.addbmm(torch.zeros(5, 4), X, Y), 3 * 5 * 7 * 4),
    "inside an autograd Function": (lambda: Product.apply(X, Y), 3 * 5 * 7 * 4),
    "broadcast matmul": (lambda: X[:, None] @ Y[None], 3 * 3 * 5 * 7 * 4),
    "einsum": (lambda: torch.einsum("bnc,bcm->bnm", X, Y), 3 * 5 * 7 * 4),
    "einsum of three": (lambda: torch.einsum("bnc,bcm,mk->bnk", X, Y, torch.ones(4, 2)), 3 * 5 * 7 * 4 + 3 * 5 * 4 * 2),
    "fft": (lambda: torch.fft.rfft(torch.randn(3, 8)), 3 * 8 * 3),
    "fft back, along an axis": (lambda: torch.fft.irfft(torch.randn(5, 4) + 0j, n=8, dim=0), 8 * 4 * 3),
    "fft of a plane of complex numbers": (lambda: torch.fft.fft2(torch.randn(8, 4) + 0j), 2 * 8 * 4 * (3 + 2)),
    "linear": (lambda: F.linear(X, torch.randn(4, 7), torch.randn(4)), 3 * 5 * 7 * 4),
    "conv1d": (lambda: F.conv1d(X, torch.randn(6, 5, 3)), 3 * 5 * 5 * 3 * 6),
    "conv2d": (lambda: F.conv2d(IMAGE, torch.randn(6, 8, 3, 3), stride=2, padding=1), 2 * 5 * 5 * 6 * 8 * 9),
    "grouped": (lambda: F.conv2d(IMAGE, torch.randn(8, 2, 3, 3), groups=4), 2 * 7 * 8 * 8 * 2 * 9),
    "depth-wise": (lambda: F.conv2d(IMAGE, torch.randn(8, 1, 3, 3), groups=8, dilation=2), 2 * 5 * 6 * 8 * 9),
    "transposed": (lambda: F.conv_transpose2d(IMAGE, torch.randn(8, 3, 2, 2), stride=2), 2 * 9 * 10 * 8 * 3 * 4),
    "conv3d": (lambda: F.conv3d(IMAGE[None], torch.randn(4, 2, 1, 3, 3)), 8 * 7 * 8 * 4 * 2 * 9),
    "fused attention": (lambda: F.scaled_dot_product_attention(Q, K, VALUES), 2 * 6 * 9 * 11 * (8 + 5)),
    "masked attention": (
        lambda: F.scaled_dot_product_attention(Q, K, VALUES, attn_mask=torch.ones(9, 11, dtype=torch.bool)),
        2 * 6 * 9 * 11 * (8 + 5),
    ),
    "grouped-query attention": (
        lambda: F.scaled_dot_product_attention(Q, K[:, :2], VALUES[:, :2], enable_gqa=True),
        2 * 6 * 9 * 11 * (8 + 5),
    ),
    "no multiplication": (lambda: F.interpolate(IMAGE.softmax(1), scale_factor=2, mode="bilinear"), 0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name: str) -> None:
    run, macs = OPERATIONS[name]
    assert ours(run) == macs


def test_pytorchs_own_transformer_layer_is_seen_through() -> None:
    """In eval mode it is one opaque operation, unless its fast path is off."""
    layer = nn.TransformerEncoderLayer(16, 4, dim_feedforward=32, batch_first=True).eval()
    x = torch.randn(2, 10, 16)
    assert ours(lambda: layer(x)) == 2 * (4 * 10 * 16 * 16 + 2 * 10 * 10 * 16 + 2 * 10 * 16 * 32)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_networks_of_timm(name: str) -> None:
    backbone = create_backbone({"type": "TimmBackbone", "model_name": name}).eval()
    x = torch.randn(2, 3, 64, 96)
    assert ours(lambda: backbone(x)) == by_torch(lambda: backbone(x)) > 0


MAPS = torch.randn(2, 2, 12, 3, 7)
QKV = torch.randn(2, 5, 9, 3, 2, 4)
PARTS = (torch.randn(2, 5, 6, 3, 7), *(torch.randn(2, 6, 3, columns) for columns in (9, 4, 7, 7)))
FEATURES = torch.randn(3, 8)
SEEN = torch.ones(2, 11, dtype=torch.bool)
TOKENS, LAYERS = torch.randn(2, 9, 5), (torch.randn(22, 5), torch.randn(22), torch.randn(5, 6), None)
WINDOWS_OF = (None, None, None, None, (4, 3), (1, 2), True)
# The op, its plain form, and what both multiply: 6 heads, 9 queries, 11 keys, widths of 8 and 5; 3 features.
OPS: dict[str, tuple[Callable[[], object], Callable[[], object], int]] = {
    "efficient_attention": (
        lambda: efficient_attention_op(Q, K, VALUES, SEEN, 1.0, True),
        lambda: efficient_attention(Q, K, VALUES, SEEN),
        12 * (9 + 11) * 8 * 5,
    ),
    "folded_attention": (
        lambda: folded_attention_op(TOKENS, None, None, *LAYERS, 2, 8, 1.0, True),
        lambda: folded_attention_eager.forward(Options(2, 8, 1.0, True), TOKENS, None, None, Weights(*LAYERS)),
        2 * (4 * 9 * 5 * 8 + 2 * 5 * 6 * 8 // 2),
    ),
    "feature_attention": (
        lambda: feature_attention_op(Q, K, VALUES, None, SEEN),
        lambda: linear_attention(Q, K, VALUES, SEEN),
        12 * 8 * ((9 + 11) * 5 + 9),
    ),
    "feature_attention, projected": (
        lambda: feature_attention_op(Q, K, VALUES, FEATURES, None),
        lambda: favor_attention(Q, K, VALUES, FEATURES),
        12 * 3 * ((9 + 11) * (8 + 5) + 9),
    ),
    "window_attention": (
        lambda: window_attention_op(QKV, *WINDOWS_OF, False),
        lambda: window_attention_eager.forward(WindowCase(QKV, *WINDOWS_OF, False)),
        2 * 2 * (2 * 3) * 12 * 12 * 2 * 4,
    ),
    "window_attention, shifted before padding": (
        lambda: window_attention_op(QKV, *WINDOWS_OF, True),
        lambda: window_attention_eager.forward(WindowCase(QKV, *WINDOWS_OF, True)),
        2 * 2 * (2 * 3) * 12 * 12 * 2 * 4,
    ),
    "group_correlation": (
        lambda: group_correlation_op(*MAPS, 5, 3),
        lambda: group_correlation_volume(*MAPS, 5, 3),
        0,
    ),
    "assembled_convolution": (lambda: assembled_convolution_op(*PARTS), lambda: assembled(*PARTS), 0),
    "upsampled_soft_argmax": (
        lambda: upsampled_soft_argmax_op(PARTS[1], 24, 12, 36, False),
        lambda: upsampled_soft_argmax(PARTS[1], 24, 12, 36),
        2 * 24 * 12 * 36,
    ),
}


@pytest.mark.parametrize("name", OPS)
def test_an_op_counts_what_its_plain_form_does(name: str) -> None:
    op, plain, macs = OPS[name]
    assert ours(op) == ours(plain) == macs


def test_every_op_is_counted() -> None:
    folder = Path(dispatch.__file__).parent
    named = (re.findall(r'custom_op\("visionattn::(\w+)"', path.read_text()) for path in folder.glob("*.py"))
    forward = {name for names in named for name in names if not name.endswith("_backward")}
    assert forward == {name.partition(",")[0] for name in OPS} != set()


def test_roi_align_is_interpolation_in_both_forms() -> None:
    box = torch.tensor([[0, 1.0, 1.5, 6.0, 7.0]])
    whole = torch.zeros(1, dtype=torch.int64)
    assert ours(lambda: roi_align(IMAGE, box, 3, 0.5, 2)) == 0
    assert ours(lambda: roi_align_pyramid([IMAGE], box[:, 1:], whole, whole, [0.5], (3, 3), 2)) == 0


@torch.library.custom_op("visionattn_tests::product", mutates_args=())
def product(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def test_what_has_no_formula_is_named() -> None:
    counted = count_macs(lambda: (product(A, A.T.clone()), torch.linalg.svd(A), A.softmax(0) * 2))
    assert counted.total == 0
    assert dict(counted.uncounted) == {"visionattn_tests.product": 1, "aten._linalg_svd": 1}


def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISIONATTN_KERNELS", raising=False)
    with published_form():
        assert os.environ["VISIONATTN_KERNELS"] == "off"
    assert "VISIONATTN_KERNELS" not in os.environ
    monkeypatch.setenv("VISIONATTN_KERNELS", "on")
    with published_form():
        pass
    assert os.environ["VISIONATTN_KERNELS"] == "on"
