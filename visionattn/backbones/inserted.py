"""`insert_attention` for configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import nn

from visionattn.backbones.insertion import Inserted, insert_attention
from visionattn.backbones.probe import default_input
from visionattn.registry import MODELS


def InsertedBackbone(
    backbone: Mapping[str, Any], attention: Mapping[str, Inserted], input_size: Sequence[int] | None = None
) -> nn.Module:
    """The backbone that a config describes, with attention inserted; the backbone itself, not a wrapper.

    `dict(type="visionattn.InsertedBackbone", backbone=dict(type="mmseg.ResNetV1c", depth=18),
    attention={"layer3": dict(type="EfficientAttention")})`

    A host that freezes stages in its own `train` (mmseg's frozen_stages) freezes the attention in them, too.

    Args:
        backbone: config of the backbone.
        attention: as for `insert_attention`.
        input_size: [C, H, W] of the image that finds the channels, where the model's own size or 224 x 224 does not
            serve.
    Raises:
        KeyError, TypeError, ValueError: as `insert_attention`.
    """
    model = cast("nn.Module", MODELS.build(dict(backbone)))
    example = None if input_size is None else default_input(model).new_zeros(1, *input_size)
    return insert_attention(model, attention, example_input=example)


MODELS.register_module(module=InsertedBackbone)
