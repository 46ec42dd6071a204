"""Which dimension of a map holds the channels."""

from __future__ import annotations

import pytest
import torch

from visionattn.backbones.layout import Layout, map_layout

IMAGE = torch.zeros(1, 3, 64, 64)
VIDEO = torch.zeros(1, 3, 8, 64, 64)


def layout(shape: tuple[int, ...], other: tuple[int, ...] | None, output_format: str | None = None) -> Layout:
    resized = [] if other is None else [torch.zeros(other)]
    image = VIDEO if len(shape) == 5 else IMAGE
    return map_layout([torch.zeros(shape)], resized, [image], output_format=output_format)


@pytest.mark.parametrize(
    ("shape", "other", "expected"),
    [
        ((1, 16, 16, 16), (1, 16, 8, 8), Layout(16, False)),
        ((1, 16, 16, 16), (1, 8, 8, 16), Layout(16, True)),
        ((1, 6, 5, 7), (1, 6, 3, 9), Layout(6, False)),
        ((1, 5, 7, 6), (1, 3, 9, 6), Layout(6, True)),
        ((1, 8, 4, 8, 8), (1, 8, 2, 5, 4), Layout(8, False)),
        ((1, 4, 8, 8, 8), (1, 2, 5, 4, 8), Layout(8, True)),
        ((1, 8, 5, 8, 8), (1, 8, 5, 4, 4), Layout(8, False)),  # a fixed number of disparities
        ((1, 32, 1, 1), (1, 32, 1, 1), Layout(32, False)),  # pooled to one position
    ],
)
def test_another_input_size_tells(shape: tuple[int, ...], other: tuple[int, ...], expected: Layout) -> None:
    assert layout(shape, other) == expected
    assert layout(shape, other, "NHWC" if not expected.channels_last else "NCHW") == expected


@pytest.mark.parametrize(
    ("shape", "output_format", "expected"),
    [
        ((1, 96, 16, 16), "NHWC", Layout(96, False)),
        ((1, 16, 16, 96), None, Layout(96, True)),
        ((1, 16, 16, 16), None, Layout(16, False)),
        ((1, 16, 16, 16), "NHWC", Layout(16, True)),
        ((1, 16, 12, 96), "NHWC", Layout(96, True)),
        ((1, 96, 16, 12), "NCHW", Layout(96, False)),
    ],
)
def test_at_one_size_the_odd_extent_or_the_models_word_tells(
    shape: tuple[int, ...], output_format: str | None, expected: Layout
) -> None:
    assert layout(shape, None, output_format) == expected


def test_a_caller_who_knows_is_believed() -> None:
    assert map_layout([torch.zeros(1, 16, 16, 96)], [], [IMAGE], channels_last=False) == Layout(16, False)


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(ValueError, match=r"returns \[1, 6, 5, 7\] and, for another input, \[1, 3, 5, 9\]: neither"):
        layout((1, 6, 5, 7), (1, 3, 5, 9))
    with pytest.raises(ValueError, match=r"returns no feature map: \[4, 6, 5, 7\]"):
        layout((4, 6, 5, 7), None)
    with pytest.raises(ValueError, match="returns no feature map"):  # windows: one at this size, four at another
        layout((1, 8, 8, 16), (4, 8, 8, 16))
    with pytest.raises(ValueError, match=r"returns no feature map: \[1, 10\]"):
        layout((1, 10), None)
    with pytest.raises(ValueError, match="returns no feature map"):
        map_layout([torch.zeros(1, 6, 5, 7, dtype=torch.long)], [], [IMAGE])
    with pytest.raises(ValueError, match=r"different channels in one forward: \(1, 4, 8, 8\), \(1, 6, 8, 8\)"):
        map_layout([torch.zeros(1, 4, 8, 8), torch.zeros(1, 6, 8, 8)], [], [IMAGE])
