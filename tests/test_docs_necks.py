"""The example in docs/necks.md prints what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "necks.md").read_text()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = re.findall(r"```python\n(.+?)```\n\nprints\n\n```\n(.+?)```", TEXT, re.DOTALL)[0]
    exec(code, {})
    assert capsys.readouterr().out == printed
