"""The public names, and what importing them costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import visionattn

PUBLIC = [
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


def test_public_names() -> None:
    assert visionattn.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(visionattn))
    for name in PUBLIC:
        assert getattr(visionattn, name)
    with pytest.raises(AttributeError, match="it has __version__, build_attention"):
        visionattn.build_atention  # noqa: B018


def modules_after(code: str) -> set[str]:
    """Top-level modules loaded by a fresh interpreter that ran the code."""
    program = f"{code}\nimport sys, json; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert len(lines) == 1, f"importing prints: {lines[:-1]}"
    return set(json.loads(lines[-1]))


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not modules_after("import visionattn") & {"torch", "mmengine", "mmseg", "timm", "cv2", "albumentations"}


def test_building_attention_stays_light() -> None:
    code = "import visionattn; visionattn.build_attention('EfficientAttention', 8)"
    assert not modules_after(code) & {"mmseg", "mmcv", "timm", "torchvision", "albumentations", "matplotlib"}
