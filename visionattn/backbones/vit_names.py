"""The published sizes of ViT, DeiT and ViTDet by name.

ViTDet was published in base and large, with positions learned at 224 x 224 and images of 1024 x 1024; small is DeiT's
size with base's blocks. One attention of every third (large: every sixth) block sees the whole map, in four blocks in
all; the others see windows of 14 x 14, of which the padding takes part, as published.
"""

from __future__ import annotations

from typing import Any

_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}
_VIT = {"type": "VisionTransformer", "image_size": (224, 224), "patch": (16, 16)}
_WINDOWS = {
    "type": "WindowAttention",
    "window": (14, 14),
    "relative_position_bias": False,
    "mask_padding": False,
}


def _vitdet(size: str, drop_path_rate: float) -> dict[str, Any]:
    apart = _SIZES[size]["depth"] // 4
    return {
        **_VIT,
        **_SIZES[size],
        "attention": [*[_WINDOWS] * (apart - 1), {"type": "SoftmaxAttention"}],
        "class_token": False,
        "out_norms": False,
        "drop_path_rate": drop_path_rate,
    }


NAMED: dict[str, dict[str, Any]] = {
    **{f"vit_{size}_patch16": {**_VIT, **options} for size, options in _SIZES.items()},
    **{f"deit_{size}_patch16": {**_VIT, **_SIZES[size], "drop_path_rate": 0.1} for size in ("tiny", "small", "base")},
    **{
        f"vitdet_{size}_patch16": _vitdet(size, rate)
        for size, rate in {"small": 0.1, "base": 0.1, "large": 0.4}.items()
    },
}
