"""ViT's canonical names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from visionattn.weights.dialects.dialect import Family

_NAMES = re.compile(
    r"cls_token|pos_embed|(patch_embed\.proj|norm|head)\.(weight|bias)"
    r"|blocks\.\d+\.(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(weight|bias)"
)
_BLOCK = re.compile(r"blocks\.(\d+)\.")


def _size(state: Mapping[str, Tensor]) -> dict[str, object]:
    size: dict[str, object] = {}
    patches = state.get("patch_embed.proj.weight")
    if patches is not None:
        size["embed_dim"], size["patch"] = patches.shape[:1].numel(), tuple(patches.shape[2:])
    size["depth"] = len({found[1] for name in state if (found := _BLOCK.match(name))})
    return size


VIT = Family("ViT", _NAMES, _size)
