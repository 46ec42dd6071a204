"""timm 1.0's names, which are the canonical ones; of ViTs they are also DeiT's.

timm before 0.9 had microsoft's names for Swin.
"""

from __future__ import annotations

from visionattn.weights.dialects.dialect import Dialect
from visionattn.weights.dialects.names import NameTable
from visionattn.weights.dialects.swin import SWIN, SWIN_V2
from visionattn.weights.dialects.vit import VIT

_SWIN_SIGNS = frozenset({"layers.0.blocks.0.norm1.weight", "layers.0.blocks.0.mlp.fc1.weight"})
_SAME = NameTable(("*", "*"))

DIALECTS = (
    Dialect("timm", SWIN_V2, _SWIN_SIGNS | {"layers.0.blocks.0.attn.logit_scale"}, _SAME),
    Dialect("timm", SWIN, _SWIN_SIGNS, _SAME),
    Dialect("timm", VIT, frozenset({"blocks.0.norm1.weight", "blocks.0.mlp.fc1.weight"}), _SAME),
)
