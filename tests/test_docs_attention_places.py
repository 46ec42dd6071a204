"""The examples in docs/attention_places.md run, and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from visionattn.registry import MODELS

TEXT = (Path(__file__).parents[1] / "docs" / "attention_places.md").read_text()
EXAMPLES = re.findall(r"```python\n(.+?)```(?:\n\nprints\n\n```\n(.+?)```)?", TEXT, re.DOTALL)


def test_examples_were_found() -> None:
    assert len(EXAMPLES) == 7
    assert sum(bool(printed) for _, printed in EXAMPLES) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = EXAMPLES[number]
    names: dict[str, Any] = {}
    exec(code, names)
    if "backbone" in names and isinstance(names["backbone"], dict):
        model: Any = MODELS.build(names["backbone"])
        assert [m.shape[0] for m in model.eval()(torch.zeros(1, 3, 64, 96))] == [1] * 4
    if printed:
        assert capsys.readouterr().out == printed
