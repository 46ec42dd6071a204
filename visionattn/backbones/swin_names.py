"""The published sizes of Swin by name."""

from __future__ import annotations

from typing import Any

_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.2},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.3},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "drop_path_rate": 0.5},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "drop_path_rate": 0.2},
}

NAMED: dict[str, dict[str, Any]] = {
    f"swin_{size}_window{window}": {
        "type": "SwinTransformer",
        "image_size": (32 * window, 32 * window),
        "window": (window, window),
        **options,
    }
    for size, options in _SIZES.items()
    for window in (7, 12)
}
