"""`replace_attention` for configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import nn

from visionattn.backbones.depth import Attention
from visionattn.backbones.replacement import replace_attention
from visionattn.registry import MODELS


def ReplacedBackbone(
    backbone: Mapping[str, Any], attention: Attention, blocks: str | Sequence[str] | None = None
) -> nn.Module:
    """The backbone that a config describes, with another mechanism in its blocks; the backbone itself, not a wrapper.

    `dict(type="visionattn.ReplacedBackbone", backbone=dict(type="visionattn.TimmBackbone",
    model_name="vit_small_patch16_224", checkpoint="vit.safetensors"), attention=dict(type="EfficientAttention"))`

    Args:
        backbone: config of the backbone. Weights that it loads itself (TimmBackbone's checkpoint) are kept.
        attention, blocks: as for `replace_attention`.
    Raises:
        KeyError, TypeError, ValueError: as `replace_attention`.
    """
    return replace_attention(cast("nn.Module", MODELS.build(dict(backbone))), attention, blocks=blocks)


MODELS.register_module(module=ReplacedBackbone)
