"""Golden vectors of sparse patterns: every file of the family, by the function or mechanism that has its pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from golden import Golden, assert_golden, golden
from torch import Tensor

from visionattn.attention.base import QKVAttention
from visionattn.attention.criss_cross import CrissCrossAttention
from visionattn.attention.neighborhood import LocalAttention
from visionattn.attention.window import WindowAttention
from visionattn.ops.block_attention import Blocks, block_attention
from visionattn.ops.neighborhood import causal_ngram_attention
from visionattn.ops.sparse_patterns import block_pairs, column_pairs, fixed_pairs, strided_pairs, summary_pairs

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def on_map(mixer: QKVAttention, grid: tuple[int, int]) -> Attend:
    return lambda q, k, v: mixer.attend(q, k, v, grid, grid)


def ngram(case: Golden, numbers: Sequence[int]) -> Attend:
    return lambda q, k, v: causal_ngram_attention(q, k, v, numbers[0])


def local(case: Golden, numbers: Sequence[int]) -> Attend:
    height, width, radius = numbers
    return on_map(LocalAttention(8, num_heads=4, radius=radius, norm=2), (height, width))


def dilated(case: Golden, numbers: Sequence[int]) -> Attend:
    """All positions of the query's interleaved grid."""
    dilation, height, width = numbers
    return on_map(LocalAttention(8, num_heads=4, radius=max(height, width), dilation=dilation), (height, width))


def windows(case: Golden, numbers: Sequence[int]) -> Attend:
    height, width, window, shift = numbers
    mixer = WindowAttention(
        32, num_heads=4, window=(window, window), shift=(shift, shift), relative_position_bias=False
    )
    return on_map(mixer, (height, width))


def axial(case: Golden, numbers: Sequence[int]) -> Attend:
    height, width = numbers
    return on_map(CrissCrossAttention(8, num_heads=4), (height, width))


def strided(case: Golden, numbers: Sequence[int]) -> Attend:
    return lambda q, k, v: block_attention(q, k, v, strided_pairs(q.shape[2], case.kwargs["length"], causal=True))


def strided_local(case: Golden, numbers: Sequence[int]) -> Attend:
    return lambda q, k, v: causal_ngram_attention(q, k, v, case.kwargs["length"])


def strided_column(case: Golden, numbers: Sequence[int]) -> Attend:
    return lambda q, k, v: block_attention(
        q, k, v, [column_pairs(q.shape[2], case.kwargs["length"], causal=True, own=True)]
    )


def fixed(case: Golden, numbers: Sequence[int]) -> Attend:
    return lambda q, k, v: block_attention(
        q, k, v, fixed_pairs(q.shape[2], case.kwargs["length"], case.kwargs["c"], causal=True)
    )


def fixed_local(case: Golden, numbers: Sequence[int]) -> Attend:
    return lambda q, k, v: block_attention(q, k, v, [block_pairs(q.shape[2], case.kwargs["length"], causal=True)])


def fixed_summary(case: Golden, numbers: Sequence[int]) -> Attend:
    """The second head: the last c of every block up to the query, and itself where the file's mask says so.

    Without itself a query before the first of them sees nothing, and answers 0.
    """
    length, count = case.kwargs["length"], case.kwargs["c"]
    sees_itself = case.group("buffer")["mask"].diagonal()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        own = block_pairs(q.shape[2], length, causal=True)
        itself = (own.queries[:, :, None] == own.keys[:, None]) & sees_itself[own.queries][:, :, None]
        last = own.keys[:, None] % length >= length - count
        inside = Blocks(own.queries, own.keys, own.seen & (last | itself), own.slots)
        return block_attention(q, k, v, [inside, summary_pairs(q.shape[2], length, count, causal=True)])

    return attend


ADAPTERS = {
    r"strided_causal_merged": strided,
    r"strided_local_causal": strided_local,
    r"strided_col_causal": strided_column,
    r"fixed_causal_merged": fixed,
    r"fixed_local_causal": fixed_local,
    r"fixed_(?:col|column|summary)_causal": fixed_summary,
    r"axial_(\d+)x(\d+)": axial,
    r"ngram(\d+)_causal": ngram,
    r"xformers_local2d_(\d+)x(\d+)_d(\d+)": local,
    r"xformers_dilated(\d+)_(\d+)x(\d+)": dilated,
    r"xformers_swin_(\d+)x(\d+)_w(\d+)_s(\d+)": windows,
}


def adapter(pattern: str) -> tuple[Callable[[Golden, Sequence[int]], Attend], list[int]] | None:
    for expression, make in ADAPTERS.items():
        found = re.fullmatch(expression, pattern)
        if found:
            return make, [int(number) for number in found.groups()]
    return None


@pytest.mark.parametrize("case", golden("attention", "derived_sparse"))
def test_golden(case: Golden) -> None:
    found = adapter(case.kwargs["pattern"])
    assert found is not None, f"no adapter for the pattern {case.kwargs['pattern']}"
    make, numbers = found
    inputs = case.leaves("in")
    out = make(case, numbers)(inputs["q"], inputs["k"], inputs["v"])
    assert_golden(case, out, inputs, {}, tol=1e-10)
