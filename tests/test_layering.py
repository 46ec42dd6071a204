"""Data flows one way: each part imports only those before it, and foreign packages only where they belong."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "visionattn"
ORDER = [
    ["version"],
    ["registry"],
    ["typing"],
    ["ops"],
    ["weights"],
    ["attention"],
    ["blocks"],
    ["backbones"],
    ["necks"],
    ["data"],
    ["visualization"],
    ["analysis"],
    ["segmentation", "detection", "stereo"],  # tasks never import each other
    ["engine"],
    ["export"],
    ["cli"],
]
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}
FOREIGN = {
    "mmseg": {"segmentation"},
    "mmcv": {"segmentation"},
    "mmengine": {"registry", "segmentation", "detection", "stereo", "engine", "cli", "analysis", "export"},
    "timm": {"backbones", "export"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(file: Path) -> list[str]:
    """Every module that the file imports at any depth, as dotted names."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.append(node.module or "")
            if node.module == "visionattn":
                names += [f"visionattn.{alias.name}" for alias in node.names]
    return names


def test_files_were_found() -> None:
    assert len(FILES) > 20
    assert {part_of(file) for file in FILES} - {"__init__"} <= set(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_only_what_stands_before(file: Path) -> None:
    part = part_of(file)
    if part == "__init__":
        return  # the package's own lazy names
    for name in imported(file):
        top, _, rest = name.partition(".")
        if top == "visionattn" and rest:
            other = rest.split(".")[0]
            if other == part:
                continue
            assert other in LEVEL, f"{file.name} imports {name}"
            assert LEVEL[other] < LEVEL[part], f"{part} may not import {other} ({file.name}: {name})"
        if top in FOREIGN:
            assert part in FOREIGN[top], f"{top} is touched in {sorted(FOREIGN[top])} only, not in {part} ({file.name})"
            assert not name.startswith("mmcv.ops"), f"{file.name} imports {name}, which is not compiled"
        if top == "timm" and part == "backbones":
            assert file.stem.startswith("timm"), f"timm is touched in backbones/timm*.py only, not in {file.name}"
