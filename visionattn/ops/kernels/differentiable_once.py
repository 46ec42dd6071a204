"""The ops of this package have one derivative; who asks for the next one is told so, and the way out."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch._library.custom_ops import CustomOpDef


def differentiable_once(backward: CustomOpDef) -> None:
    """To ask for derivatives of this op, the backward of another, is an error that names the other and the way out."""
    name = backward._qualname.removesuffix("_backward")

    def refuse(ctx: Any, *grads: Tensor | None) -> None:
        raise RuntimeError(
            f"{name} is differentiable once; with VISIONATTN_KERNELS=off in the environment PyTorch's own operations "
            "take its place"
        )

    backward.register_autograd(refuse)
