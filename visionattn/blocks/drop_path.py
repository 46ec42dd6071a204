"""Stochastic depth (Huang et al., ECCV 2016): a residual branch is left out for single samples while training."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes the whole branch of a sample with probability p and divides by 1 - p otherwise; identity in eval mode.

    Raises:
        ValueError: p is outside [0, 1).
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"drop_path={p} must be at least 0 and below 1; 0 switches it off")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x [B, ...], sample by sample."""
        if self.p == 0.0 or not self.training:
            return x
        keep = 1.0 - self.p
        kept = x.new_empty(len(x), *[1] * (x.dim() - 1)).bernoulli_(keep)
        return x * kept.div_(keep)

    def extra_repr(self) -> str:
        return f"p={self.p}"
