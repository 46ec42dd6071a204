"""The names of microsoft/Swin-Transformer's files: patch merging ends a stage, where timm's begins one.

Its `load_pretrained` takes the state dict from under "model" and computes its buffers itself, so none are written.
"""

from __future__ import annotations

from visionattn.weights.dialects.dialect import Dialect
from visionattn.weights.dialects.names import NameTable
from visionattn.weights.dialects.swin import SWIN, SWIN_V2

_TABLE = NameTable(
    ("layers.{i}.downsample.*", "layers.{i+1}.downsample.*"),
    ("layers.{i}.blocks.{j}.*", "layers.{i}.blocks.{j}.*"),
    ("patch_embed.*", "patch_embed.*"),
    ("absolute_pos_embed", "absolute_pos_embed"),
    ("norm.*", "norm.*"),
    ("head.*", "head.fc.*"),
)
_SIGNS = frozenset({"layers.0.blocks.0.norm1.weight", "layers.0.downsample.reduction.weight"})

DIALECTS = (
    Dialect("microsoft", SWIN_V2, _SIGNS | {"layers.0.blocks.0.attn.logit_scale"}, _TABLE, wrapper="model"),
    Dialect("microsoft", SWIN, _SIGNS, _TABLE, wrapper="model"),
)
