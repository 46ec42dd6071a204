"""Comparison of a mechanism with its equations written as plain loops over tokens, in float64: output and gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

Parameters = dict[str, Tensor]


def tensor(*shape: int, seed: int = 0) -> Tensor:
    """Seeded N(0, 1) numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_mask(*shape: int, seed: int = 0) -> Tensor:
    """A seeded mask, two thirds of it real; the first and the last position of every batch item differ."""
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 2 / 3
    mask.flatten(1)[:, 0], mask.flatten(1)[:, -1] = True, False
    return mask


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64, every parameter N(0, 1 / fan_in): neither zeros nor a small start hide an error."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            numbers = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            parameter.copy_(numbers / math.sqrt(parameter.shape[-1]))
    return module


def positions(grid: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every position of a grid, row-major."""
    return itertools.product(*map(range, grid))


def linear(parameters: Parameters, name: str, token: Tensor) -> Tensor:
    """name.weight @ token + name.bias (if there is one), for one token [C]."""
    out = parameters[f"{name}.weight"] @ token
    return out + parameters[f"{name}.bias"] if f"{name}.bias" in parameters else out


def softmax(logits: list[Tensor]) -> list[Tensor]:
    """exp(logit) / sum of all of them."""
    exponentials = [logit.exp() for logit in logits]
    total = sum(exponentials, torch.zeros((), dtype=torch.float64))
    return [exponential / total for exponential in exponentials]


def assert_equals_naive(
    module: nn.Module, naive: Callable[..., Tensor], inputs: dict[str, Tensor | None], tol: float = 1e-10
) -> None:
    """module(**inputs) and naive(parameters, **inputs) agree within tol, as do all gradients of a random scalar.

    Args:
        module: in float64.
        naive: takes the module's parameters by name, then the inputs by name.
        inputs: by the name of the module's argument; gradients are compared for those that are floating.
        tol: largest |ours - naive| / max(1, largest |naive|).
    """
    ours = _run(lambda leaves, kwargs: functional_call(module, leaves, kwargs=kwargs), module, inputs)
    theirs = _run(lambda leaves, kwargs: naive(leaves, **kwargs), module, inputs)
    assert ours["output"].shape == theirs["output"].shape
    assert ours["output"].abs().max() > 1e-3, "the case is trivial: there is nothing to compare"
    scales = {name: max(1.0, expected.abs().max().item()) for name, expected in theirs.items()}
    errors = {name: (ours[name] - expected).abs().max().item() / scales[name] for name, expected in theirs.items()}
    worst = {name: error for name, error in errors.items() if not error <= tol}
    assert not worst, f"{worst} exceed {tol}"


def _run(
    function: Callable[[Parameters, dict[str, Tensor | None]], Tensor],
    module: nn.Module,
    inputs: dict[str, Tensor | None],
) -> dict[str, Tensor]:
    """The output and, by name, the gradient of every parameter and every floating input."""
    leaves = {name: parameter.detach().clone().requires_grad_() for name, parameter in module.named_parameters()}
    kwargs = {
        name: t.clone().requires_grad_() if t is not None and t.is_floating_point() else t for name, t in inputs.items()
    }
    wanted = leaves | {name: t for name, t in kwargs.items() if t is not None and t.requires_grad}
    out = function(leaves, kwargs)
    weights = tensor(*out.shape, seed=99)
    grads = torch.autograd.grad((out * weights).sum(), list(wanted.values()), allow_unused=True)
    return {"output": out.detach()} | {
        f"gradient of {name}": torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(wanted.items(), grads, strict=True)
    }
