"""Mechanisms as they are measured: options, patterns, causal forms, and what they cost before they run."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch

from visionattn import ops
from visionattn.analysis.bench import causal
from visionattn.analysis.bench.candidate import PATTERNS, Sizes, candidate, options_of, random_map, run_of, shape_costs
from visionattn.analysis.macs import count_macs, published_form
from visionattn.attention.base import ContextMixer
from visionattn.attention.build import attention_class, list_attention

SIZES = Sizes(dim=32, heads=4)
GRID = (12, 14)
CPU = torch.device("cpu")
COUNTED_BY_RUNNING = {"LSHAttention", "SMYRF"}
"""They draw hashes on the CPU."""


def test_heads_are_given_to_mechanisms_that_have_several() -> None:
    assert options_of("SoftmaxAttention", SIZES) == {"num_heads": 4}
    assert options_of("EfficientAttention", SIZES) == {}  # the published form has one
    assert options_of("DoubleAttention", SIZES) == {}
    assert options_of("FixedSparseAttention", SIZES, causal=True) == {"num_heads": 4, "causal": True}


@pytest.mark.parametrize(
    "name", ["SoftmaxAttention", "EfficientAttention", "Performer", "Linformer", "WindowAttention", "AFTConv"]
)
def test_costs_without_numbers_are_those_of_a_run(name: str) -> None:
    """Multiplications and weights, of a mechanism that is never built, are those of one that runs."""
    for pattern in PATTERNS:
        case = candidate(name, pattern, GRID, SIZES)
        costs = shape_costs(name, pattern, GRID, SIZES)
        assert (case is None) == (costs is None)
        if case is None or costs is None:
            continue
        case.mixer.eval()
        with published_form():
            counted = count_macs(lambda case=case: case.answer(random_map(GRID, SIZES, "cpu")))
        assert costs[1] == sum(t.nbytes for t in (*case.mixer.parameters(), *case.mixer.buffers()))
        if name not in COUNTED_BY_RUNNING:
            assert costs[0] == (None if counted.uncounted else counted.total)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_attention())
def test_every_mechanism_is_counted_so(name: str) -> None:
    test_costs_without_numbers_are_those_of_a_run(name)


def test_patterns_are_those_that_a_mechanism_has() -> None:
    names = ("SoftmaxAttention", "WindowAttention", "StridedSparseAttention", "LinformerPool")
    has = {name: [p for p in PATTERNS if candidate(name, p, GRID, SIZES, "meta")] for name in names}
    assert has["SoftmaxAttention"] == list(PATTERNS)
    assert has["WindowAttention"] == ["self"]
    assert has["StridedSparseAttention"] == list(PATTERNS)
    for name, patterns in has.items():
        assert ("cross" in patterns) == issubclass(attention_class(name), ContextMixer)
    assert candidate("CrissCrossAttention", "self", (64,), SIZES, "meta") is None  # it takes no sequence


@pytest.mark.parametrize("name", list_attention())
def test_a_causal_form_is_there_where_it_is_claimed(name: str) -> None:
    """And no later position changes what it answers."""
    case = candidate(name, "causal-self", (6, 7), SIZES)
    assert attention_class(name).claims.causal == (case is not None)
    if case is None:
        return
    mixer, x = case.mixer.double().eval(), random_map((6, 7), SIZES, "cpu").double()
    changed = x.clone()
    changed[:, 3, 4:], changed[:, 4:] = 5 - 2 * x[:, 3, 4:], 5 - 2 * x[:, 4:]
    before, after = mixer(x).flatten(1, 2), mixer(changed).flatten(1, 2)
    torch.testing.assert_close(after[:, :25], before[:, :25], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(after[:, 25:], before[:, 25:])


@pytest.mark.parametrize("name", ["SoftmaxAttention", "EfficientAttention", "LinearAttention", "AFTSimple"])
def test_the_last_token_sees_all_in_either_form(name: str) -> None:
    answers = []
    for pattern in ("self", "causal-self"):
        case = candidate(name, pattern, GRID, SIZES)
        assert case is not None
        answers.append(case.mixer.double().eval()(random_map(GRID, SIZES, "cpu").double()))
    torch.testing.assert_close(answers[0][:, -1, -1], answers[1][:, -1, -1], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(answers[0][:, 0, 0], answers[1][:, 0, 0])


def test_every_causal_function_is_measured() -> None:
    """A new one is a line in bench/causal.py; what others are made of is none."""
    modules = [import_module(f"visionattn.ops.{module.name}") for module in iter_modules(ops.__path__)]
    there = {name for module in modules for name, what in vars(module).items() if inspect.isfunction(what)}
    functions = {name for name in there if name.startswith("causal_")} - {"causal_feature_attention"}
    assert len(functions) >= 8
    assert functions <= set(re.findall(r"causal_\w+", inspect.getsource(causal)))


@pytest.mark.parametrize("name", ["EfficientAttention", "WindowAttention", "AFTSimple"])
def test_a_run_leaves_nothing_behind(name: str) -> None:
    case = candidate(name, "self", GRID, SIZES)
    assert case is not None
    x = random_map(GRID, SIZES, CPU)
    before = x.clone()
    run_of(case, GRID, SIZES, CPU, training=True)()
    assert case.mixer.training
    assert all(parameter.grad is None for parameter in case.mixer.parameters())
    out = run_of(case, GRID, SIZES, CPU, training=False)()
    assert isinstance(out, torch.Tensor)
    assert not case.mixer.training
    assert not out.requires_grad
    assert x.grad is None
    assert torch.equal(x, before)


def test_sizes_that_a_mechanism_does_not_take_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"SoftmaxAttention cannot be built with dim=30, heads=4: num_heads=4 does not"
    ):
        candidate("SoftmaxAttention", "self", GRID, Sizes(dim=30))
