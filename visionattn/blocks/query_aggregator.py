"""Learned queries that look at a map: a few vectors for all of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionattn.attention.base import ContextMixer, TokenMixer, check_whole
from visionattn.attention.build import attention_class, build_attention, list_attention
from visionattn.registry import MODELS
from visionattn.typing import AttentionConfig, Feature


@MODELS.register_module()
class QueryAggregator(nn.Module):
    """queries + attention(norm(queries), norm(map)): [B, C, *grid] -> [B, num_queries, C].

    As seed vectors in Set Transformer's pooling (Lee et al., ICML 2019, arXiv 1810.00825) and latents in Perceiver
    (Jaegle et al., ICML 2021, arXiv 2103.03206), with any mechanism that can look at another map and whose queries need
    no place on it. The map keeps its grid: its positions may count, as in Linformer.

    Args:
        channels: C of the map and of a query.
        attention: a mechanism's name or config. Refused, as their queries lie on the map too: AFTFull, and those that
            look at maps of their own grid only (neighbourhoods, lines, lambda layers and their like).
        num_queries: how many vectors come out.
        grid: where position-bound parameters are learned; a `grid` in the attention's config serves as well.
        norm: LayerNorms over the channels of queries and of the map.
    Raises:
        TypeError: the mechanism cannot look at another map.
        ValueError: its queries have places on the map, which learned queries have not; or num_queries is below 1.
        KeyError, TypeError, ValueError: as `build_attention`.
    """

    def __init__(
        self,
        channels: int,
        attention: AttentionConfig,
        num_queries: int = 16,
        grid: Sequence[int] | None = None,
        *,
        norm: bool = True,
    ) -> None:
        super().__init__()
        check_whole(channels=channels, num_queries=num_queries)
        if num_queries < 1:
            raise ValueError(f"num_queries={num_queries} must be 1 or more")
        self.channels = channels
        self.attn = _looker(attention, channels, grid)
        self.queries = nn.Parameter(torch.empty(num_queries, channels))
        nn.init.trunc_normal_(self.queries, std=0.02)
        self.norm_queries = nn.LayerNorm(channels) if norm else nn.Identity()
        self.norm_map = nn.LayerNorm(channels) if norm else nn.Identity()

    def forward(self, x: Feature, mask: Tensor | None = None) -> Tensor:
        """What each query finds on the map, [B, num_queries, C], in the dtype of x.

        Args:
            x: [B, C, *grid], the grid of one to three dimensions that the mechanism takes.
            mask: [B, *grid] bool, True where a position is real; None if all are.
        Raises:
            ValueError: x or the mask has another shape.
        """
        dims = self.attn.grid_dims
        if x.dim() - 2 not in dims or x.shape[1] != self.channels:
            raise ValueError(
                f"QueryAggregator expects a map [B, {self.channels}, *grid] with a grid of "
                f"{' or '.join(map(str, dims))} dimensions, as {type(self.attn).__name__} takes it, got {list(x.shape)}"
            )
        if mask is not None and mask.shape != (len(x), *x.shape[2:]):
            raise ValueError(f"QueryAggregator expects a mask {[len(x), *x.shape[2:]]}, got {list(mask.shape)}")
        queries = self.queries.to(x.dtype).expand(len(x), -1, -1)
        # Queries lie on no map, and a mechanism that would ask where was refused: any grid of as many axes will do.
        grid = (*[1] * (x.dim() - 3), len(self.queries))
        asking = self.norm_queries(queries).reshape(len(x), *grid, self.channels)
        seen = self.attn(asking, self.norm_map(x.movedim(1, -1)), context_mask=mask)
        return queries + seen.reshape(queries.shape).to(x.dtype)


def _looker(cfg: AttentionConfig, channels: int, grid: Sequence[int] | None) -> ContextMixer:
    mixer = build_attention(cfg, channels, grid)
    if not isinstance(mixer, ContextMixer):
        able = ", ".join(name for name in list_attention() if _asks_no_place(attention_class(name)))
        raise TypeError(f"{type(mixer).__name__} cannot look at another map; as aggregator, use one of {able}")
    mixer.check_loose_queries()
    return mixer


def _asks_no_place(mixer: type[TokenMixer]) -> bool:
    """Whether it looks at other maps from queries that may lie anywhere."""
    return issubclass(mixer, ContextMixer) and mixer.check_loose_queries is ContextMixer.check_loose_queries
