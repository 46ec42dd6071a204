"""Attention on the maps that a neck returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from torch import nn

from visionattn.blocks.plugin import AttentionPlugin
from visionattn.registry import SCOPE
from visionattn.typing import AttentionConfig, Feature

LevelAttention: TypeAlias = AttentionConfig | Mapping[int, AttentionConfig] | Sequence[AttentionConfig | None]
"""One config for every map returned; or level -> config; or a list with a config or None for each.

Each a mechanism's config, or dict(type="AttentionPlugin", attention=..., norm=...).
"""


class LevelPlugins(nn.ModuleDict):
    """An AttentionPlugin at each chosen level of a pyramid, by the level's number.

    Args:
        attention: None is none at all.
        channels: of every level.
        levels: maps that the neck returns.
    Raises:
        KeyError, TypeError, ValueError: a level that the neck does not have; what is no config of an attention.
    """

    def __init__(self, attention: LevelAttention | None, channels: int, levels: int) -> None:
        super().__init__(
            {str(level): _plugin(cfg, channels, level) for level, cfg in _by_level(attention, levels).items()}
        )

    def on(self, maps: Sequence[Feature]) -> list[Feature]:
        """The maps, those of the chosen levels after their attention."""
        return [self[str(level)](x) if str(level) in self else x for level, x in enumerate(maps)]


def _by_level(attention: LevelAttention | None, levels: int) -> dict[int, AttentionConfig]:
    if attention is None:
        return {}
    if isinstance(attention, list | tuple):
        if len(attention) != levels:
            raise ValueError(
                f"attention lists {len(attention)} levels, the neck returns {levels}; write None where there is none"
            )
        return {level: cfg for level, cfg in enumerate(attention) if cfg is not None}
    if not isinstance(attention, Mapping) or "type" in attention:
        return dict.fromkeys(range(levels), cast("AttentionConfig", attention))
    for level in attention:
        if level not in range(levels):
            raise ValueError(f"attention at level {level!r}: the neck returns the levels 0 to {levels - 1}")
    return dict(cast("Mapping[int, AttentionConfig]", attention))


def _plugin(cfg: AttentionConfig, channels: int, level: int) -> AttentionPlugin:
    options: dict[str, Any] = {"attention": cfg}
    if isinstance(cfg, Mapping) and cfg.get("type") in (AttentionPlugin, "AttentionPlugin", f"{SCOPE}.AttentionPlugin"):
        options = {name: value for name, value in cfg.items() if name != "type"}
    try:
        return AttentionPlugin(channels, **options)
    except (KeyError, TypeError, ValueError) as error:
        raise type(error)(f"attention at level {level}: {error.args[0]}") from error
