"""What of an attention matrix reaches the output (Brunner et al., On Identifiability in Transformers, ICLR 2020).

Two matrices with the same product A T cannot be told apart by who reads A T alone, T being the values behind the output
projection. Effective attention takes from each row what T annuls, its part in the left null space of T: what is left is
the shortest row with that output. Its rows do not sum to 1 and may be negative.

Compared with: the equation, golden vectors `derived_effective_attention_*`; no official code could be run.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.precision import without_autocast


def effective_attention(weights: Tensor, values: Tensor) -> Tensor:
    """weights without their part in the left null space of the values: A U U^T, T = U S W^T of rank r.

    Computed in float64, differentiable in the weights.

    Args:
        weights: A [..., N, M].
        values: T [..., M, E]: what the weights multiply, output projection included.
    Returns:
        [..., N, M], in the dtype of weights.
    Raises:
        ValueError: shapes that do not multiply.
    """
    _check(weights, values)
    with without_autocast(weights.device):
        basis = _range_of(values)
        return (weights.double() @ basis @ basis.mT).to(weights.dtype)


def shortest_distribution(weights: Tensor, values: Tensor, *, tolerance: float = 1e-9, most_steps: int = 200) -> Tensor:
    """Of all rows of probabilities with the output of `weights`, the shortest: our own, no paper's.

    The effective attention is the shortest row with that output; this is the shortest among those that are not
    negative and sum to 1, hence the nearest such row to it. Naim and Asher (arXiv 2410.18541) ask for such rows as
    well; their algorithm could not be read, and this is not said to be it. Each row is the solution of a quadratic
    programme, found by Newton's method on its dual in float64: max(W u, 0), W spanning what must be kept.

    Args:
        weights: [..., N, M], rows of probabilities.
        values: [..., M, E], as of `effective_attention`.
        tolerance: largest error of what must be kept, W^T p.
        most_steps: of Newton's method.
    Returns:
        [..., N, M], in the dtype of weights.
    Raises:
        ValueError: shapes that do not multiply, or rows of weights that are no probabilities.
        RuntimeError: the tolerance was not reached.
    """
    _check(weights, values)
    sums = weights.double().sum(-1)
    if (weights < 0).any() or (sums - 1).abs().max() > 1e-4:
        raise ValueError("shortest_distribution needs rows of probabilities: none below 0, each with a sum of 1")
    with without_autocast(weights.device), torch.no_grad():
        rows = weights.double() / sums[..., None]
        ones = rows.new_ones(*values.shape[:-1], 1)
        kept = _range_of(torch.cat([_range_of(values), ones], dim=-1))  # [..., M, r]
        return _solved(rows, kept, tolerance, most_steps).to(weights.dtype)


def _solved(rows: Tensor, kept: Tensor, tolerance: float, most_steps: int) -> Tensor:
    """max(kept u, 0) with kept^T max(kept u, 0) = kept^T row: the minimum of |max(kept u, 0)|^2 / 2 - u kept^T row."""
    wanted = rows @ kept  # [..., N, r]
    dual = wanted.clone()  # at the effective attention
    eye = torch.eye(kept.shape[-1], dtype=kept.dtype, device=kept.device)

    def objective(u: Tensor) -> Tensor:
        return (u @ kept.mT).clamp(min=0).square().sum(-1) / 2 - (u * wanted).sum(-1)

    for _ in range(most_steps):
        point = dual @ kept.mT
        gradient = point.clamp(min=0) @ kept - wanted
        if gradient.abs().max() <= tolerance:
            return point.clamp(min=0)
        active = (point > 0).to(kept.dtype)
        curvature = torch.einsum("...mr,...nm,...ms->...nrs", kept, active, kept)
        step = -torch.linalg.solve(curvature + 1e-10 * eye, gradient[..., None])[..., 0]
        # The dual is convex but has kinks: a step is halved until it goes down as far as its slope says.
        slope, now = (gradient * step).sum(-1), objective(dual)
        length = torch.ones_like(slope)
        for _ in range(40):
            too_far = objective(dual + length[..., None] * step) > now + 1e-4 * length * slope + 1e-18
            if not too_far.any():
                break
            length = torch.where(too_far, length / 2, length)
        dual = dual + length[..., None] * step
    error = float(gradient.abs().max())
    raise RuntimeError(f"{most_steps} steps left an error of {error:.1e}, above {tolerance:.1e}; raise either")


def _range_of(values: Tensor) -> Tensor:
    """An orthonormal basis [..., M, K] of the columns' span in float64; columns of zeros beyond the rank."""
    left, sizes, _ = torch.linalg.svd(values.double(), full_matrices=False)
    floor = max(values.shape[-2:]) * torch.finfo(torch.float64).eps * sizes[..., :1]
    return left * (sizes > floor)[..., None, :]


def _check(weights: Tensor, values: Tensor) -> None:
    if weights.dim() < 2 or values.dim() < 2 or weights.shape[-1] != values.shape[-2]:
        raise ValueError(
            f"expected weights [..., N, M] and values [..., M, E], got {list(weights.shape)} and {list(values.shape)}"
        )
