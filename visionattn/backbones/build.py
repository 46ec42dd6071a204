"""Backbones by name or config."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, cast

from torch import nn

from visionattn.backbones.timm_body import timm_model_names
from visionattn.registry import MODELS, SCOPE


def create_backbone(name_or_cfg: str | Mapping[str, Any]) -> nn.Module:
    """A backbone: image [B, C, H, W] -> list of feature maps [B, C, H, W], with `out_channels` and `strides`.

    Args:
        name_or_cfg: a timm model's name ("resnet18"), the name of a backbone of ours that needs no options, or a
            config dict(type=..., **options) of any registered backbone (mmseg's return a tuple and say no channels).
    Raises:
        KeyError: nothing has this name.
    """
    if isinstance(name_or_cfg, Mapping):
        return cast("nn.Module", MODELS.build(dict(name_or_cfg)))
    ours = sorted(name for name, built in MODELS.module_dict.items() if built.__module__.startswith(__package__))
    if name_or_cfg.removeprefix(f"{SCOPE}.") in ours:
        return cast("nn.Module", MODELS.build({"type": name_or_cfg}))
    names = timm_model_names()
    if name_or_cfg.partition(".")[0] in names:  # a timm name may have a tag of pretrained weights behind a dot
        return cast("nn.Module", MODELS.build({"type": "TimmBackbone", "model_name": name_or_cfg}))
    close = get_close_matches(name_or_cfg, [*ours, *names], n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise KeyError(
        f"no backbone is called {name_or_cfg!r}; {hint}give the name of a timm model, or a config dict(type=...) of "
        f"{', '.join(ours)} or a scoped one like mmseg.ResNet"
    )
