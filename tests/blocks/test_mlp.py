"""The perceptron's walk over chunks of tokens: equal to layer after layer, and taken exactly when its rule says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from visionattn.blocks import mlp as module
from visionattn.blocks.mlp import Mlp, chunked_weights
from visionattn.ops import mlp as op
from visionattn.ops.mlp import gelu_mlp


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every map is large, and chunks have four tokens."""
    monkeypatch.setattr(module, "FEWEST_HIDDEN_BYTES", 0)
    monkeypatch.setattr(op, "_CHUNK_BYTES", 4 * 10 * 8 // torch.get_num_threads())


def make(bias: bool = True, drop: float = 0.0) -> Mlp:
    torch.manual_seed(0)
    mlp = Mlp(6, 10, drop).double()
    if not bias:
        mlp.fc1.bias = mlp.fc2.bias = None  # type: ignore[assignment]
    return mlp


def random_map(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer_after_layer(mlp: Mlp, x: Tensor) -> Tensor:
    """With the GELU written out."""
    hidden = F.linear(x, mlp.fc1.weight, mlp.fc1.bias)
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    return F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias)


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (1, 6), (4, 6), (9, 1, 6)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("order", ["channels_last", "channels_first"])
def test_equals_layer_after_layer(shape: tuple[int, ...], bias: bool, adds: bool, order: str) -> None:
    mlp, x, residual = make(bias), random_map(*shape), random_map(*shape, seed=2).requires_grad_()
    if order == "channels_first":
        x = x.movedim(-1, 0).contiguous().movedim(0, -1)
    x.requires_grad_()
    assert chunked_weights(mlp, x) is not None
    out, expected = mlp(x), layer_after_layer(mlp, x)
    if adds:
        out, expected = mlp.add_to(residual, x), residual + expected
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    leaves = [x, *mlp.parameters(), *([residual] if adds else [])]
    w = random_map(*shape, seed=3)
    got, wanted = (torch.autograd.grad((y * w).sum(), leaves) for y in (out, expected))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        evaluated = mlp.add_to(residual, x) if adds else mlp(x)
    torch.testing.assert_close(evaluated, expected, rtol=1e-12, atol=1e-12)


def test_float32_is_as_near_to_float64_as_layer_after_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where oneDNN takes the GELU, and where that is switched off."""
    monkeypatch.setattr(op, "_FUSED_CHUNK_BYTES", 40 * 10 * 4)
    mlp, x, residual = make(), 3 * random_map(300, 6), random_map(300, 6, seed=2)
    with torch.no_grad():
        exact = mlp.add_to(residual, x)
        mlp, x, residual = mlp.float(), x.float(), residual.float()
        plain = residual + mlp.fc2(mlp.act(mlp.fc1(x)))
        answers = [mlp.add_to(residual, x)]
        monkeypatch.setattr(op, "_HAS_FUSED", False)
        answers.append(mlp.add_to(residual, x))
    for answer in answers:
        assert (answer - exact).norm() <= 2 * (plain - exact).norm()


def test_counters_see_every_layer() -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        make().float()(random_map(300, 6).float())
    assert counter.get_total_flops() == 2 * 300 * (6 * 10 + 10 * 6)


def test_gradients_are_those_of_finite_differences() -> None:
    x, residual = random_map(5, 6).requires_grad_(), random_map(5, 6, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(gelu_mlp, (x, *make().parameters(), residual))


def test_only_what_wants_a_gradient_gets_one() -> None:
    mlp, x, residual = make(), random_map(5, 6), random_map(5, 6, seed=2)
    leaves = {"x": x, "residual": residual, **dict(mlp.named_parameters())}
    for leaf in leaves.values():
        leaf.requires_grad_()
    full = dict(zip(leaves, torch.autograd.grad(mlp.add_to(residual, x).square().sum(), leaves.values()), strict=True))
    for wanted in leaves:
        for name, leaf in leaves.items():
            leaf.requires_grad_(name == wanted)
        mlp.add_to(residual, x).square().sum().backward()
        for name, leaf in leaves.items():
            assert (leaf.grad is not None) == (name == wanted), name
        torch.testing.assert_close(leaves[wanted].grad, full[wanted], rtol=1e-12, atol=1e-12)
        leaves[wanted].grad = None


def test_keeps_the_hidden_activations_once() -> None:
    """Layer after layer keeps them before and after the GELU."""
    kept: list[Tensor] = []
    mlp, x = make(), random_map(50, 6).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        mlp(x)
    assert sum(t.shape == (50, 10) for t in kept) == 1


def hook(mlp: Mlp) -> None:
    mlp.act.register_forward_hook(lambda *_: None)


def drop(mlp: Mlp) -> None:
    mlp.drop.p = 0.1


def approximate(mlp: Mlp) -> None:
    mlp.act = nn.GELU("tanh")


def replace(mlp: Mlp) -> None:
    mlp.fc1 = nn.Sequential(mlp.fc1)  # type: ignore[assignment]


@pytest.mark.parametrize("change", [hook, drop, approximate, replace])
def test_layer_after_layer_wherever_something_acts_between(change: Callable[[Mlp], None]) -> None:
    mlp, x = make().train(), random_map(5, 6)
    assert chunked_weights(mlp, x) is not None
    change(mlp)
    assert chunked_weights(mlp, x) is None
    mlp.eval()
    assert (chunked_weights(mlp, x) is not None) == (change is drop)
    if change is not approximate:
        torch.testing.assert_close(mlp(x), layer_after_layer(make(), x), rtol=1e-12, atol=1e-12)


def test_layer_after_layer_wherever_something_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    mlp, x = make(), random_map(5, 6)
    assert chunked_weights(make().bfloat16(), x.bfloat16()) is None
    assert chunked_weights(mlp, x.to("meta")) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert chunked_weights(mlp, x) is None
    torch.testing.assert_close(torch.func.vmap(mlp)(x[:, None])[:, 0], mlp(x), rtol=1e-12, atol=1e-12)
    assert mlp.add_to(x.float(), x).dtype == torch.float64
    monkeypatch.setattr(module, "FEWEST_HIDDEN_BYTES", 5 * 10 * 8)
    assert chunked_weights(mlp, x) is None
    assert chunked_weights(mlp, random_map(6, 6)) is not None
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    assert chunked_weights(mlp, random_map(6, 6)) is None
