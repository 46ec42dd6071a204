"""Transformer blocks around any mechanism, on channels-last maps, with the parameter names of timm's blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from visionattn.attention.build import build_attention
from visionattn.attention.shortcut import ResidualMixer, runs_eagerly, unobserved
from visionattn.blocks.drop_path import DropPath
from visionattn.blocks.layer_scale import LayerScale
from visionattn.blocks.mlp import Mlp
from visionattn.registry import MODELS
from visionattn.typing import AttentionConfig, Tokens


@MODELS.register_module()
class TransformerBlock(nn.Module):
    """Pre-norm: x + attn(norm1(x)), then x + mlp(norm2(x)).

    Args:
        dim: channels C of the map.
        attention: a mechanism's name or config.
        grid: where position-bound parameters are learned; a `grid` in the attention's config serves as well.
        mlp_ratio: hidden channels of the MLP over dim.
        mlp_drop: dropout inside the MLP.
        drop_path: probability of leaving out a branch for a sample while training.
        layer_scale: first value of a learned gain per channel on both branches; None is without.
        norm_eps: 1e-5 is Swin's, 1e-6 is ViT's in timm.
    Raises:
        KeyError, TypeError, ValueError: as `build_attention`; ValueError for a drop_path outside [0, 1).
    """

    def __init__(
        self,
        dim: int,
        attention: AttentionConfig,
        grid: Sequence[int] | None = None,
        *,
        mlp_ratio: float = 4.0,
        mlp_drop: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = build_attention(attention, dim, grid)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), mlp_drop)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tokens, mask: Tensor | None = None) -> Tokens:
        """The map after attention and MLP.

        Args:
            x: [B, *grid, C].
            mask: [B, *grid] bool, True where a token is real; None if all are.
        """
        attn, mlp = self.attn, self.mlp
        if isinstance(attn, ResidualMixer) and _does_nothing(self.ls1, self.drop_path1):
            x = attn.add_to(x, self.norm1(x), mask=mask)
        else:
            x = x + self.drop_path1(self.ls1(attn(self.norm1(x), mask=mask)))
        if isinstance(mlp, Mlp) and _does_nothing(self.ls2, self.drop_path2):
            return mlp.add_to(x, self.norm2(x))
        return x + self.drop_path2(self.ls2(mlp(self.norm2(x))))


@MODELS.register_module()
class ResPostNormTransformerBlock(nn.Module):
    """Swin V2's residual post-norm: x + norm1(attn(x)), then x + norm2(mlp(x)) (Liu et al., CVPR 2022, section 3.2).

    Args:
        dim: channels C of the map.
        attention: a mechanism's name or config.
        grid: where position-bound parameters are learned; a `grid` in the attention's config serves as well.
        mlp_ratio: hidden channels of the MLP over dim.
        mlp_drop: dropout inside the MLP.
        drop_path: probability of leaving out a branch for a sample while training.
        norm_eps: epsilon of both norms.
        zero_init: the norms' weights start at zero, and with them the block as the identity: Swin V2's own start.
    Raises:
        KeyError, TypeError, ValueError: as `build_attention`; ValueError for a drop_path outside [0, 1).
    """

    def __init__(
        self,
        dim: int,
        attention: AttentionConfig,
        grid: Sequence[int] | None = None,
        *,
        mlp_ratio: float = 4.0,
        mlp_drop: float = 0.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-5,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        self.attn = build_attention(attention, dim, grid)
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.drop_path1 = DropPath(drop_path)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), mlp_drop)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.drop_path2 = DropPath(drop_path)
        if zero_init:
            nn.init.zeros_(self.norm1.weight)
            nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tokens, mask: Tensor | None = None) -> Tokens:
        """The map after attention and MLP.

        Args:
            x: [B, *grid, C].
            mask: [B, *grid] bool, True where a token is real; None if all are.
        """
        x = x + self.drop_path1(self.norm1(self.attn(x, mask=mask)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


def _does_nothing(layer_scale: nn.Module, drop_path: nn.Module) -> bool:
    """Between a branch and the sum there is nothing now, and nothing that watches: the branch may add itself."""
    return (
        runs_eagerly()
        and type(layer_scale) is nn.Identity
        and type(drop_path) is DropPath
        and (drop_path.p == 0.0 or not drop_path.training)
        and unobserved(layer_scale, drop_path)
    )
