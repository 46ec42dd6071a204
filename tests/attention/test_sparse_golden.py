"""Golden vectors of sparse patterns: every file of the family, by the function or mechanism that has its pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from golden import Golden, assert_golden, golden
from torch import Tensor

from visionattn.attention.base import QKVAttention
from visionattn.attention.neighborhood import LocalAttention
from visionattn.attention.window import WindowAttention
from visionattn.ops.neighborhood import causal_ngram_attention

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


ADAPTERS = {
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


@pytest.mark.parametrize(
    "case", golden("attention", "derived_sparse", lambda row: adapter(row["kwargs"]["pattern"]) is not None)
)
def test_golden(case: Golden) -> None:
    found = adapter(case.kwargs["pattern"])
    assert found is not None, f"no adapter for the pattern {case.kwargs['pattern']}"
    make, numbers = found
    inputs = case.leaves("in")
    out = make(case, numbers)(inputs["q"], inputs["k"], inputs["v"])
    assert_golden(case, out, inputs, {}, tol=1e-10)
