"""mmseg's and mmcv's attention, which the benchmark of the kernels compares with; with the weights of ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visionattn.attention.window import WindowAttention


class MmsegWindowAttention(nn.Module):
    """[B, H, W, C] -> [B, H, W, C]: mmseg's ShiftWindowMSA, padding included.

    It pads before it shifts and lets padding be seen: ours is the same with `mask_padding=False`.

    Args:
        ours: whose weights are copied, with square windows.
    """

    def __init__(self, ours: WindowAttention) -> None:
        super().__init__()
        from mmseg.models.backbones.swin import ShiftWindowMSA

        self.attention = ShiftWindowMSA(ours.dim, ours.num_heads, window_size=ours.window[0], shift_size=ours.shift[0])
        with torch.no_grad():
            for name, parameter in self.attention.w_msa.named_parameters():
                parameter.copy_(ours.get_parameter(name))

    def forward(self, x: Tensor) -> Tensor:
        half = x.dtype in (torch.float16, torch.bfloat16)  # its mask is float32 whatever the map
        with torch.autocast(x.device.type, x.dtype if half else None, enabled=half):
            return self.attention(x.flatten(1, 2), tuple(x.shape[1:3])).view_as(x)


def non_local(channels: int) -> nn.Module:
    """mmcv's NonLocal2d: embedded Gaussian, half the channels inside, one head."""
    from mmcv.cnn import NonLocal2d

    return NonLocal2d(channels, reduction=2, mode="embedded_gaussian")
