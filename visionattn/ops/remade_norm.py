"""Batch norm, a sum and ReLU in one step, whose answer is made again where a backward asks for it.

A convolution keeps what goes in for its backward, and the batch norm before it keeps what goes into that: two tensors
of one size, of which the second gives the first in one pass of multiplications and additions. Within `remaking()` the
first is not kept; whatever would keep it for its backward gets it made again, equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

aten = torch.ops.aten


@contextmanager
def remaking() -> Iterator[None]:
    """While this lasts, no backward keeps an answer of `remade_norm`."""
    recipes = _Recipes()
    token = _current.set(recipes)
    try:
        with saved_tensors_hooks(recipes.pack, _unpacked):
            yield
    finally:
        _current.reset(token)


def is_remaking() -> bool:
    """Whether `remaking()` lasts."""
    return _current.get() is not None


def is_packing() -> bool:
    """Whether somebody's hooks are told what is kept for a backward; within `remaking()` they would not be."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def remade_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    momentum: float,
    eps: float,
    plus: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """`batch_norm(x, training=True) + plus`, with ReLU or without, differentiable once; updates the running numbers.

    Args:
        x: [B, C, *grid], more than one value of each channel.
        weight, bias, running_mean, running_var: [C].
        momentum, eps: as of `batch_norm`.
        plus: as x.
    """
    mean, variance = aten.batch_norm_update_stats(x.detach(), running_mean, running_var, momentum)
    out: Tensor = _RemadeNorm.apply(x, weight, bias, plus, mean, variance, eps, relu)
    recipes = _current.get()
    if recipes is not None:
        added = None if plus is None else recipes.pack(plus)
        recipe = _Recipe(x.detach(), weight.detach(), bias.detach(), mean, variance, eps, added, relu)
        recipes.add(out, recipe)
    return out


class _RemadeNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        plus: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        relu: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, plus if relu else None, mean, variance)
        ctx.eps, ctx.relu, ctx.sums = eps, relu, plus is not None
        return _made(x, weight, bias, mean, variance, eps, plus, relu)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, plus, mean, variance = ctx.saved_tensors
        if ctx.relu:
            out = _made(x, weight, bias, mean, variance, ctx.eps, plus, relu=True)
            grad = aten.threshold_backward.grad_input(grad, out, 0, grad_input=out)
        wanted = ctx.needs_input_grad[:3]
        to_x, to_weight, to_bias = aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, (variance + ctx.eps).rsqrt(), True, ctx.eps, wanted
        )
        return to_x, to_weight, to_bias, grad if ctx.sums else None, None, None, None, None


def _made(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    plus: Tensor | None,
    relu: bool,
) -> Tensor:
    out = torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, eps, False)
    if plus is not None:
        out += plus
    return out.relu_() if relu else out


@dataclass(frozen=True)
class _Kept:
    """A tensor, and how often it had been written to."""

    tensor: Tensor
    version: int

    def made(self) -> Tensor:
        if self.tensor._version != self.version:  # autograd itself looks no more where there are hooks
            raise RuntimeError(
                f"a tensor {list(self.tensor.shape)} that the backward needs was written to after the forward; "
                "call backward before the weights change"
            )
        return self.tensor


@dataclass(frozen=True)
class _Recipe:
    """What an answer of `remade_norm` is made of."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    eps: float
    plus: _Kept | _View | None
    relu: bool

    def made(self) -> Tensor:
        plus = None if self.plus is None else self.plus.made()
        return _made(self.x, self.weight, self.bias, self.mean, self.variance, self.eps, plus, self.relu)


@dataclass(frozen=True)
class _View:
    """A view of an answer."""

    recipe: _Recipe
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    def made(self) -> Tensor:
        return self.recipe.made().as_strided(self.size, self.stride, self.offset)


class _Recipes:
    """The answers of `remade_norm` since `remaking()` began, by their memory."""

    def __init__(self) -> None:
        # A weak reference keeps the address of a memory that is freed from being given to another.
        self._recipes: dict[int, tuple[StorageWeakRef, int, _Recipe]] = {}

    def add(self, answer: Tensor, recipe: _Recipe) -> None:
        storage = answer.untyped_storage()
        self._recipes[storage._cdata] = (StorageWeakRef(storage), answer._version, recipe)  # type: ignore[no-untyped-call]

    def pack(self, tensor: Tensor) -> _Kept | _View:
        """How the tensor is kept for a backward."""
        _, version, recipe = self._recipes.get(tensor.untyped_storage()._cdata, (None, None, None))
        if recipe is None or tensor._version != version:
            return _Kept(tensor, tensor._version)
        return _View(recipe, tensor.shape, tensor.stride(), int(tensor.storage_offset()))


def _unpacked(kept: _Kept | _View) -> Tensor:
    return kept.made()


_current: ContextVar[_Recipes | None] = ContextVar("recipes", default=None)
