"""The two-layer perceptron of transformer blocks, with timm's parameter names."""

from __future__ import annotations

from torch import Tensor, nn


class Mlp(nn.Module):
    """fc2(GELU(fc1(x))) on the last axis, with dropout after both layers.

    Args:
        dim: channels in and out.
        hidden: channels between.
        drop: dropout probability.
    """

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"an MLP of {hidden} hidden channels computes nothing; raise mlp_ratio (dim={dim})")
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
