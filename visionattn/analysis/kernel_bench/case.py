"""What is measured: an equation at one size, and the forms in which it is computed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Inputs = Callable[[int, torch.Generator], tuple[Tensor, ...]]
"""The tensors of a case for so many images, in its dtype, where the generator draws."""

_SWITCH = "VISIONATTN_KERNELS"


@dataclass(frozen=True)
class Form:
    """One way to compute a case's answer.

    Attributes:
        name: beside its figures.
        module: takes the case's inputs.
        own: with our kernels and exact forms; all others run in plain PyTorch.
        same: the case's equation: its answer is compared. False for what answers another question at its price.
        truth: what it is compared with; the case's own module if None.
    """

    name: str
    module: nn.Module
    own: bool = False
    same: bool = True
    truth: nn.Module | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        with _switched(on=self.own):
            return self.module(*inputs)

    def learned(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]


@dataclass(frozen=True)
class Case:
    """An equation at one size.

    Attributes:
        family: the name that it is asked for by.
        size: in words.
        batch: images.
        dtype: of inputs and weights.
        inputs: draws them.
        forms: makes them on a device; the first is ours.
        smallest: of its family and device.
    """

    family: str
    size: str
    batch: int
    dtype: torch.dtype
    inputs: Inputs
    forms: Callable[[torch.device], Sequence[Form]]
    smallest: bool = False

    def __str__(self) -> str:
        return f"{self.family}, {self.size}, {str(self.dtype).removeprefix('torch.')}"


Peer = Callable[[nn.Module, torch.Size], Form | None]
"""A form of another package, with the weights of ours, for a first input of this shape; None where that would take too
long or too much memory. ImportError without the package."""


@dataclass(frozen=True)
class Family:
    """The cases of one name.

    Attributes:
        about: one line for the docs and the command's help.
        cases: by the type of a device, the smaller ones first.
        peers: by name.
    """

    about: str
    cases: Callable[[str], list[Case]]
    peers: Mapping[str, Peer] = field(default_factory=dict)


class Function(nn.Module):
    """A function of tensors as a form without weights."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def normal(*shape: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Normally distributed numbers where the generator draws."""
    return torch.randn(shape, generator=generator, device=generator.device).to(dtype)


@contextmanager
def _switched(*, on: bool) -> Iterator[None]:
    """Our kernels and exact forms as the environment says, or off."""
    before = os.environ.get(_SWITCH)
    if not on:
        os.environ[_SWITCH] = "off"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_SWITCH, None)
        else:
            os.environ[_SWITCH] = before
