"""What changes from block to block: the attention, and the probability of leaving a block out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from visionattn.attention.build import attention_class
from visionattn.typing import AttentionConfig

Attention: TypeAlias = AttentionConfig | Sequence[AttentionConfig]
"""A mechanism's name or config, or a list of them that the blocks take in turn."""


def attention_by_depth(attention: Attention, depth: int, num_heads: int) -> list[dict[str, Any]]:
    """The config of each of `depth` blocks: the list goes round, and the host's heads stand where a config names none.

    Args:
        attention: one mechanism for all blocks, or a list of them.
        depth: number of blocks.
        num_heads: for mechanisms that have heads.
    Raises:
        ValueError: an empty list.
        KeyError, TypeError: what is no attention config, as `build_attention`.
    """
    listed = [attention] if isinstance(attention, str | type | Mapping) else list(attention)
    if not listed:
        raise ValueError("attention=[] names no mechanism; give one config, or a list to go round over the depth")
    configs = [with_host_options(cfg, {"num_heads": num_heads}) for cfg in listed]
    return [configs[block % len(configs)] for block in range(depth)]


def drop_path_by_depth(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """The drop path of every block by stage: from 0 at the first block linearly to `rate` at the last."""
    last = max(sum(depths) - 1, 1)
    before = [sum(depths[:stage]) for stage in range(len(depths))]
    return [
        [rate * (first + block) / last for block in range(depth)] for first, depth in zip(before, depths, strict=True)
    ]


def with_host_options(cfg: AttentionConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """The config, with the host's options where it names none, as far as its mechanism has them.

    Raises:
        KeyError, TypeError: what is no attention config, as `build_attention`.
    """
    own: dict[str, Any] = dict(cfg) if isinstance(cfg, Mapping) else {"type": cfg}
    if "type" not in own:
        raise KeyError(f'an attention config is a name or dict(type="EfficientAttention", ...), got {cfg!r}')
    known = inspect.signature(attention_class(own["type"]).__init__).parameters
    return {name: value for name, value in options.items() if name in known} | own
