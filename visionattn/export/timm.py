"""Our backbones in timm's registry: `import visionattn.export.timm`, then `timm.create_model("va_swin_tiny_window7")`.

Every name of `named_backbones()` is there as `va_<name>`; `va_backbone` is any registered backbone, given as
`backbone=dict(type=..., **options)`. What timm does with a model of its own it does with these: `num_classes`,
`in_chans`, `features_only=True, out_indices=...` (NCHW maps), `checkpoint_path`, `local-dir:` folders. Further keywords
are options of the backbone: `timm.create_model("va_swin_tiny_window7", attention="EfficientAttention")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from visionattn.backbones.named import named_backbones
from visionattn.export.timm_build import timm_model
from visionattn.export.timm_config import channels_of
from visionattn.export.timm_model import TimmModel

GENERIC = "va_backbone"
"""The name of the model whose argument `backbone` is a config."""


def timm_name(name: str) -> str:
    """The name in timm of a backbone of ours."""
    return f"va_{name}"


def _source(config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm records of a model without weights, its head and its input."""
    height, width = config.get("image_size", (224, 224))
    return {
        "input_size": (3, height, width),
        "num_classes": 1000,
        "classifier": "head" if config.get("type") == "VisionTransformer" else "head.fc",
        "first_conv": "patch_embed.proj",
        "crop_pct": 0.9,
    }


def _create(name: str, pretrained: bool, config: Mapping[str, Any], arguments: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = build_model_with_cfg(
        timm_model,
        name,
        pretrained,
        feature_cfg={"out_indices": None, "feature_cls": "getter"},  # all stages, by forward_intermediates
        backbone=config,
        **arguments,
    )
    if isinstance(model, TimmModel):
        known = model.pretrained_cfg
        known["classifier"] = model.classifier_name
        known["pool_size"] = model.pool_size(*known["input_size"][1:])
    return model


def _as_timm_has_it(options: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every stage's map as it is, where a final norm stands before the head."""
    stages = len(options["depths"]) if "depths" in options else options["depth"]
    return {**config, "out_norms": False, "out_indices": tuple(range(stages))}


def va_backbone(pretrained: bool = False, *, backbone: Mapping[str, Any], **arguments: Any) -> nn.Module:
    """Any registered backbone, by its config."""
    return _create(GENERIC, pretrained, backbone, {"in_chans": channels_of(backbone), **arguments})


def _register(name: str, config: Mapping[str, Any]) -> None:
    def entry(pretrained: bool = False, **arguments: Any) -> nn.Module:
        return _create(timm_name(name), pretrained, _as_timm_has_it({**config, **arguments}, config), arguments)

    entry.__name__ = entry.__qualname__ = timm_name(name)
    entry.__doc__ = f"{name} of visionattn."
    register_model(entry)


_NAMED = named_backbones()
default_cfgs = generate_default_cfgs(
    {
        **{timm_name(name): _source(config) for name, config in _NAMED.items()},
        GENERIC: {**_source({}), "first_conv": None},
    }
)
register_model(va_backbone)
for _name, _config in _NAMED.items():
    _register(_name, _config)
