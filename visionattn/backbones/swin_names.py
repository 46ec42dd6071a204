"""The published sizes of Swin by name.

`swin_tiny_window7`, `swinv2_base_window16`, ... with the window of the training; `swinv2_base_window12to24`: trained
with windows of 12, used with 24. The drop path is that of the published ImageNet recipe. As microsoft and timm do for
the image of the training, a stage whose map is smaller than the window has windows of the size of its map.
"""

from __future__ import annotations

from typing import Any

_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.2},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.3},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "drop_path_rate": 0.5},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "drop_path_rate": 0.2},
}
_V1_IMAGES = {7: 224, 12: 384}
_V2_IMAGES = {8: 256, 12: 192, 16: 256}
_V2_FINE_TUNED = {16: 256, 24: 384}  # from windows of 12


def _windows(window: int, image: int) -> tuple[tuple[int, int], ...]:
    lengths = [min(window, image // (4 * 2**stage)) for stage in range(4)]
    return tuple((length, length) for length in lengths)


def _config(backbone: str, size: str, window: int, image: int) -> dict[str, Any]:
    return {"type": backbone, "image_size": (image, image), "window": _windows(window, image), **_SIZES[size]}


NAMED: dict[str, dict[str, Any]] = {}
for _size in _SIZES:
    for _window, _image in _V1_IMAGES.items():
        NAMED[f"swin_{_size}_window{_window}"] = _config("SwinTransformer", _size, _window, _image)
    for _window, _image in _V2_IMAGES.items():
        NAMED[f"swinv2_{_size}_window{_window}"] = _config("SwinTransformerV2", _size, _window, _image)
for _size in ("base", "large"):
    for _window, _image in _V2_FINE_TUNED.items():
        NAMED[f"swinv2_{_size}_window12to{_window}"] = {
            **_config("SwinTransformerV2", _size, _window, _image),
            "pretrained_window": _windows(12, 192),
        }
