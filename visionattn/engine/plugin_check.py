"""Plug-ins that a host would silently drop."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any


def check_plugins(config: Any, key: str = "model") -> None:
    """Raises ValueError if a ResNet of OpenMMLab's is given two plug-ins at one position of a stage.

    It runs every plug-in of a position on the same map and keeps the last one's answer alone.

    Args:
        config: of the model; looked through to its end.
        key: what it is called in the message.
    """
    if isinstance(config, Mapping):
        if "ResNet" in str(config.get("type", "")):
            _check_positions(config.get("plugins") or (), key)
        for name, value in config.items():
            check_plugins(value, f"{key}.{name}")
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            check_plugins(value, f"{key}.{index}")


def _check_positions(plugins: Any, key: str) -> None:
    for (i, one), (j, other) in combinations(enumerate(plugins), 2):
        if one.get("position") != other.get("position"):
            continue
        stages = zip(*(plugin.get("stages") or (True,) * 4 for plugin in (one, other)), strict=False)
        if any(first and second for first, second in stages):
            raise ValueError(
                f"{key}.plugins {i} and {j} are both at {one.get('position')!r}: this backbone would keep only the "
                "last one's answer; give them different positions, or use visionattn.InsertedBackbone"
            )
