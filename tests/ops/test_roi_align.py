"""RoIAlign as a sum of weighted rows, against torchvision's kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from visionattn.ops.roi_align import roi_align_pyramid

SCALES = (1 / 4, 1 / 8)
GRIDS = ((11, 17), (6, 9))  # of images of 44 x 68
BOXES = [
    (3.0, 5.0, 40.5, 30.25), (0.0, 0.0, 68.0, 44.0), (60.0, 40.0, 68.0, 44.0),  # inside, all, the last corner
    (-9.0, -7.0, 5.0, 3.0), (50.0, 30.0, 90.0, 70.0), (-80.0, -80.0, -60.0, -60.0), (500.0, 400.0, 600.0, 500.0),
    (20.0, 20.0, 20.0, 20.0), (30.0, 10.0, 20.0, 5.0), (10.1, 10.2, 10.9, 11.0),  # empty, turned round, below a pixel
]  # fmt: skip


def case(dtype: torch.dtype, channels_last: bool = False) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, *grid, generator=random, dtype=dtype) for grid in GRIDS]
    if channels_last:
        maps = [x.contiguous(memory_format=torch.channels_last) for x in maps]
    drawn = 80 * torch.rand(30, 4, generator=random, dtype=dtype) - 6
    boxes = torch.cat([torch.tensor(BOXES, dtype=dtype), drawn])
    images, levels = torch.randint(0, 2, (2, len(boxes)), generator=random).unbind()
    return [x.requires_grad_() for x in maps], boxes, images, levels


def by_torchvision(
    maps: list[Tensor], boxes: Tensor, images: Tensor, levels: Tensor, size: tuple[int, int], samples: int
) -> Tensor:
    out = maps[0].new_zeros(len(boxes), maps[0].shape[1], *size)
    for level, (x, scale) in enumerate(zip(maps, SCALES, strict=True)):
        mine = levels == level
        rois = torch.cat([images[mine, None].to(boxes.dtype), boxes[mine]], 1)
        out[mine] = roi_align(x, rois, size, scale, samples)
    return out


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize(("size", "samples"), [((7, 7), 2), ((3, 5), 1), ((1, 2), 3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_cells_and_gradients_are_torchvisions(
    size: tuple[int, int], samples: int, dtype: torch.dtype, tol: float, channels_last: bool
) -> None:
    maps, boxes, images, levels = case(dtype, channels_last)
    ours = roi_align_pyramid(maps, boxes, images, levels, SCALES, size, samples)
    theirs = by_torchvision(maps, boxes, images, levels, size, samples)
    torch.testing.assert_close(ours, theirs, rtol=tol, atol=tol)
    assert ours.is_contiguous()
    grad = torch.randn(ours.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    gradients = (torch.autograd.grad(out, maps, grad) for out in (ours, theirs))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=tol, atol=10 * tol)


def test_what_is_not_a_number_reads_nothing() -> None:
    maps, boxes, images, levels = case(torch.float64)
    boxes[0, 1] = torch.nan
    out = roi_align_pyramid(maps, boxes, images, levels, SCALES, (2, 2), 2)
    assert not out[0].any()
    assert out[1].any()
