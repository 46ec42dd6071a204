"""timm's shifted-window attention with the weights of ours: what the benchmark of the kernels compares with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visionattn.attention.window import WindowAttention


class TimmWindowAttention(nn.Module):
    """[B, H, W, C] -> [B, H, W, C]: roll, pad, partition, attend and back, as in timm's SwinTransformerBlock.

    timm rolls before it pads: ours is the same with `mask_padding=False, shift_before_padding=True`.

    Args:
        ours: whose weights are copied, with square windows.
        grid: H, W.
    """

    def __init__(self, ours: WindowAttention, grid: tuple[int, int]) -> None:
        super().__init__()
        from timm.models.swin_transformer import SwinTransformerBlock

        block = SwinTransformerBlock(
            ours.dim, grid, num_heads=ours.num_heads, window_size=ours.window[0], shift_size=ours.shift[0]
        )
        for name in ("norm1", "norm2", "mlp"):  # not in this section
            setattr(block, name, nn.Identity())
        with torch.no_grad():
            for name, parameter in block.attn.named_parameters():
                parameter.copy_(ours.get_parameter(name))
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block._attn(x)
