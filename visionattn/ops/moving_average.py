"""Damped exponential moving averages along one axis of a map, by FFT (Ma et al., Mega, arXiv 2209.10655, section 3.1).

An average is a convolution as long as the axis itself, whose kernel is a sum of n damped exponentials; the FFT of twice
the length keeps its two ends apart. Two averages along two axes, one after the other, are an average over the plane:
its kernel is the product of theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32, without_autocast


def ema_kernel(weights: Tensor, decay: Tensor, length: int) -> Tensor:
    """sum_n weights_n decay_n^t for t = 0 .. length - 1, [..., C, length], in float32 at least.

    Args:
        weights, decay: [..., C, n]; 0 <= decay < 1.
    """
    with without_autocast(weights.device):
        weights, decay = at_least_float32(weights), at_least_float32(decay)
        steps = torch.arange(length, dtype=decay.dtype, device=decay.device)
        # 0^0 is 1 here, as in a sum that forgets all but its last term; 0 * log 0 would be nan.
        logs = decay.clamp(min=torch.finfo(decay.dtype).tiny).log()
        return (weights[..., None, :] @ (logs[..., None] * steps).exp())[..., 0, :]


def moving_average(x: Tensor, past: Tensor, future: Tensor | None = None, axis: int = 1) -> Tensor:
    """y_t = sum_{s <= t} past[t - s] x_s + sum_{s >= t} future[s - t] x_s along one axis.

    Args:
        x: [B, *grid, C].
        past: [C, L], L the extent of the axis.
        future: [C, L]; None: nothing comes from later positions.
        axis: of x.
    Returns:
        [B, *grid, C], in float32 at least.
    """
    length = x.shape[axis]
    kernel = F.pad(past, (0, length))
    if future is not None:  # around the end of the circle, a step back for each step ahead
        kernel = kernel + F.pad(future.flip(-1), (length, 0)).roll(1, -1)
    with without_autocast(x.device):
        shape = [1] * (x.dim() - 1) + [len(kernel)]
        shape[axis] = length + 1
        response = torch.fft.rfft(kernel).mT.reshape(shape)
        spectrum = torch.fft.rfft(at_least_float32(x), n=2 * length, dim=axis)
        return torch.fft.irfft(spectrum * response, n=2 * length, dim=axis).narrow(axis, 0, length)
