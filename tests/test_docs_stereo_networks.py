"""docs/stereo_networks.md: its table says of every network what the network is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from visionattn import stereo

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "stereo_networks.md").read_text()
ROWS = re.findall(r"^\| `(\w+)(\(.*?\))?`(?: \(\w+\))? \| ([\d,]+) \| (.*?) \| (.*?) \| .*? \| `(.*?)` \|$", PAGE, re.M)


def test_rows_were_found() -> None:
    assert len(ROWS) == 8


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0] + row[1])
def test_parameters_sides_and_recipes(row: tuple[str, ...]) -> None:
    name, arguments, parameters, _, sides, recipes = row
    network = eval(f"networks.{name}{arguments or '()'}", {"networks": stereo})
    assert f"{sum(p.numel() for p in network.parameters()):,}" == parameters
    least = f", from {network.smallest}" if network.smallest > network.divisor else ""
    assert sides == f"multiples of {network.divisor}{least}"
    assert recipes.endswith("*")


def test_recipes_that_are_named_exist() -> None:
    named = set(re.findall(r"stereo/((?:gmstereo|raft-stereo)[\w-]+_sceneflow-\d+x\d+)", PAGE))
    assert len(named) == 2
    assert all((ROOT / "configs" / "stereo" / f"{name}.py").is_file() for name in named)
