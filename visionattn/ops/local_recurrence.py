"""A recurrent network run afresh over the window before every position (Wang et al., R-Transformer, arXiv 1907.05572).

All windows take their steps together, so that there are as many steps as a window is long; what a position gives to the
gates is computed once, not once for every window that holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32

Step = Callable[[Tensor, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""The next state of what the input gives, what the hidden state gives, [..., gates * C] both, and the state."""


class Recurrence(NamedTuple):
    """A cell's tensors, as `torch.nn.GRU` and its like have them."""

    weight_ih: Tensor  # [gates * C, C]
    weight_hh: Tensor  # [gates * C, C]
    bias_ih: Tensor  # [gates * C]
    bias_hh: Tensor  # [gates * C]


class Cell(NamedTuple):
    """What kind of network it is.

    Attributes:
        gates: blocks of rows in its tensors.
        states: tensors of its state; the hidden one is the first.
    """

    gates: int
    states: int
    step: Step


def local_recurrence(x: Tensor, tensors: Recurrence, cell: Cell, window: int) -> Tensor:
    """The last hidden state of a run over x_{t - window + 1}, .., x_t, from zeros, for every t; zeros stand before x_0.

    Args:
        x: [..., L, C].
        window: 1 or more.
    Returns:
        [..., L, C], in float32 at least.
    """
    length = x.shape[-2]
    given = F.linear(x, tensors.weight_ih, tensors.bias_ih)
    before = tensors.bias_ih.to(given.dtype).expand(*x.shape[:-2], window - 1, -1)  # what a token of zeros gives
    given = at_least_float32(torch.cat([before, given], dim=-2))
    zeros = given.new_zeros(x.shape)
    state: tuple[Tensor, ...] = (zeros,) * cell.states
    for start in range(window):
        taken = F.linear(state[0].to(tensors.weight_hh.dtype), tensors.weight_hh, tensors.bias_hh)
        state = cell.step(given.narrow(-2, start, length), at_least_float32(taken), state)
    return state[0]


def gru_step(given: Tensor, taken: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """torch.nn.GRU's: gates in the order reset, update, new; the reset acts on what the hidden state gives."""
    (hidden,) = state
    reset, update, new = given.chunk(3, dim=-1)
    own_reset, own_update, own_new = taken.chunk(3, dim=-1)
    update = (update + own_update).sigmoid()
    new = (new + (reset + own_reset).sigmoid() * own_new).tanh()
    return (new + update * (hidden - new),)


def lstm_step(given: Tensor, taken: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """torch.nn.LSTM's: gates in the order input, forget, cell, output."""
    enter, forget, new, leave = (given + taken).chunk(4, dim=-1)
    cell = forget.sigmoid() * state[1] + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * cell.tanh(), cell


def tanh_step(given: Tensor, taken: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """torch.nn.RNN's."""
    return ((given + taken).tanh(),)


GRU, LSTM, RNN = Cell(3, 1, gru_step), Cell(4, 2, lstm_step), Cell(1, 1, tanh_step)
