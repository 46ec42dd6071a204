"""Backbones by name or config."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, cast

from torch import nn

from visionattn.backbones.named import named_backbones
from visionattn.backbones.timm_body import timm_model_names
from visionattn.registry import MODELS, SCOPE


def create_backbone(name_or_cfg: str | Mapping[str, Any]) -> nn.Module:
    """A backbone: image [B, C, H, W] -> list of feature maps [B, C, H, W], with `out_channels` and `strides`.

    Args:
        name_or_cfg: the name of a backbone of ours ("swin_tiny_window7", see `named_backbones`), a timm model's name
            ("resnet18"), or a config dict(type=..., **options). Its type is any registered backbone (mmseg's return a
            tuple and say no channels), or a name of ours: dict(type="swin_tiny_window7", attention="NonLocal").
    Raises:
        KeyError: nothing has this name.
        TypeError: a backbone of ours has no such option.
    """
    named = named_backbones()
    if isinstance(name_or_cfg, Mapping):
        cfg = dict(name_or_cfg)
        named_as = str(cfg.get("type")).removeprefix(f"{SCOPE}.")
        return _built({**named[named_as], **cfg, "type": named[named_as]["type"]} if named_as in named else cfg)
    bare = name_or_cfg.removeprefix(f"{SCOPE}.")
    if bare in named:
        return _built(named[bare])
    ours = sorted(name for name, built in MODELS.module_dict.items() if built.__module__.startswith(__package__))
    if bare in ours:
        return _built({"type": name_or_cfg})
    names = timm_model_names()
    if name_or_cfg.partition(".")[0] in names:  # a timm name may have a tag of pretrained weights behind a dot
        return _built({"type": "TimmBackbone", "model_name": name_or_cfg})
    close = get_close_matches(bare, [*named, *ours, *names], n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise KeyError(
        f"no backbone is called {name_or_cfg!r}; {hint}give a name of ours ({next(iter(named))}, ...), the name of a "
        f"timm model, or a config dict(type=...) of {', '.join(ours)} or a scoped one like mmseg.ResNet"
    )


def _built(cfg: dict[str, Any]) -> nn.Module:
    """A name without a scope is ours wherever we have it, also while a config of mmseg's scope is at work."""
    kind = cfg.get("type")
    if isinstance(kind, str) and "." not in kind and MODELS.get(f"{SCOPE}.{kind}") is not None:
        cfg = {**cfg, "type": f"{SCOPE}.{kind}"}
    _check_options(cfg)
    return cast("nn.Module", MODELS.build(cfg))


def _check_options(cfg: Mapping[str, Any]) -> None:
    """Raises TypeError with the options that there are, where a backbone of ours has not those of the config."""
    kind = cfg.get("type")
    built = MODELS.get(kind) if isinstance(kind, str) else kind
    if not isinstance(built, type) or not built.__module__.startswith(f"{__package__}."):
        return
    taken = signature(built).parameters
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in taken.values()):
        return
    unknown = [name for name in cfg if name != "type" and name not in taken]
    if unknown:
        close = get_close_matches(unknown[0], taken, n=1)
        hint = f"; did you mean {close[0]}?" if close else ";"
        raise TypeError(f"{built.__name__} has no option {unknown[0]!r}{hint} it takes {', '.join(taken)}")
