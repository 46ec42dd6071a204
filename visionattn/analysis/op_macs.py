"""Multiply-accumulates of one call of an operation, from the shapes of its arguments.

Matrix products, convolutions, attention and Fourier transforms are counted, as everywhere in the field; sums, norms,
activations, softmaxes, interpolations and biases are not. A convolution's padding is multiplied like any other pixel.

RoIAlign is interpolation: torchvision's op counts nothing, and so do the weighted rows of `embedding_bag` that are
`visionattn.ops.roi_align`.

The ops of this package count what their plain forms do. Of group-wise correlations, which are products number by
number, and of the sums of an assembled convolution that is nothing: its parts are convolutions of their own.

Fused attention is as much work as the two products that it fuses. Counters that lack its CPU kernel see nothing of it:
torch's until pytorch/pytorch#195460 was answered, and those of fvcore and mmengine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import ceil, log2, prod
from typing import Any

import torch
from torch import Tensor

Formula = Callable[..., int]
"""Takes the operation's output and then its arguments."""

aten = torch.ops.aten
_FORMULAS: dict[str, Formula] = {}

_MULTIPLIES = re.compile(
    r"attention|conv|fft|lstm|gru|rnn|cdist|trilinear|linalg_(?!vector_norm)|mm(_|$)|matmul|einsum|stft"
)


def register_macs(*operations: Any) -> Callable[[Formula], Formula]:
    """Decorates the formula of these operations: `torch.ops.namespace.name`, or that name as "namespace.name"."""

    def register(formula: Formula) -> Formula:
        _FORMULAS.update(dict.fromkeys(map(str, operations), formula))
        return formula

    return register


def formula_of(operation: Any) -> Formula | None:
    """The formula of an operation such as torch.ops.aten.mm; None if it has none."""
    return _FORMULAS.get(str(operation))


def may_multiply(operation: Any) -> bool:
    """Whether an operation without a formula could hide multiplications: a custom one, or one whose name says so."""
    namespace, _, name = str(operation).rpartition(".")
    return namespace not in ("aten", "prim", "prims") or _MULTIPLIES.search(name) is not None


@register_macs(aten.mm)
def _mm(out: Tensor, a: Tensor, b: Tensor, *args: Any, **options: Any) -> int:
    return a.shape[0] * a.shape[1] * b.shape[1]


@register_macs(aten.addmm, aten.addmm_)
def _addmm(out: Tensor, added: Tensor, a: Tensor, b: Tensor, *args: Any, **options: Any) -> int:
    return _mm(out, a, b)


@register_macs(aten.bmm)
def _bmm(out: Tensor, a: Tensor, b: Tensor, *args: Any, **options: Any) -> int:
    return a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2]


@register_macs(aten.baddbmm, aten.baddbmm_, aten.addbmm, aten.addbmm_)
def _baddbmm(out: Tensor, added: Tensor, a: Tensor, b: Tensor, *args: Any, **options: Any) -> int:
    return _bmm(out, a, b)


@register_macs(aten.mv, aten.dot, aten.vdot)
def _mv(out: Tensor, a: Tensor, b: Tensor, *args: Any, **options: Any) -> int:
    return a.numel()


@register_macs(aten.addmv, aten.addmv_)
def _addmv(out: Tensor, added: Tensor, a: Tensor, b: Tensor, *args: Any, **options: Any) -> int:
    return a.numel()


@register_macs(aten.linear)
def _linear(out: Tensor, x: Tensor, weight: Tensor, *args: Any, **options: Any) -> int:
    return x.numel() * (weight.shape[0] if weight.dim() == 2 else 1)


@register_macs(aten.convolution, aten._convolution, aten.convolution_overrideable)
def _convolution(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    *args: Any,
    **options: Any,
) -> int:
    # weight is [out, in / groups, *kernel], transposed [in, out / groups, *kernel]: every pixel of the output (of the
    # input, transposed) meets the whole weight once.
    pixels = x if transposed else out
    return pixels.shape[0] * prod(pixels.shape[2:]) * weight.numel()


@register_macs(
    aten.scaled_dot_product_attention,
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
    aten._scaled_dot_product_fused_attention_overrideable,
)
def _attention(out: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> int:
    """Q K^T and the product with V; a causal mask saves nothing, as under the math backend."""
    return prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


@register_macs(aten._fft_r2c, aten._fft_c2r, aten._fft_c2c)
def _fourier(out: Tensor, x: Tensor, dims: Sequence[int], *args: Any, **options: Any) -> int:
    """n log2 n for n real numbers: half of radix 2's n / 2 log2 n products of complex numbers, 4 each; twice for those.

    torch's counter sees none of it.
    """
    real = next((t for t in (x, out) if not t.is_complex()), None)
    whole = out if real is None else real
    steps = sum(log2(whole.shape[dim]) for dim in dims)
    return ceil(whole.numel() * steps * (2 if real is None else 1))


@register_macs("visionattn.efficient_attention")
def _efficient_attention(out: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> int:
    """K^T V, and Q times that."""
    return (q[..., 0].numel() + k[..., 0].numel()) * q.shape[-1] * v.shape[-1]


@register_macs("visionattn.folded_attention")
def _folded_attention(
    out: Any,
    x: Tensor,
    residual: Tensor | None,
    scale: Tensor | None,
    qkv: Tensor,
    qkv_bias: Tensor | None,
    proj: Tensor,
    proj_bias: Tensor | None,
    heads: int,
    key_dim: int,
    *args: Any,
    **options: Any,
) -> int:
    """Of every token queries, keys, their sum and the mix; then the small products with the values' and proj's rows."""
    return 4 * x.numel() * key_dim + 2 * len(x) * proj.numel() * key_dim // heads


@register_macs("visionattn.feature_attention")
def _feature_attention(
    out: Any, q: Tensor, k: Tensor, v: Tensor, projection: Tensor | None, *args: Any, **options: Any
) -> int:
    """The projections of Q and K where there is one, phi(K)^T V, and phi(Q) times that and times the sum of phi(K)."""
    queries, keys = q[..., 0].numel(), k[..., 0].numel()
    features = q.shape[-1] if projection is None else projection.shape[0]
    projected = 0 if projection is None else (queries + keys) * projection.numel()
    return projected + features * ((queries + keys) * v.shape[-1] + queries)


@register_macs("visionattn.window_attention")
def _window_attention(
    out: Any,
    qkv: Tensor,
    table: Tensor | None,
    padding: Tensor | None,
    scale: Tensor | None,
    mask: Tensor | None,
    window: Sequence[int],
    *args: Any,
    **options: Any,
) -> int:
    """Q K^T and the product with V in every window, whose padding is multiplied too."""
    batch, *grid, _, heads, width = qkv.shape
    windows = prod(ceil(extent / size) for extent, size in zip(grid, window, strict=True))
    return batch * heads * windows * prod(window) ** 2 * 2 * width


@register_macs("visionattn.upsampled_soft_argmax")
def _expectation(out: tuple[Tensor, Tensor], logits: Tensor, planes: int, *args: Any, **options: Any) -> int:
    """The mean of the planes at every pixel."""
    return out[0].numel() * planes


@register_macs("visionattn.group_correlation", "visionattn.assembled_convolution", "torchvision.roi_align")
def _nothing(out: Tensor, *args: Any, **options: Any) -> int:
    return 0
