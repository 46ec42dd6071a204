"""What a mechanism looks at, as maps: templates of efficient attention, windows put back together on the whole map."""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.analysis.attention_matrix import added_rows, attending
from visionattn.attention.efficient import EfficientAttention
from visionattn.attention.window import WindowAttention
from visionattn.ops.efficient_attention import softmax_over_positions
from visionattn.ops.window import WindowLayout


def template_maps(
    mixer: EfficientAttention, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """The template attention maps of efficient attention, [B, heads, d, *grid of the keys].

    Template j is the softmax of key channel j over all positions: where the j-th global context vector is gathered. A
    query's attention map is a mixture of them (Shen et al., WACV 2021, section 3.4), by the shares of
    `template_shares`.

    Args:
        x, context, mask: as of the mechanism; the mask is that of the keys.
    """
    with attending(mixer, x, context, mask) as now, torch.no_grad():
        weights = softmax_over_positions(now.keys / mixer.temperature, None if mask is None else mask.flatten(1))
    return weights.mT.unflatten(-1, now.key_grid)


def template_shares(
    mixer: EfficientAttention, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """How much of each template every query takes, [B, heads, d, *grid]; over d they sum to 1.

    Raises:
        ValueError: the mechanism's queries are not normalised (normalize_queries=False): they are no shares.
    """
    if not mixer.normalize_queries:
        raise ValueError("normalize_queries=False: the queries are no shares of the templates")
    with attending(mixer, x, context, mask) as now, torch.no_grad():
        shares = (now.queries / mixer.temperature).softmax(dim=-1)
    return shares.mT.unflatten(-1, now.grid)


def stitched_window_maps(mixer: WindowAttention, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The maps of all windows put back together on the whole map, [B, heads, *grid].

    At each position: how much the query in the middle of its window looks at it. Where a shift brings two edges of the
    map into one window, either side has a middle of its own. In every window, or side of one, the weights sum to 1.

    Args:
        x, mask: as of the mechanism.
    """
    layout = mixer._layout(tuple(x.shape[1:-1]), x.device)
    rows = added_rows(mixer, x, [middle_queries(layout)], mask=mask)
    return rows[:, :, 0].unflatten(-1, layout.grid)


def middle_queries(layout: WindowLayout) -> list[int]:
    """For each window, and each side of the seam in one, the token nearest to its middle."""
    count = torch.Size(layout.grid).numel()
    middles = []
    regions = torch.zeros_like(layout.tokens) if layout.regions is None else layout.regions
    for tokens, sides in zip(layout.tokens, regions, strict=True):
        for side in sides.unique().tolist():
            here = tokens[(sides == side) & (tokens < count)]
            if len(here):
                places = torch.stack(torch.unravel_index(here, layout.grid), dim=-1).double()
                middle = (places.amin(dim=0) + places.amax(dim=0)) / 2
                middles.append(int(here[(places - middle).square().sum(-1).argmin()]))
    return middles
