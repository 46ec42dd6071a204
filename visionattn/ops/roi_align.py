"""RoIAlign (He et al., Mask R-CNN, ICCV 2017) over a pyramid as one sum of weighted rows.

A cell of a region is the mean of its samples, a sample the weighted sum of its four neighbours: every cell is a
weighted sum of pixels. With the channels of a pixel side by side that is a bag of rows of a table, both ways,
while torchvision's kernel for the CPU takes channel by channel. Compared with: torchvision 0.26 and later `roi_align`
with aligned=False.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def roi_align_pyramid(
    maps: Sequence[Tensor],
    boxes: Tensor,
    images: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    size: tuple[int, int],
    samples: int,
) -> Tensor:
    """What lies in each box, cut from the level it belongs to; differentiable in the maps, not in the boxes.

    Args:
        maps: [B, C, H, W] of each level, of one dtype.
        boxes: [N, 4], left, top, right, bottom in pixels of the images.
        images, levels: [N] int64, which image and which map.
        scales: of each level, its pixels per pixel of the images.
        size: height and width of what is cut out, in cells.
        samples: per cell along each axis.
    Returns:
        [N, C, *size], contiguous.
    """
    rows = torch.cat([x.flatten(2).mT for x in maps], 1)  # [B, P, C]
    heights, widths = (torch.tensor([x.shape[axis] for x in maps], device=boxes.device) for axis in (2, 3))
    first = F.pad((heights * widths).cumsum(0), (1, 0))[levels] + images * rows.shape[1]
    scale = torch.tensor(scales, dtype=rows.dtype, device=boxes.device)[levels]
    left, top, right, bottom = (boxes.detach().to(rows.dtype) * scale[:, None]).unbind(1)
    y, by_y = _neighbours(top, bottom, heights[levels], size[0], samples)
    x, by_x = _neighbours(left, right, widths[levels], size[1], samples)
    y = first[:, None, None] + y * widths[levels][:, None, None]
    index = (y[:, :, None, :, None] + x[:, None, :, None, :]).flatten(3)  # [N, *size, 4 * samples^2]
    weights = (by_y[:, :, None, :, None] * by_x[:, None, :, None, :]).flatten(3)
    cells = F.embedding_bag(
        index.flatten(0, 2), rows.flatten(0, 1), per_sample_weights=weights.flatten(0, 2), mode="sum"
    )
    return cells.view(len(boxes), *size, rows.shape[2]).permute(0, 3, 1, 2).contiguous()


def _neighbours(start: Tensor, stop: Tensor, extent: Tensor, cells: int, samples: int) -> tuple[Tensor, Tensor]:
    """Along one axis, the two pixels beside each sample and their shares of the cell, [N, cells, 2 * samples].

    A box is at least one pixel long. Samples within a pixel of the map lie on its edge, those beyond count 0.
    """
    cell = ((stop - start).clamp(min=1.0) / cells)[:, None, None]
    number = torch.arange(cells, dtype=start.dtype, device=start.device)[:, None]
    middle = torch.arange(samples, dtype=start.dtype, device=start.device) + 0.5
    place = start[:, None, None] + number * cell + middle * cell / samples  # [N, cells, samples]
    last = (extent - 1)[:, None, None].to(place.dtype)
    counts = (place >= -1.0) & (place <= last + 1)
    place = torch.minimum(torch.where(counts, place, 0.0).clamp(min=0.0), last)
    low = place.floor()
    share = place - low
    pixels = torch.stack([low, torch.minimum(low + 1, last)], -1).to(torch.int64)
    shares = torch.stack([1 - share, share], -1) * (counts.to(share.dtype) / samples)[..., None]
    return pixels.flatten(2), shares.flatten(2)
