"""What a mechanism cannot take is refused where it comes in, and every size of map is taken; over the registry."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from visionattn.attention.base import ContextMixer, SameGridMixer, TokenMixer
from visionattn.attention.build import attention_class, build_attention, list_attention
from visionattn.blocks import AttentionPlugin
from visionattn.blocks.cross_view import CrossViewBlock

DIM = 16
GRID = (4, 6)
NAMES = list_attention()


def having(option: str) -> list[str]:
    return [name for name in NAMES if option in inspect.signature(attention_class(name).__init__).parameters]


def is_context(name: str) -> bool:
    return issubclass(attention_class(name), ContextMixer)


def random_map(*grid: int, seed: int = 0) -> Tensor:
    return torch.randn(2, *grid, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(name: str) -> TokenMixer:
    torch.manual_seed(0)
    return build_attention(name, DIM, GRID).double()


every_mechanism = pytest.mark.parametrize("name", NAMES)


def test_the_registry_was_found() -> None:
    assert len(NAMES) >= 38
    assert len(having("num_heads")) >= 20
    assert len(having("proj_drop")) >= 30


@every_mechanism
def test_a_misspelt_option_is_named_by_the_host_too(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name} has no option 'proj_dorp'.*it has "):
        AttentionPlugin(DIM, {"type": name, "proj_dorp": 0.1}, GRID)


@every_mechanism
def test_without_a_grid_it_says_so_or_needs_none(name: str) -> None:
    try:
        mixer = build_attention(name, DIM).double()
    except ValueError:
        with pytest.raises(ValueError, match=rf"^{name} .*give it (a grid|one), such as grid=\(32, 32\)"):
            build_attention(name, DIM)
        return
    for grid in (GRID, (5, 3)):
        assert mixer(random_map(*grid)).shape == (2, *grid, DIM)


@every_mechanism
def test_a_context_is_looked_at_or_refused(name: str) -> None:
    mixer, x, other = made(name), random_map(*GRID), random_map(3, 5, seed=1)
    if is_context(name):
        if issubclass(attention_class(name), SameGridMixer):
            with pytest.raises(ValueError, match=rf"{name} .*x has \(4, 6\), the context \(3, 5\); resize"):
                mixer(x, other)
            other = random_map(*GRID, seed=1)
        assert not torch.equal(mixer(x, other), mixer(x))
        with pytest.raises(ValueError, match=r"expects context of shape .*, got \[2, 16\]"):
            mixer(x, other.flatten(1, -2)[:, 0])
        return
    with pytest.raises(TypeError, match=rf"{name} cannot look at another map: leave out the context, or take"):
        mixer(x, context=other)
    assert torch.equal(mixer.eval()(x, context=None), mixer(x))
    with pytest.raises(ValueError, match="expects a bool mask"):
        mixer(x, other)  # in the place of a ContextMixer's context stands the mask
    with pytest.raises(TypeError, match=rf"{name} cannot look at another map; between two views, use one of "):
        CrossViewBlock(DIM, name, GRID, rows=False)


@pytest.mark.parametrize("name", having("num_heads"))
@pytest.mark.parametrize("heads", [3, 0, -2, 17])
def test_heads_that_do_not_divide_are_named(name: str, heads: int) -> None:
    with pytest.raises(ValueError, match=rf"num_heads={heads}\b|num_heads={2 * heads}\b"):
        build_attention({"type": name, "num_heads": heads}, DIM, GRID)


OF_ANOTHER_KIND = {
    "int": ["3", 2.0, (3,), True],
    "float": ["0.5", (1,), False],
    "bool": ["no", 1, 0.0],
}


@every_mechanism
def test_an_option_of_another_kind_is_named(name: str) -> None:
    """Every option that its signature calls a number or a truth value; None where it is not among what is allowed."""
    seen = 0
    for option, parameter in inspect.signature(attention_class(name).__init__).parameters.items():
        kind, _, none = str(parameter.annotation).partition(" | ")
        if option == "dim" or kind not in OF_ANOTHER_KIND:
            continue
        wrong = OF_ANOTHER_KIND[kind] + ([] if none == "None" else [None])
        for value in wrong:
            described = {"int": "no whole number", "float": "no number", "bool": "neither True nor False"}[kind]
            with pytest.raises(TypeError, match=rf"^{option}={re.escape(repr(value))} is {described}; write {option}="):
                build_attention({"type": name, option: value}, DIM, GRID)
        if kind == "float":
            with pytest.raises(ValueError, match=rf"^{option}=nan leads to nothing but nan; write {option}="):
                build_attention({"type": name, option: math.nan}, DIM, GRID)
        seen += 1
    assert seen, "no option was looked at"


def test_numpy_numbers_are_numbers() -> None:
    options = {"num_heads": np.int64(4), "temperature": np.float32(2), "qkv_bias": np.bool_(False)}
    mixer = build_attention({"type": "EfficientAttention", **options}, DIM)
    same = build_attention({"type": "EfficientAttention", "num_heads": 4, "temperature": 2.0, "qkv_bias": False}, DIM)
    same.load_state_dict(mixer.state_dict())
    x = random_map(*GRID).float()
    assert torch.equal(mixer(x), same(x))


def test_a_mechanism_of_somebody_else_is_held_to_its_signature() -> None:
    class Mine(attention_class("SoftmaxAttention")):  # type: ignore[misc]
        def __init__(self, dim: int, grid: Sequence[int] | None = None, *, gain: float = 1.0) -> None:
            super().__init__(dim, grid, num_heads=2)
            self.gain = gain

    assert Mine(DIM, gain=2).gain == 2
    with pytest.raises(TypeError, match=r"^gain='much' is no number; write gain=1\.0, without quotes$"):
        Mine(DIM, gain="much")
    with pytest.raises(TypeError, match=r"Mine\.__init__\(\) got an unexpected keyword argument 'gian'"):
        Mine(DIM, gian=2)


@every_mechanism
def test_a_map_without_a_token_is_named_and_an_empty_batch_is_taken(name: str) -> None:
    mixer = made(name).eval()
    with pytest.raises(ValueError, match=rf"^{name} got x of shape \[2, 0, 6, 16\], which has no token"):
        mixer(random_map(0, 6))
    assert mixer(random_map(*GRID)[:0]).shape == (0, *GRID, DIM)
    if is_context(name):
        with pytest.raises(ValueError, match=rf"^{name} got context of shape \[2, 4, 0, 16\], which has no token"):
            mixer(random_map(*GRID), random_map(4, 0))


@pytest.mark.parametrize("name", having("proj_drop"))
def test_a_dropout_that_is_no_probability_is_named(name: str) -> None:
    for drop in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"proj_drop={drop} is no probability; use a number from 0 to 1"):
            build_attention({"type": name, "proj_drop": drop}, DIM, GRID)


@every_mechanism
@pytest.mark.parametrize("grid", [(1, 1), (1, 13), (11, 1), (3, 17)], ids=str)
def test_no_size_of_map_loses_a_token(name: str, grid: tuple[int, int]) -> None:
    """Sizes that no window, bucket or segment fits, larger and smaller than those that it is made for."""
    assert 2 in attention_class(name).grid_dims, "give this test the grids of this mechanism"
    mixer, x = made(name).eval(), random_map(*grid).requires_grad_()
    out = mixer(x)
    assert out.shape == x.shape
    assert out.isfinite().all()
    out.square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().amax(-1) > 0).all(), "a token got no gradient"


@every_mechanism
@pytest.mark.parametrize("grid", [7, (4, -1), (4, 0), (4.0, 4), (), (2, 2, 2, 2), "44"], ids=str)
def test_a_grid_that_is_none_is_named(name: str, grid: object) -> None:
    kind = TypeError if grid == 7 else ValueError
    with pytest.raises(kind, match=r"^grid=.* must hold one integer .*per axis of the grid.*\(7, 7\)"):
        build_attention(name, DIM, grid)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["key_dim", "value_dim", "hidden_dim", "reduction"])
@pytest.mark.parametrize("width", [0, -8])
def test_a_width_of_nothing_is_named(option: str, width: int) -> None:
    assert having(option)
    for name in having(option):
        with pytest.raises(ValueError, match=rf"^{option}={width} must be "):
            build_attention({"type": name, option: width}, DIM, GRID)
