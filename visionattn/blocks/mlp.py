"""The two-layer perceptron of transformer blocks, with timm's parameter names."""

from __future__ import annotations

from torch import Tensor, nn

from visionattn.attention.shortcut import plain_pair, takes_shortcuts, unobserved
from visionattn.ops.mlp import gelu_mlp

FEWEST_HIDDEN_BYTES = 8 * 2**20
"""Up to this much of hidden activations, whole maps are as fast as chunks (measured for 96 to 768 channels)."""


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
        weights = chunked_weights(self, x)
        if weights is not None:
            return gelu_mlp(x, *weights)
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """residual + self(x): the block's sum, in the walk over the map where there is one."""
        weights = chunked_weights(self, x) if unobserved(self) and type(residual) is type(x) else None
        if weights is None or residual.dtype != x.dtype:
            return residual + self(x)
        return gelu_mlp(x, *weights, residual)


def chunked_weights(mlp: Mlp, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None] | None:
    """Weights and biases of an `Mlp` that walks over x in chunks of tokens; None where it may not, or need not.

    All of these must hold (`ops/mlp.py` is the form):
    - the environment does not say VISIONATTN_KERNELS=off;
    - x is on the CPU, float32 or float64, with more than `FEWEST_HIDDEN_BYTES` of hidden activations;
    - eager mode: no autocast, torch.compile, export, tracing, torch.func transform or forward-mode derivative;
    - fc1 and fc2 are exactly nn.Linear and act the exact nn.GELU, without hooks, parametrisations or wrappers, and no
      dropout is at work.
    """
    fc1, act, fc2, drop = mlp.fc1, mlp.act, mlp.fc2, mlp.drop
    if not (
        takes_shortcuts(x)
        and type(fc1) is nn.Linear
        and x.numel() // x.shape[-1] * fc1.out_features * x.element_size() > FEWEST_HIDDEN_BYTES
        and type(act) is nn.GELU
        and act.approximate == "none"
    ):
        return None
    return plain_pair(fc1, fc2, drop, x.dtype, act)
