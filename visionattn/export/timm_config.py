"""Configs of backbones on their way into a timm model and into its config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# How a backbone was started and trained; the file's weights replace the one, timm's own options the other.
_LEFT_OUT = (
    "checkpoint", "init_cfg", "pretrained", "frozen_stages", "norm_eval", "grad_checkpointing", "with_cp",
    "drop_path_rate",
)  # fmt: skip


def portable(cfg: Mapping[str, Any], scope: str) -> dict[str, Any]:
    """The config without weights' paths and training options, its type with the scope, in what JSON can hold.

    Raises:
        ValueError: JSON cannot hold it.
    """
    kept: dict[str, Any] = {key: value for key, value in cfg.items() if key not in _LEFT_OUT}
    kind = kept.get("type")
    if isinstance(kind, str) and "." not in kind:
        kept["type"] = f"{scope}.{kind}"
    if isinstance(kept.get("backbone"), Mapping):
        kept["backbone"] = portable(kept["backbone"], scope)
    for key, value in kept.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{key}={value!r} of the backbone cannot be written to config.json ({error}); name types by strings"
            ) from error
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain


def channels_of(cfg: Mapping[str, Any]) -> int:
    """Channels of the image that the config's backbone takes."""
    inner = cfg.get("backbone")
    return channels_of(inner) if isinstance(inner, Mapping) else int(cfg.get("in_channels", 3))


def with_channels(cfg: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """The config of the same backbone on images of other channels."""
    if channels_of(cfg) == channels:
        return dict(cfg)
    if not isinstance(cfg.get("backbone"), Mapping):
        return {**cfg, "in_channels": channels}
    changed = {**cfg, "backbone": with_channels(cfg["backbone"], channels)}
    return {**changed, "input_size": (channels, *cfg["input_size"][1:])} if cfg.get("input_size") else changed


def with_size(cfg: Mapping[str, Any], size: int | Sequence[int]) -> dict[str, Any]:
    """The config of the same backbone whose position-bound parameters are learned at another image size."""
    return {**cfg, "image_size": (size, size) if isinstance(size, int) else tuple(size)}
