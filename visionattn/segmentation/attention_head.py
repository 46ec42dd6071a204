"""Attention inside a decode head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from mmseg.models import FCNHead
from torch import nn

from visionattn.blocks.plugin import AttentionPlugin
from visionattn.registry import MODELS
from visionattn.typing import AttentionConfig


def AttentionHead(head: Mapping[str, Any], attention: AttentionConfig, grid: Sequence[int] | None = None) -> FCNHead:
    """mmseg's FCNHead with attention behind its first convolution: mmseg's NLHead, for any mechanism.

    `dict(type="visionattn.AttentionHead", head=dict(type="mmseg.FCNHead", num_convs=2, ...),
    attention=dict(type="EfficientAttention"))`; the head itself, not a wrapper.

    Args:
        head: config of the head.
        attention: a mechanism's name or config; it works on `channels` of the head.
        grid: where position-bound parameters are learned.
    Raises:
        TypeError: the head is no FCNHead with convolutions.
        KeyError, ValueError: as `build_attention`.
    """
    built = MODELS.build(dict(head))
    if not (isinstance(built, FCNHead) and isinstance(built.convs, nn.Sequential)):
        raise TypeError(
            f"AttentionHead puts attention behind the first convolution of mmseg.FCNHead, got {type(built).__name__}"
            f"{' without convolutions' if isinstance(built, FCNHead) else ''}"
        )
    plugin = AttentionPlugin(built.channels, attention, grid)
    convs = [(str(index), conv) for index, conv in enumerate(built.convs)]  # names as in an FCNHead's checkpoint
    built.convs = nn.Sequential(OrderedDict([convs[0], ("attention", plugin), *convs[1:]]))
    return built


MODELS.register_module(module=AttentionHead)
