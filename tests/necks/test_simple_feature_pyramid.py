"""SimpleFeaturePyramid against its layers written as loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from naive import Parameters, assert_equals_naive, randomised, tensor
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.necks import SimpleFeaturePyramid
from visionattn.registry import MODELS


class Joined(nn.Module):
    """The maps of a neck in one row of numbers."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([out.flatten() for out in self.neck([x])])


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (1, 1)])
def test_equals_loops(size: tuple[int, int]) -> None:
    neck = SimpleFeaturePyramid(8, 6, extra_levels="LastLevelMaxPool")
    assert_equals_naive(randomised(Joined(neck)), naive_pyramid, {"x": tensor(2, 8, *size)})


def naive_pyramid(parameters: Parameters, x: Tensor) -> Tensor:
    p = {name.removeprefix("neck.levels."): value for name, value in parameters.items()}
    finest = doubled(F.gelu(layer_norm(doubled(x, p, "0.0"), p, "0.1")), p, "0.3")
    resized = [(finest, "0", 4), (doubled(x, p, "1.0"), "1", 1), (x, "2", 0), (halved(x), "3", 1)]
    outputs = []
    for level, number, first in resized:
        one = layer_norm(convolved(level, p[f"{number}.{first}.0.weight"]), p, f"{number}.{first}.1")
        outputs.append(layer_norm(convolved(one, p[f"{number}.{first + 1}.0.weight"]), p, f"{number}.{first + 1}.1"))
    outputs.append(outputs[-1][:, :, ::2, ::2])
    return torch.cat([out.flatten() for out in outputs])


def doubled(x: Tensor, p: Parameters, name: str) -> Tensor:
    """Every pixel becomes 2 x 2, each with its own matrix."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]  # [in, out, 2, 2]
    rows = []
    for row in range(2 * x.shape[2]):
        pixels = [
            x[:, :, row // 2, column // 2] @ weight[:, :, row % 2, column % 2] + bias
            for column in range(2 * x.shape[3])
        ]
        rows.append(torch.stack(pixels, dim=-1))
    return torch.stack(rows, dim=-2)


def halved(x: Tensor) -> Tensor:
    """The largest of each 2 x 2, of what there is at the border."""
    height, width = -(-x.shape[2] // 2), -(-x.shape[3] // 2)
    rows = [
        torch.stack(
            [x[:, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].flatten(2).max(2).values for c in range(width)], dim=-1
        )
        for r in range(height)
    ]
    return torch.stack(rows, dim=-2)


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Correlation with zeros around."""
    reach = weight.shape[-1] // 2
    padded = F.pad(x, [reach] * 4)
    out = torch.zeros(len(x), len(weight), *x.shape[2:], dtype=x.dtype)
    for row in range(weight.shape[2]):
        for column in range(weight.shape[3]):
            shifted = padded[:, :, row : row + x.shape[2], column : column + x.shape[3]]
            out = out + torch.einsum("bchw,oc->bohw", shifted, weight[:, :, row, column])
    return out


def layer_norm(x: Tensor, p: Parameters, name: str) -> Tensor:
    """Over the channels of each pixel."""
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    return scaled * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]


def test_the_pyramid_of_a_plain_backbone() -> None:
    neck = SimpleFeaturePyramid(8, 6, extra_levels="LastLevelMaxPool")
    outputs = neck([torch.randn(1, 8, 6, 10)])
    assert isinstance(outputs, list)
    assert [tuple(x.shape[1:]) for x in outputs] == [(6, 24, 40), (6, 12, 20), (6, 6, 10), (6, 3, 5), (6, 2, 3)]
    assert neck.out_channels == (6,) * 5
    assert neck.strides == (4, 8, 16, 32, 64)
    assert SimpleFeaturePyramid(8, 6, in_stride=8).strides == (2, 4, 8, 16)
    assert SimpleFeaturePyramid(8, 6, in_stride=None).strides is None


def test_p6_and_p7_look_at_the_backbones_map() -> None:
    neck = SimpleFeaturePyramid(8, 6, extra_levels="LastLevelP6P7")
    assert neck.extra_blocks.p6.in_channels == 8
    assert len(neck([torch.randn(1, 8, 6, 10)])) == len(neck.out_channels) == 6


def test_without_norms_the_convolutions_have_biases() -> None:
    neck = SimpleFeaturePyramid(8, 6, norm_cfg=None)
    kinds = {type(m) for m in neck.modules()}
    assert not kinds & {nn.LayerNorm, nn.BatchNorm2d}
    assert all(m.bias is not None for m in neck.modules() if isinstance(m, nn.Conv2d))
    assert [type(layer) for layer in neck.levels[0]][:3] == [nn.ConvTranspose2d, nn.GELU, nn.ConvTranspose2d]


def test_attention_on_a_level() -> None:
    neck = SimpleFeaturePyramid(8, 6, attention={3: "EfficientAttention"})
    x = torch.randn(1, 8, 6, 10)
    before = neck([x])
    nn.init.ones_(neck.attention["3"].gamma)
    changed = [not torch.allclose(a, b) for a, b in zip(neck([x]), before, strict=True)]
    assert changed == [False, False, False, True]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"in_channels": 6}, ValueError, "in_channels=6 must be divisible by 4"),
        ({"in_channels": [8]}, TypeError, r"in_channels=\[8\] is no whole number"),
        ({"in_stride": 14}, ValueError, "in_stride=14 is no multiple of 4; None"),
        ({"attention": {4: "NonLocal"}}, ValueError, "the neck returns the levels 0 to 3"),
    ],
)
def test_errors_say_what_came_and_what_will_do(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MODELS.get("visionattn.SimpleFeaturePyramid")(**{"in_channels": 8, **options})


def test_other_maps_are_named() -> None:
    neck = SimpleFeaturePyramid(8, 6)
    x = torch.randn(1, 8, 6, 10)
    with pytest.raises(ValueError, match=r"expects one map of 8 channels, got maps of \(8, 8\); a VisionTransformer"):
        neck([x, x])
    with pytest.raises(ValueError, match=r"got maps of \(4,\)"):
        neck([x[:, :4]])
