"""Our backbones by name, as configs."""

from __future__ import annotations

from copy import deepcopy
from importlib import import_module
from typing import Any

_LISTS = ("visionattn.backbones.swin_names", "visionattn.backbones.vit_names")


def named_backbones() -> dict[str, dict[str, Any]]:
    """name -> config dict(type=..., **options), in the order of the lists; the caller may change what it gets."""
    named: dict[str, dict[str, Any]] = {}
    for module in _LISTS:
        named |= deepcopy(import_module(module).NAMED)
    return named
