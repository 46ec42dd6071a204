"""timm's transformer blocks with a mechanism of ours as their `attn`.

A block becomes one of these by a change of its class: it stays the module that others hold and hook, with the same
names. timm is imported here, so this file is only imported for a model of timm's.
"""

from __future__ import annotations

from typing import Any

from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from timm.models.vision_transformer import Block, ResPostBlock
from torch import Tensor

from visionattn.attention.base import TokenMixer
from visionattn.backbones.patch_map import PatchMap


class TokenBlock(Block):
    """A ViT's block: x + attn(norm1(x)), then x + mlp(norm2(x)), on tokens [B, P + N, C].

    `patch_map` is None where the mechanism takes the sequence as it is.
    """

    attn: TokenMixer
    patch_map: PatchMap | None

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        _refuse_masks(self.attn, attn_mask, is_causal)
        x = x + self.drop_path1(self.ls1(_mixed(self, self.norm1(x))))
        return _remembered(self, x + self.drop_path2(self.ls2(self.mlp(self.norm2(x)))))


class ResPostTokenBlock(ResPostBlock):
    """The same with norms behind: x + norm1(attn(x)), then x + norm2(mlp(x))."""

    attn: TokenMixer
    patch_map: PatchMap | None

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        _refuse_masks(self.attn, attn_mask, is_causal)
        x = x + self.drop_path1(self.norm1(_mixed(self, x)))
        return _remembered(self, x + self.drop_path2(self.norm2(self.mlp(x))))


class WholeMapBlock(SwinTransformerBlock):
    """A Swin block whose mechanism sees the whole map [B, H, W, C]: shift and windows are its own, if it has any."""

    attn: TokenMixer  # type: ignore[assignment]  # in place of timm's

    def _attn(self, x: Tensor) -> Tensor:
        return self.attn(x)

    def _init_buffers(self) -> None:
        """No mask: the block has no windows."""

    def set_input_size(self, feat_size: Any, window_size: Any, always_partition: bool | None = None) -> None:
        self.input_resolution = feat_size


class WholeMapBlockV2(SwinTransformerV2Block):
    """The same for Swin V2, whose norms come behind."""

    attn: TokenMixer  # type: ignore[assignment]  # in place of timm's

    def _attn(self, x: Tensor) -> Tensor:
        return self.attn(x)

    def _init_buffers(self) -> None:
        """No mask: the block has no windows."""

    def set_input_size(self, feat_size: Any, window_size: Any, always_partition: bool | None = None) -> None:
        self.input_resolution = feat_size


def _mixed(block: TokenBlock | ResPostTokenBlock, tokens: Tensor) -> Tensor:
    return block.attn(tokens) if block.patch_map is None else block.patch_map(block.attn, tokens)


def _remembered(block: TokenBlock | ResPostTokenBlock, output: Tensor) -> Tensor:
    if block.patch_map is not None:
        block.patch_map.remember_for(output)
    return output


def _refuse_masks(attn: TokenMixer, attn_mask: Tensor | None, is_causal: bool) -> None:
    if attn_mask is not None or is_causal:
        raise ValueError(
            f"{type(attn).__name__} stands in this block and takes no attn_mask and no is_causal; run the model "
            "without them, or keep timm's attention here"
        )
