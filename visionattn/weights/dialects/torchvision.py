"""torchvision's names: for Swin one numbered list, in which stages and patch mergings take turns."""

from __future__ import annotations

from collections.abc import Mapping

from visionattn.typing import Grid
from visionattn.weights.dialects.dialect import Dialect, State
from visionattn.weights.dialects.names import NameTable
from visionattn.weights.dialects.swin import (
    SWIN,
    SWIN_V2,
    bias_joined,
    bias_split,
    coordinate_buffers,
    index_buffers,
)
from visionattn.weights.dialects.vit import VIT

_SWIN_TABLE = NameTable(
    ("features.0.0.*", "patch_embed.proj.*"),
    ("features.0.2.*", "patch_embed.norm.*"),
    ("features.{2i+1}.{j}.mlp.0.*", "layers.{i}.blocks.{j}.mlp.fc1.*"),
    ("features.{2i+1}.{j}.mlp.3.*", "layers.{i}.blocks.{j}.mlp.fc2.*"),
    ("features.{2i+1}.{j}.*", "layers.{i}.blocks.{j}.*"),
    ("features.{2i+2}.*", "layers.{i+1}.downsample.*"),
    ("norm.*", "norm.*"),
    ("head.*", "head.fc.*"),
)
_SWIN_SIGNS = frozenset({"features.0.0.weight", "features.1.0.norm1.weight", "features.1.0.mlp.0.weight"})

_LAYER, _BLOCK = "encoder.layers.encoder_layer_{i}", "blocks.{i}"
_VIT_TABLE = NameTable(
    ("class_token", "cls_token"),
    ("encoder.pos_embedding", "pos_embed"),
    ("conv_proj.*", "patch_embed.proj.*"),
    (f"{_LAYER}.ln_1.*", f"{_BLOCK}.norm1.*"),
    (f"{_LAYER}.self_attention.in_proj_weight", f"{_BLOCK}.attn.qkv.weight"),
    (f"{_LAYER}.self_attention.in_proj_bias", f"{_BLOCK}.attn.qkv.bias"),
    (f"{_LAYER}.self_attention.out_proj.*", f"{_BLOCK}.attn.proj.*"),
    (f"{_LAYER}.ln_2.*", f"{_BLOCK}.norm2.*"),
    (f"{_LAYER}.mlp.0.*", f"{_BLOCK}.mlp.fc1.*"),
    (f"{_LAYER}.mlp.3.*", f"{_BLOCK}.mlp.fc2.*"),
    (f"{_LAYER}.mlp.linear_1.*", f"{_BLOCK}.mlp.fc1.*"),  # as in the files that torchvision publishes
    (f"{_LAYER}.mlp.linear_2.*", f"{_BLOCK}.mlp.fc2.*"),
    ("encoder.ln.*", "norm.*"),
    ("heads.head.*", "head.*"),
)
_VIT_SIGNS = frozenset({"conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight"})


def _v1_buffers(windows: Mapping[str, Grid]) -> State:
    return index_buffers(windows, flat=True)


def _v2_buffers(windows: Mapping[str, Grid]) -> State:
    return index_buffers(windows, flat=True) | coordinate_buffers(windows)


DIALECTS = (
    Dialect(
        "torchvision",
        SWIN_V2,
        _SWIN_SIGNS | {"features.1.0.attn.logit_scale"},
        _SWIN_TABLE,
        bias_split,
        bias_joined,
        _v2_buffers,
    ),
    Dialect("torchvision", SWIN, _SWIN_SIGNS, _SWIN_TABLE, buffers=_v1_buffers),
    Dialect("torchvision", VIT, _VIT_SIGNS, _VIT_TABLE),
)
