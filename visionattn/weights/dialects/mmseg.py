"""The names of mmseg's and mmdet's backbones, whose patch merging orders its channels as nn.Unfold does."""

from __future__ import annotations

from collections.abc import Mapping

from visionattn.typing import Grid
from visionattn.weights.dialects.dialect import Dialect, State
from visionattn.weights.dialects.names import NameTable
from visionattn.weights.dialects.swin import SWIN, index_buffers, merging_from_unfold, merging_to_unfold
from visionattn.weights.dialects.vit import VIT

_SWIN_TABLE = NameTable(
    ("patch_embed.projection.*", "patch_embed.proj.*"),
    ("patch_embed.norm.*", "patch_embed.norm.*"),
    ("absolute_pos_embed", "absolute_pos_embed"),
    ("stages.{i}.blocks.{j}.attn.w_msa.*", "layers.{i}.blocks.{j}.attn.*"),
    ("stages.{i}.blocks.{j}.ffn.layers.0.0.*", "layers.{i}.blocks.{j}.mlp.fc1.*"),
    ("stages.{i}.blocks.{j}.ffn.layers.1.*", "layers.{i}.blocks.{j}.mlp.fc2.*"),
    ("stages.{i}.blocks.{j}.norm1.*", "layers.{i}.blocks.{j}.norm1.*"),
    ("stages.{i}.blocks.{j}.norm2.*", "layers.{i}.blocks.{j}.norm2.*"),
    ("stages.{i}.downsample.*", "layers.{i+1}.downsample.*"),
    ("norm{i}.*", "norm{i}.*"),
)

_VIT_TABLE = NameTable(
    ("cls_token", "cls_token"),
    ("pos_embed", "pos_embed"),
    ("patch_embed.projection.*", "patch_embed.proj.*"),
    ("layers.{i}.ln1.*", "blocks.{i}.norm1.*"),
    ("layers.{i}.attn.attn.in_proj_weight", "blocks.{i}.attn.qkv.weight"),
    ("layers.{i}.attn.attn.in_proj_bias", "blocks.{i}.attn.qkv.bias"),
    ("layers.{i}.attn.attn.out_proj.*", "blocks.{i}.attn.proj.*"),
    ("layers.{i}.ln2.*", "blocks.{i}.norm2.*"),
    ("layers.{i}.ffn.layers.0.0.*", "blocks.{i}.mlp.fc1.*"),
    ("layers.{i}.ffn.layers.1.*", "blocks.{i}.mlp.fc2.*"),
    ("ln1.*", "norm.*"),
)


def _buffers(windows: Mapping[str, Grid]) -> State:
    return index_buffers(windows, flat=False)


DIALECTS = (
    Dialect(
        "mmseg",
        SWIN,
        frozenset({"stages.0.blocks.0.norm1.weight", "stages.0.blocks.0.ffn.layers.0.0.weight"}),
        _SWIN_TABLE,
        merging_from_unfold,
        merging_to_unfold,
        _buffers,
    ),
    Dialect("mmseg", VIT, frozenset({"layers.0.ln1.weight", "layers.0.ffn.layers.0.0.weight"}), _VIT_TABLE),
)
