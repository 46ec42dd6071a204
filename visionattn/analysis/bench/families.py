"""Mechanisms in groups that a reader knows, so that a chart has few lines; by the file that defines them."""

from __future__ import annotations

from visionattn.attention.build import attention_class

_FAMILIES = {
    "softmax and non-local": ("softmax", "non_local", "fewer_projections"),
    "linear: kernels and factors": ("efficient", "linear", "performer", "double", "local_global", "linformer_free"),
    "attention-free and lambda": ("aft", "lambda_layer"),
    "fewer keys": ("linformer", "fourier", "channel", "stacked"),
    "windows and neighbourhoods": ("window", "window_v2", "neighborhood", "long_short"),
    "lines and sparse pairs": ("criss_cross", "sparse", "combiner"),
    "hashing": ("lsh", "smyrf"),
    "whole layers": ("gmlp", "mega", "r_transformer"),
}
OTHERS = "others"


def family_of(name: str) -> str:
    """The group of a registered mechanism; `OTHERS` where its file is in none."""
    file = attention_class(name).__module__.rpartition(".")[2]
    return next((family for family, files in _FAMILIES.items() if file in files), OTHERS)


def families() -> list[str]:
    """All groups, in the order in which they are shown."""
    return [*_FAMILIES, OTHERS]
