"""Non-local blocks (Wang et al., Non-local Neural Networks, CVPR 2018, equations 2 to 6), without their residual.

Compared with: onedl-mmcv 2.3.6 `mmcv/cnn/bricks/non_local.py`, golden vectors `nonlocal*`.
Differs: the residual, and the zero initialisation that makes it the identity, are the block's; keys can be masked; the
queries may look at another map; the dot product is linear in the tokens; the concatenation form keeps no tensor of
N x M x 2c and can be trained (mmcv's divides in place what autograd saved); `out` and `concat_project` start as
nn.Linear does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import Claims, ContextMixer, check_no_context_mask
from visionattn.attention.token_norm import normalized
from visionattn.ops.non_local import (
    concatenation_attention,
    dot_product_attention,
    gaussian_attention,
    max_pool_mask,
    max_pool_tokens,
)
from visionattn.registry import ATTENTION
from visionattn.typing import Tokens

_PAPER = "Wang et al., CVPR 2018, arXiv 1711.07971"


class NonLocalMixer(ContextMixer):
    """theta of x looks at phi and g of the context; `attend` is what the four forms differ in.

    Args:
        reduction: the inner width is dim // reduction, at least 1.
        sub_sample: max-pools phi and g by 2 along each axis but the depth of a volume; an odd extent loses its last
            token.
        norm: batch normalisation of the output, inside the formula as in mmcv; masked tokens stay out of its statistics
            and are answered with 0 in training. Its weight, not `out`, is what mmcv zeroes to start as the identity.
    Raises:
        ValueError: reduction is below 1.
    """

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        reduction: int = 2,
        sub_sample: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__(dim, grid)
        if reduction < 1:
            raise ValueError(f"reduction={reduction} must be 1 or more; the inner width is dim // reduction")
        self.inner_dim = max(dim // reduction, 1)
        self.sub_sample = sub_sample
        self.theta, self.phi = self._embeddings()
        self.g = _embedding(dim, self.inner_dim)
        self.out = nn.Linear(self.inner_dim, dim, bias=not norm)
        self.norm = nn.BatchNorm1d(dim) if norm else None

    def check_prefix_tokens(self) -> None:
        if self.sub_sample:
            self.refuse_prefix_tokens()
        super().check_prefix_tokens()

    def _embeddings(self) -> tuple[nn.Module, nn.Module]:
        """theta and phi."""
        return _embedding(self.dim, self.inner_dim), _embedding(self.dim, self.inner_dim)

    @abstractmethod
    def attend(self, theta: Tensor, phi: Tensor, g: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attended values [B, N, E] of theta [B, N, D], phi [B, M, D], g [B, M, E]; mask [B, M], True = real."""

    def forward(  # type: ignore[override]  # positional order: the context comes before the masks
        self,
        x: Tokens,
        context: Tokens | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tokens:
        self.check_map(x, mask)
        if context is None:
            check_no_context_mask(self, context_mask)
            context, key_mask = x, mask
        else:
            self.check_context(x, context, context_mask)
            key_mask = context_mask
        phi, g = self.phi(context), self.g(context)
        if self.sub_sample:
            phi, g = max_pool_tokens(phi, key_mask), max_pool_tokens(g, key_mask)
            key_mask = None if key_mask is None else max_pool_mask(key_mask)
        attended = self.attend(
            self.theta(x).flatten(1, -2),
            phi.flatten(1, -2),
            g.flatten(1, -2),
            None if key_mask is None else key_mask.flatten(1),
        )
        out = self.out(attended)
        if self.norm is not None:
            out = normalized(self.norm, out, None if mask is None else mask.flatten(1))
        return out.reshape(x.shape)


@ATTENTION.register_module()
class NonLocal(NonLocalMixer):
    """Embedded Gaussian: softmax(theta^T phi) g, the form most networks use.

    Args:
        use_scale: divides theta^T phi by the root of the inner width, as mmcv does; the paper's equation 3 does not.
    """

    claims = Claims(paper=_PAPER, cost="N^2", permutation_equivariant=True, convex=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        reduction: int = 2,
        use_scale: bool = True,
        sub_sample: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__(dim, grid, reduction=reduction, sub_sample=sub_sample, norm=norm)
        self.scale = self.inner_dim**-0.5 if use_scale else 1.0

    def attend(self, theta: Tensor, phi: Tensor, g: Tensor, mask: Tensor | None = None) -> Tensor:
        return gaussian_attention(theta, phi, g, mask, scale=self.scale)


@ATTENTION.register_module()
class NonLocalGaussian(NonLocalMixer):
    """Gaussian: softmax(x^T x) g on the raw channels, no theta and phi."""

    claims = Claims(paper=_PAPER, cost="N^2", permutation_equivariant=True, convex=True)

    def _embeddings(self) -> tuple[nn.Module, nn.Module]:
        return nn.Identity(), nn.Identity()

    def attend(self, theta: Tensor, phi: Tensor, g: Tensor, mask: Tensor | None = None) -> Tensor:
        return gaussian_attention(theta, phi, g, mask)


@ATTENTION.register_module()
class NonLocalDotProduct(NonLocalMixer):
    """Dot product: theta^T phi g / M, M being the number of keys; no softmax, hence linear in the tokens."""

    claims = Claims(paper=_PAPER, cost="N", permutation_equivariant=True)

    def attend(self, theta: Tensor, phi: Tensor, g: Tensor, mask: Tensor | None = None) -> Tensor:
        return dot_product_attention(theta, phi, g, mask)


@ATTENTION.register_module()
class NonLocalConcatenation(NonLocalMixer):
    """Concatenation: relu(w^T [theta, phi]) g / M, the pairwise function of relation networks."""

    claims = Claims(paper=_PAPER, cost="N^2", permutation_equivariant=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        reduction: int = 2,
        sub_sample: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__(dim, grid, reduction=reduction, sub_sample=sub_sample, norm=norm)
        self.concat_project = nn.Linear(2 * self.inner_dim, 1, bias=False)

    def attend(self, theta: Tensor, phi: Tensor, g: Tensor, mask: Tensor | None = None) -> Tensor:
        for_theta, for_phi = self.concat_project.weight.chunk(2, dim=1)
        return concatenation_attention(
            F.linear(theta, for_theta).squeeze(-1), F.linear(phi, for_phi).squeeze(-1), g, mask
        )


def _embedding(dim: int, inner_dim: int) -> nn.Linear:
    """A projection that starts as published: normal with standard deviation 0.01, no offset."""
    projection = nn.Linear(dim, inner_dim)
    nn.init.normal_(projection.weight, std=0.01)
    nn.init.zeros_(projection.bias)
    return projection
