"""visionattn: any attention, in any backbone, for any dense task, from one config.

Importing this package imports nothing else; a public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from visionattn.version import __version__

if TYPE_CHECKING:
    from visionattn.attention.build import build_attention, list_attention
    from visionattn.backbones.build import create_backbone
    from visionattn.backbones.insertion import insert_attention
    from visionattn.backbones.replacement import replace_attention
    from visionattn.engine.inference import predict
    from visionattn.weights.conversion import convert_weights
    from visionattn.weights.loading import load_checkpoint

_PUBLIC = {
    "list_attention": "visionattn.attention.build",
    "build_attention": "visionattn.attention.build",
    "create_backbone": "visionattn.backbones.build",
    "insert_attention": "visionattn.backbones.insertion",
    "replace_attention": "visionattn.backbones.replacement",
    "convert_weights": "visionattn.weights.conversion",
    "load_checkpoint": "visionattn.weights.loading",
    "predict": "visionattn.engine.inference",
}

__all__ = [
    "__version__",
    "build_attention",
    "convert_weights",
    "create_backbone",
    "insert_attention",
    "list_attention",
    "load_checkpoint",
    "predict",
    "replace_attention",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'visionattn' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
