"""ConvAttention against the mechanism and a mean over each stride, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.naive import randomised, tensor
from visionattn.blocks.conv_attention import ConvAttention


def means(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """The mean of every stride x stride patch [B, C, H, W], of what there is at the border."""
    rows = [
        [x[..., r : r + stride[0], c : c + stride[1]].mean((-2, -1)) for c in range(0, x.shape[3], stride[1])]
        for r in range(0, x.shape[2], stride[0])
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 3)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1), (3, 2)])
def test_attention_then_the_mean_of_each_stride(stride: tuple[int, int], size: tuple[int, int]) -> None:
    module = randomised(ConvAttention(4, {"type": "EfficientAttention", "num_heads": 2}, stride=stride))
    x = tensor(2, 4, *size).requires_grad_()
    ours = module(x)
    expected = means(module.attn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), stride)
    convolution = nn.Conv2d(4, 4, 3, stride, 1).double()
    assert ours.shape == convolution(x).shape, "as large as a padded convolution leaves it"
    assert (ours - expected).abs().max() < 1e-12
    gradients = [torch.autograd.grad(y.pow(2).sum(), x)[0] for y in (ours, expected)]
    assert (gradients[0] - gradients[1]).abs().max() < 1e-12


def test_position_bound_mechanisms_take_the_grid() -> None:
    assert ConvAttention(8, "SoftmaxAttention", (5, 7)).attn.grid == (5, 7)


def test_errors() -> None:
    with pytest.raises(ValueError, match="num_heads=3 does not divide dim=4"):
        ConvAttention(4, {"type": "SoftmaxAttention", "num_heads": 3})
