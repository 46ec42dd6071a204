"""The cases of stereo for the benchmark of the kernels: what PSMNet and GwcNet do with their volumes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.analysis.kernel_bench.case import Case, Family, Form, Function, normal
from visionattn.stereo.shortcuts import VolumeConvolution, correlation_volume, full_disparity

_GROUPS = 40
_SIZES = {  # images, height and width of the features, planes, dtype
    "cuda": ((4, 64, 128, 48, torch.float32), (4, 64, 128, 48, torch.bfloat16)),
    "cpu": ((1, 16, 32, 12, torch.float32), (1, 64, 128, 48, torch.float32)),
}
_UP = 4
"""Features are a quarter of the image."""


def stereo_families() -> dict[str, Family]:
    """By the name that each is asked for by."""
    return {
        "group-correlation": Family(
            "GwcNet's group-wise correlation volume", lambda kind: _cases("group-correlation", kind, 320, _correlation)
        ),
        "first-convolution": Family(
            "PSMNet's first 3-D convolution over the concatenation volume",
            lambda kind: _cases("first-convolution", kind, 32, _first_convolution),
        ),
        "disparity-regression": Family(
            "upsampling, softmax and expectation of the costs",
            lambda kind: _cases("disparity-regression", kind, 0, _regression),
        ),
    }


def _cases(
    family: str, kind: str, channels: int, forms: Callable[[torch.device, torch.dtype, int, int, int], list[Form]]
) -> list[Case]:
    """Two maps of so many channels; the costs of every plane if there are none."""
    cases = []
    for number, (batch, height, width, planes, dtype) in enumerate(_SIZES[kind]):
        shape, count = ((channels, height, width), 2) if channels else ((1, planes, height, width), 1)

        def inputs(
            images: int, generator: torch.Generator, shape: tuple[int, ...] = shape, count: int = count, dtype=dtype
        ) -> tuple[Tensor, ...]:
            return tuple(normal(images, *shape, generator=generator, dtype=dtype) for _ in range(count))

        def made(
            device: torch.device, dtype: torch.dtype = dtype, sizes: tuple[int, int, int] = (planes, height, width)
        ) -> list[Form]:
            return forms(device, dtype, *sizes)

        maps = f"{height}x{width} maps of {channels} channels" if channels else f"{height}x{width} costs"
        size = f"{maps}, {planes} planes"
        cases.append(Case(family, size, batch, dtype, inputs, made, smallest=number == 0))
    return cases


def _correlation(device: torch.device, dtype: torch.dtype, planes: int, height: int, width: int) -> list[Form]:
    ours = Function(lambda left, right: correlation_volume(left, right, planes, _GROUPS))
    published = Function(lambda left, right: _published_correlation(left, right, planes))
    return [Form("ours", ours, own=True), Form("eager", ours), Form("published", published)]


def _first_convolution(device: torch.device, dtype: torch.dtype, planes: int, height: int, width: int) -> list[Form]:
    ours = _OfMaps(32, 32, planes).to(device, dtype)
    return [Form("ours", ours, own=True), Form("eager", ours), Form("published", _Published(ours, planes))]


def _regression(device: torch.device, dtype: torch.dtype, planes: int, height: int, width: int) -> list[Form]:
    size = (_UP * planes, _UP * height, _UP * width)
    ours = Function(lambda costs: full_disparity(costs, *size, align_corners=False))
    return [
        Form("ours", ours, own=True),
        Form("eager", ours),
        Form("published", Function(lambda costs: _published_regression(costs, size))),
    ]


class _OfMaps(VolumeConvolution):
    """With the two maps as its inputs."""

    def __init__(self, channels: int, outputs: int, planes: int) -> None:
        super().__init__(0, channels, outputs, planes)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]  # not in one tuple
        return super().forward((None, left, right))


class _Published(torch.nn.Module):
    """The volume filled by slices, then convolved; with the weights of ours."""

    def __init__(self, ours: VolumeConvolution, planes: int) -> None:
        super().__init__()
        self.weight, self.planes = ours.weight, planes

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        batch, channels, height, width = left.shape
        volume = left.new_zeros(batch, 2 * channels, self.planes, height, width)
        for plane in range(min(self.planes, width)):
            volume[:, :channels, plane, :, plane:] = left[..., plane:]
            volume[:, channels:, plane, :, plane:] = right[..., : width - plane]
        return F.conv3d(volume, self.weight, padding=1)


def _published_correlation(left: Tensor, right: Tensor, planes: int) -> Tensor:
    """As GwcNet's: zeros, and the mean products of a group written into them plane by plane."""
    batch, _, height, width = left.shape
    volume = left.new_zeros(batch, _GROUPS, planes, height, width)
    for plane in range(min(planes, width)):
        products = left[..., plane:] * right[..., : width - plane]
        volume[:, :, plane, :, plane:] = torch.unflatten(products, 1, (_GROUPS, -1)).mean(2)
    return volume


def _published_regression(costs: Tensor, size: tuple[int, int, int]) -> Tensor:
    """As PSMNet's: the whole upsampled cost, its softmax, the sum of its products with the disparities."""
    shares = F.interpolate(costs, size, mode="trilinear", align_corners=False).squeeze(1).softmax(1)
    disparities = torch.arange(size[0], dtype=shares.dtype, device=shares.device)
    return torch.sum(shares * disparities.view(1, -1, 1, 1), 1)
