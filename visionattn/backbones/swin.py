"""Swin Transformer (Liu et al., ICCV 2021, arXiv 2103.14030) and Swin Transformer V2 (CVPR 2022, arXiv 2111.09883).

A Swin is a list of attention configs that the blocks of every stage take in turn: windows, then shifted windows. Any
other registered mechanism may stand in that list.

Compared with: timm 1.0.31, torchvision 0.26, onedl-mmsegmentation 1.4.2 (outputs and gradients of models with the same
weights); microsoft/Swin-Transformer@f82860bf (MIT) by golden vectors of blocks and patch merging.
Differs: any image size (patches, windows and merging pad with zeros, as in mmseg); no classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from visionattn.backbones.depth import Attention
from visionattn.backbones.hierarchy import HierarchicalTransformer
from visionattn.blocks.patch import PatchMerging, PostNormPatchMerging
from visionattn.blocks.transformer import ResPostNormTransformerBlock, TransformerBlock
from visionattn.registry import MODELS
from visionattn.typing import AttentionConfig, Grid

Windows: TypeAlias = Sequence[int] | Sequence[Sequence[int]]
"""Height and width of a window, or one such pair per stage."""


@MODELS.register_module()
class SwinTransformer(HierarchicalTransformer):
    """Swin V1: pre-norm blocks.

    Args:
        window: extent of a window of the published attention, or one such pair per stage.
        attention: what takes the place of the published attention: a mechanism's config, or a list of them that the
            blocks of each stage take in turn.
        shift_covered_axes: the published attention shifts also along an axis that one window covers, as mmseg does.
        mlp_ratio: hidden channels of the MLP over those of the block.
        in_channels, image_size, patch, embed_dim, depths, num_heads, drop_path_rate, absolute_position, out_indices,
        out_norms, frozen_stages, grad_checkpointing, checkpoint: as `HierarchicalTransformer`.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: Sequence[int] = (224, 224),
        patch: Sequence[int] = (4, 4),
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: Windows = (7, 7),
        attention: Attention | None = None,
        shift_covered_axes: bool = False,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        absolute_position: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_norms: bool = True,
        frozen_stages: int = -1,
        grad_checkpointing: bool = False,
        checkpoint: str | Path | None = None,
    ) -> None:
        def make_block(dim: int, cfg: AttentionConfig, grid: Grid, drop_path: float) -> nn.Module:
            return TransformerBlock(dim, cfg, grid, mlp_ratio=mlp_ratio, drop_path=drop_path)

        published = {"type": "WindowAttention", "mask_padding": False, "shift_covered_axes": shift_covered_axes}
        by_stage = [shifted(published, pair) for pair in window_by_stage(window, len(depths))]
        super().__init__(
            make_block,
            PatchMerging,
            attention=by_stage if attention is None else [attention] * len(depths),
            in_channels=in_channels,
            image_size=image_size,
            patch=patch,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            drop_path_rate=drop_path_rate,
            absolute_position=absolute_position,
            out_indices=out_indices,
            out_norms=out_norms,
            frozen_stages=frozen_stages,
            grad_checkpointing=grad_checkpointing,
            checkpoint=checkpoint,
        )


@MODELS.register_module()
class SwinTransformerV2(HierarchicalTransformer):
    """Swin V2: residual post-norm blocks, merging with its norm behind, cosine attention.

    Args:
        window: extent of a window of the published attention, or one such pair per stage.
        pretrained_window: where the weights come from training with other windows: theirs, or one pair per stage.
        attention: what takes the place of the published attention: a mechanism's config, or a list of them that the
            blocks of each stage take in turn.
        shift_covered_axes: the published attention shifts also along an axis that one window covers.
        mlp_ratio: hidden channels of the MLP over those of the block.
        in_channels, image_size, patch, embed_dim, depths, num_heads, drop_path_rate, absolute_position, out_indices,
        out_norms, frozen_stages, grad_checkpointing, checkpoint: as `HierarchicalTransformer`.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: Sequence[int] = (256, 256),
        patch: Sequence[int] = (4, 4),
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: Windows = (8, 8),
        pretrained_window: Windows | None = None,
        attention: Attention | None = None,
        shift_covered_axes: bool = False,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        absolute_position: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_norms: bool = True,
        frozen_stages: int = -1,
        grad_checkpointing: bool = False,
        checkpoint: str | Path | None = None,
    ) -> None:
        def make_block(dim: int, cfg: AttentionConfig, grid: Grid, drop_path: float) -> nn.Module:
            return ResPostNormTransformerBlock(dim, cfg, grid, mlp_ratio=mlp_ratio, drop_path=drop_path)

        windows = window_by_stage(window, len(depths))
        trained = [None] * len(depths) if pretrained_window is None else window_by_stage(pretrained_window, len(depths))
        published = {"type": "WindowAttentionV2", "mask_padding": False, "shift_covered_axes": shift_covered_axes}
        by_stage = [
            shifted({**published, "pretrained_window": before}, pair)
            for pair, before in zip(windows, trained, strict=True)
        ]
        super().__init__(
            make_block,
            PostNormPatchMerging,
            attention=by_stage if attention is None else [attention] * len(depths),
            in_channels=in_channels,
            image_size=image_size,
            patch=patch,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            drop_path_rate=drop_path_rate,
            absolute_position=absolute_position,
            out_indices=out_indices,
            out_norms=out_norms,
            frozen_stages=frozen_stages,
            grad_checkpointing=grad_checkpointing,
            checkpoint=checkpoint,
        )


def shifted(published: dict[str, Any], window: Sequence[int]) -> list[dict[str, Any]]:
    """Swin's pair of blocks: windows, and windows that start half a window further."""
    half = tuple(length // 2 for length in window)
    return [{**published, "window": tuple(window), "shift": shift} for shift in ((0,) * len(window), half)]


def window_by_stage(window: Sequence[Any], stages: int) -> list[tuple[int, int]]:
    """The pair (height, width) of each stage.

    Raises:
        TypeError, ValueError: neither one pair nor a pair per stage.
    """
    if isinstance(window, int):
        raise TypeError(f"window={window} must hold height and width: ({window}, {window})")
    pairs = [window] * stages if all(isinstance(length, int) for length in window) else list(window)
    if len(pairs) != stages or any(not isinstance(pair, Sequence) or len(pair) != 2 for pair in pairs):
        raise ValueError(f"window={window!r} must be one pair, such as (7, 7), or one pair for each of {stages} stages")
    return [(height, width) for height, width in pairs]
