"""Padding before a network and cropping behind it."""

from __future__ import annotations

import pytest
import torch

from visionattn.stereo.padding import Padder


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("side", ["top_right", "centre"])
@pytest.mark.parametrize("fill", ["edge", "zeros"])
@pytest.mark.parametrize(
    ("size", "divisor", "smallest", "padded"),
    [
        ((37, 53), 16, 1, (48, 64)),
        ((48, 64), 16, 1, (48, 64)),
        ((37, 53), 16, 256, (256, 256)),
        ((100, 272), 16, 64, (112, 272)),
        ((5, 3), 32, 33, (64, 64)),
        ((7, 9), 1, 1, (7, 9)),
    ],
)
def test_sides_fit_and_the_image_comes_back(batch, side, fill, size, divisor, smallest, padded) -> None:
    padder = Padder(divisor, smallest, side, fill)
    left, right = torch.rand(2, batch, 3, *size)
    seen = padder.pad(left, right)
    for view, before in zip(seen, (left, right), strict=True):
        assert view.shape == (batch, 3, *padded)
        assert torch.equal(padder.crop(view, *size), before)
        assert torch.equal(padder.crop(view[:, 0], *size), before[:, 0])
        if fill == "zeros":
            assert view.sum() == pytest.approx(before.sum().item(), rel=1e-5)
        else:
            assert set(view.unique().tolist()) == set(before.unique().tolist())


def test_where_the_padding_lies() -> None:
    image = torch.arange(6.0).view(1, 1, 2, 3).expand(1, 3, 2, 3)
    top_right, _ = Padder(4, side="top_right").pad(image, image)
    assert top_right[0, 0].tolist() == [[0, 1, 2, 2], [0, 1, 2, 2], [0, 1, 2, 2], [3, 4, 5, 5]]
    centre, _ = Padder(5, side="centre", fill="zeros").pad(image, image)
    rows = [[0] * 5, [0, 0, 1, 2, 0], [0, 3, 4, 5, 0], [0] * 5, [0] * 5]  # the odd row and column go behind
    assert centre[0, 0].tolist() == rows


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"padding: side='left' must be 'top_right' or 'centre'"):
        Padder(side="left")
    with pytest.raises(ValueError, match=r"padding: fill='mirror' must be 'edge' or 'zeros'"):
        Padder(fill="mirror")
    with pytest.raises(ValueError, match="divisor=0 and smallest=1 must be 1 or more"):
        Padder(0)
    with pytest.raises(ValueError, match=r"of one size, got \[1, 3, 4, 5\] and \[1, 3, 4, 6\]"):
        Padder(4).pad(torch.zeros(1, 3, 4, 5), torch.zeros(1, 3, 4, 6))
