"""Images cut into patches, and 2 x 2 tokens merged into one: what stands before and between the stages of Swin.

Compared with: microsoft/Swin-Transformer@f82860bf (MIT) `PatchEmbed` and both `PatchMerging`s, golden vectors
`swin1_patch_merging`; timm 1.0.31 `PatchEmbed`, `PatchMerging` (same parameter names).
Differs: an image or a map that the patches do not divide is padded with zeros at its right and bottom edge, as
torchvision's and mmseg's merging and mmseg's embedding do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import check_whole
from visionattn.typing import Tokens


class PatchEmbed(nn.Module):
    """One token per patch of an image: a convolution whose stride is its kernel.

    Args:
        in_channels: channels of the image.
        dim: channels C of a token.
        patch: extent of a patch (height, width).
        norm: a LayerNorm over the channels behind it.
    Raises:
        TypeError: a patch that is one number.
        ValueError: a patch below 1 x 1.
    """

    def __init__(self, in_channels: int, dim: int, patch: Sequence[int] = (4, 4), *, norm: bool = True) -> None:
        super().__init__()
        if not isinstance(patch, Sequence):
            raise TypeError(f"patch={patch!r} must hold height and width: ({patch}, {patch})")
        check_whole(in_channels=in_channels, dim=dim)
        if len(patch) != 2 or any(not isinstance(n, int) or n < 1 for n in patch):
            raise ValueError(f"patch={tuple(patch)} must hold two integers of 1 or more, such as (4, 4)")
        self.in_channels = in_channels
        self.patch = (patch[0], patch[1])
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=self.patch, stride=self.patch)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, image: Tensor) -> Tokens:
        """The tokens [B, ceil(H / patch height), ceil(W / patch width), C] of an image [B, in_channels, H, W].

        Raises:
            ValueError: another shape.
        """
        if image.dim() != 4 or image.shape[1] != self.in_channels or 0 in image.shape[2:]:
            raise ValueError(f"expected an image [B, {self.in_channels}, H, W], got {list(image.shape)}")
        height, width = image.shape[-2:]
        below, right = -height % self.patch[0], -width % self.patch[1]
        # Symbolic extents are padded unasked: an export would be pinned to the answer.
        if not isinstance(height, int) or not isinstance(width, int) or below or right:
            image = F.pad(image, (0, right, 0, below))
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Half the resolution: reduction(norm(2 x 2 tokens)), Swin V1's.

    Args:
        dim: channels C of a token.
        out_dim: channels after the merging.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)

    def forward(self, x: Tokens) -> Tokens:
        """[B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), out_dim]."""
        return self.reduction(self.norm(_joined(x)))


class PostNormPatchMerging(nn.Module):
    """Half the resolution: norm(reduction(2 x 2 tokens)), Swin V2's.

    Args:
        dim: channels C of a token.
        out_dim: channels after the merging.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tokens) -> Tokens:
        """[B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), out_dim]."""
        return self.norm(self.reduction(_joined(x)))


def _joined(x: Tokens) -> Tokens:
    """The channels of each 2 x 2 tokens, [B, ceil(H / 2), ceil(W / 2), 4 C]: both rows of the left column first."""
    height, width = x.shape[1:3]
    if not isinstance(height, int) or not isinstance(width, int) or height % 2 or width % 2:
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    return torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)
