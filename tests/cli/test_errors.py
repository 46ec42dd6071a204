"""What counts as an answer to a user, and what keeps its traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.registry import Registry

from visionattn.attention.build import build_attention
from visionattn.cli.errors import as_answer

PARTS = Registry("part", scope="visionattn")


@PARTS.register_module()
class Part:
    def __init__(self, size: int = 1) -> None:
        if size == 2:
            raise AssertionError
        if size > 2:
            raise ValueError(f"size={size}\n  is too much")


def _error(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda: build_attention("EfficientAttention", 8, None).check_map(torch.ones(1, 2), None),
            "expects x of shape",
        ),
        (lambda: build_attention("Nothing", 8), "no attention mechanism is called 'Nothing'"),
        (lambda: PARTS.build({"type": "Part", "size": 3}), "size=3 is too much (--debug shows where)"),
        (lambda: PARTS.build({"type": "Part", "sise": 3}), "unexpected keyword argument 'sise' (--debug shows where)"),
        (lambda: PARTS.build({"type": "Prat"}), "Prat is not in the visionattn::part registry; check the name"),
        (lambda: Path("/nothing/at/all").read_text(), "No such file or directory: /nothing/at/all"),
    ],
)
def test_answers_are_one_line(call: Callable[[], object], expected: str) -> None:
    answer = as_answer(_error(call))
    assert answer is not None
    assert expected in answer
    assert "\n" not in answer


@pytest.mark.parametrize(
    "call",
    [
        lambda: torch.ones(2) @ torch.ones(3),
        lambda: torch.ones(2, dtype="float"),
        lambda: {}["key"],
        lambda: PARTS.build({"type": "Part", "size": 2}),  # an assertion that says nothing
    ],
    ids=["RuntimeError", "TypeError", "KeyError", "AssertionError"],
)
def test_errors_of_a_program_keep_their_traceback(call: Callable[[], object]) -> None:
    assert as_answer(_error(call)) is None
