"""Exact algebraic shortcuts: what a mechanism may offer its block, and what must hold before one is taken.

A shortcut reads weights instead of calling the modules that own them, and brings its own backward. Whoever watches,
changes or traces those modules would be passed over, so none of them may be there.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as global_hooks

from visionattn.attention.base import TokenMixer
from visionattn.ops.kernels.dispatch import kernels_allowed as kernels_allowed  # one switch for every exact form
from visionattn.typing import Tokens

_ORDINARY = (Tensor, nn.Parameter)
_DTYPES = (torch.float32, torch.float64)
_is_compiling, _tracing_state = torch.compiler.is_compiling, torch._C._get_tracing_state
_is_autocast_enabled = torch.is_autocast_enabled
_are_functorch_transforms_active = torch._C._are_functorch_transforms_active  # what autograd.Function.apply itself asks


class ResidualMixer(TokenMixer):
    """A mixer that can add its answer to a map in the walk over it that it makes anyway."""

    @abstractmethod
    def add_to(self, residual: Tokens, x: Tokens, scale: Tensor | None = None, mask: Tensor | None = None) -> Tokens:
        """residual + scale * self(x): the block's sum, which stays the block's to ask for.

        Args:
            residual: [B, *grid, C]; x itself where the block has no norm.
            x: [B, *grid, C].
            scale: [C]; None is 1.
            mask: [B, *grid] bool, True where a token is real; None if all are.
        Returns:
            [B, *grid, C], in the dtype of residual.
        """


def runs_eagerly() -> bool:
    """Nothing compiles, exports or traces what is being computed."""
    return not _is_compiling() and _tracing_state() is None


def is_ordinary(x: Tensor) -> bool:
    """x is no subclass of Tensor, and no torch.func transform, forward-mode derivative or autocast is at work."""
    return (
        type(x) in _ORDINARY
        and not _is_autocast_enabled("cpu" if x.is_cpu else x.device.type)
        and not _are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def takes_shortcuts(x: Tensor) -> bool:
    """Whether a shortcut on the CPU may be taken for x at all.

    Float32 or float64, `runs_eagerly`, `is_ordinary` and `kernels_allowed` in one function: after a product of matrices
    has filled the caches, every call of another function costs several microseconds.
    """
    return (
        x.is_cpu
        and x.dtype in _DTYPES
        and type(x) in _ORDINARY
        and not _is_compiling()
        and _tracing_state() is None
        and not _is_autocast_enabled("cpu")
        and not _are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and kernels_allowed()
    )


def unobserved(*modules: nn.Module) -> bool:
    """No hook, of their own or global, and no replaced `forward` would notice that the modules are not called."""
    for module in modules:
        if (
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
            or "forward" in vars(module)
        ):
            return False
    return not global_hooks._has_any_global_hook()  # type: ignore[no-untyped-call]


def plain_weights(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a module that is exactly nn.Linear with ordinary parameters; else None.

    Subclasses, parametrisations and wrappers are none. Read from the module's own table: its attributes cost a Python
    call each.
    """
    if type(module) is not nn.Linear:
        return None
    parameters = module._parameters
    weight, bias = parameters.get("weight"), parameters.get("bias", False)
    if type(weight) in _ORDINARY and (bias is None or type(bias) in _ORDINARY):
        return weight, bias  # type: ignore[return-value]
    return None


def plain_pair(
    first: nn.Module, last: nn.Module, dropout: nn.Module, dtype: torch.dtype, *passed_over: nn.Module
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None] | None:
    """Weights and biases of two layers of which the calls may be left out, of the dropout's and of `passed_over`, too.

    The layers as `plain_weights` has them, with parameters of this dtype; the dropout changes nothing now; nothing
    observes any of them. In one function for the reason that `takes_shortcuts` gives.
    """
    if type(first) is not nn.Linear or type(last) is not nn.Linear or type(dropout) is not nn.Dropout:
        return None
    if (dropout.training and dropout.p > 0) or not unobserved(first, last, dropout, *passed_over):
        return None
    before, after = first._parameters, last._parameters
    weight, bias = before.get("weight"), before.get("bias", False)
    last_weight, last_bias = after.get("weight"), after.get("bias", False)
    if (
        type(weight) in _ORDINARY
        and type(last_weight) in _ORDINARY
        and (bias is None or type(bias) in _ORDINARY)
        and (last_bias is None or type(last_bias) in _ORDINARY)
        and weight.dtype == last_weight.dtype == dtype  # type: ignore[union-attr]
    ):
        return weight, bias, last_weight, last_bias  # type: ignore[return-value]
    return None
