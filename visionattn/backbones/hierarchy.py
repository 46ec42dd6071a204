"""A transformer whose stages halve the resolution: patches, then stages of blocks, a list of maps out.

The names of the parameters are timm's: patch_embed, layers.I.downsample (at the start of stage I), layers.I.blocks.J;
those of the output norms, norm0 and so on, are mmseg's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from visionattn.attention.base import QKVAttention
from visionattn.backbones.depth import Attention, attention_by_depth, drop_path_by_depth
from visionattn.blocks.mlp import Mlp
from visionattn.blocks.patch import PatchEmbed
from visionattn.typing import AttentionConfig, Feature, Grid, Tokens

MakeBlock = Callable[[int, AttentionConfig, Grid, float], nn.Module]
"""From channels, attention, the grid at which it is learned and drop path, a block [B, H, W, C] -> [B, H, W, C]."""

_UNDECAYED = ("absolute_pos_embed", "relative_position_bias_table", "cpb_mlp", "logit_scale")


class Stage(nn.Module):
    """Merging (the identity in the first stage), then blocks one after another, on maps [B, H, W, C]."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.grad_checkpointing = False

    def forward(self, x: Tokens) -> Tokens:
        x = self.downsample(x)
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            return self.blocks(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x


class HierarchicalTransformer(nn.Module):
    """Image [B, in_channels, H, W] of any size -> maps [B, C_i, ceil(H / stride_i), ceil(W / stride_i)] of the stages.

    Args:
        make_block: a block.
        make_merging: what halves the resolution, from channels in and out.
        attention: what the blocks of each stage hold, one entry per stage: see `attention_by_depth`.
        in_channels: channels of the image.
        image_size: height and width at which position-bound parameters are learned; other sizes resize them.
        patch: extent of a patch.
        embed_dim: channels of the first stage; they double from stage to stage.
        depths: blocks of each stage.
        num_heads: heads in each stage, for mechanisms whose config names none.
        drop_path_rate: of the last block; it rises linearly from 0 at the first.
        absolute_position: a learned vector per patch is added to the patches.
        out_indices: stages to return, rising. Stages behind the last of them do not run.
        out_norms: a LayerNorm on each map that is returned, as in mmseg; without, the maps are as timm's features.
        frozen_stages: stages up to this one as out_indices counts them, and all before it, are not trained and stay in
            eval mode; -1 freezes nothing. (mmseg counts from 1: its 1 is 0 here.)
        grad_checkpointing: trades time for memory while training.
    Attributes:
        out_channels, strides: of the maps returned.
        feature_info: of every stage, dict(num_chs, reduction, module).
    Raises:
        KeyError, TypeError, ValueError: an option that does not fit; for the attention as `build_attention`.
    """

    def __init__(
        self,
        make_block: MakeBlock,
        make_merging: Callable[[int, int], nn.Module],
        *,
        attention: Sequence[Attention],
        in_channels: int,
        image_size: Sequence[int],
        patch: Sequence[int],
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        drop_path_rate: float,
        absolute_position: bool,
        out_indices: Sequence[int],
        out_norms: bool,
        frozen_stages: int,
        grad_checkpointing: bool,
    ) -> None:
        super().__init__()
        _check_stages(depths, num_heads, out_indices, frozen_stages, type(self).__name__)
        self.patch_embed = PatchEmbed(in_channels, embed_dim, patch)
        rows, columns = (-(-size // length) for size, length in zip(image_size, self.patch_embed.patch, strict=True))
        self._position_grid = (rows, columns)
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, rows * columns, embed_dim)) if absolute_position else None

        channels = [embed_dim * 2**stage for stage in range(len(depths))]
        drop_paths = drop_path_by_depth(drop_path_rate, depths)
        stages = []
        for stage, dim in enumerate(channels):
            grid = (-(-rows // 2**stage), -(-columns // 2**stage))
            mixers = attention_by_depth(attention[stage], depths[stage], num_heads[stage])
            blocks = [make_block(dim, cfg, grid, p) for cfg, p in zip(mixers, drop_paths[stage], strict=True)]
            stages.append(Stage(make_merging(channels[stage - 1], dim) if stage else nn.Identity(), blocks))
        self.layers = nn.Sequential(*stages)

        self.out_indices = tuple(out_indices)
        self.out_channels = tuple(channels[stage] for stage in out_indices)
        self.strides = tuple(max(self.patch_embed.patch) * 2**stage for stage in out_indices)
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": dim, "reduction": max(self.patch_embed.patch) * 2**stage, "module": f"layers.{stage}"}
            for stage, dim in enumerate(channels)
        ]
        for stage in self.out_indices:
            self.add_module(f"norm{stage}", nn.LayerNorm(channels[stage]) if out_norms else nn.Identity())
        self._init_weights()
        self.set_grad_checkpointing(grad_checkpointing)
        for unused in self.layers[self.out_indices[-1] + 1 :]:
            unused.requires_grad_(False)  # DistributedDataParallel waits for the gradient of whatever wants one
        self._frozen = self._freeze(frozen_stages)
        self.train()

    def forward(self, image: Tensor) -> list[Feature]:
        """The maps of the stages in out_indices, NCHW.

        Raises:
            ValueError: the image has another number of axes or channels.
        """
        x = self.patch_embed(image)
        if self.absolute_pos_embed is not None:
            x = x + self._position(x.shape[1], x.shape[2])
        maps = []
        for index, stage in enumerate(self.layers):
            if index > self.out_indices[-1]:
                break
            x = stage(x)
            if index in self.out_indices:
                maps.append(getattr(self, f"norm{index}")(x).permute(0, 3, 1, 2))
        return maps

    def train(self, mode: bool = True) -> HierarchicalTransformer:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the published recipes do not decay (besides norms and biases)."""
        return {name for name, _ in self.named_parameters() if any(part in _UNDECAYED for part in name.split("."))}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keeps only the blocks' inputs for the backward pass, and computes the blocks again there."""
        for stage in self.modules():
            if isinstance(stage, Stage):
                stage.grad_checkpointing = enable

    def _position(self, rows: int, columns: int) -> Tensor:
        """The position embedding at another resolution, [1, rows, columns, C]."""
        assert self.absolute_pos_embed is not None
        position = self.absolute_pos_embed.unflatten(1, self._position_grid)
        if (rows, columns) == self._position_grid:
            return position
        resized = F.interpolate(position.permute(0, 3, 1, 2), (rows, columns), mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1)

    def _init_weights(self) -> None:
        """Linear layers N(0, 0.02) without bias, as published; what else a mechanism has starts as it says itself."""
        if self.absolute_pos_embed is not None:
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        for module in self.modules():
            owned: list[nn.Module] = []
            if isinstance(module, Mlp):
                owned = [module.fc1, module.fc2]
            elif isinstance(module, QKVAttention):
                owned = [module.qkv, module.proj]
            elif isinstance(module, Stage) and not isinstance(module.downsample, nn.Identity):
                owned = [module.downsample.get_submodule("reduction")]
            for linear in owned:
                if isinstance(linear, nn.Linear):
                    nn.init.trunc_normal_(linear.weight, std=0.02)
                    if linear.bias is not None:
                        nn.init.zeros_(linear.bias)

    def _freeze(self, frozen_stages: int) -> list[nn.Module]:
        """Switches off the gradients up to a stage; the modules that stay in eval mode."""
        if frozen_stages < 0:
            return []
        frozen = [self.patch_embed, *self.layers[: frozen_stages + 1]]
        frozen += [getattr(self, f"norm{stage}") for stage in self.out_indices if stage <= frozen_stages]
        for module in frozen:
            module.requires_grad_(False)
        if self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad_(False)
        return frozen


def _check_stages(
    depths: Sequence[int], num_heads: Sequence[int], out_indices: Sequence[int], frozen_stages: int, name: str
) -> None:
    """Raises ValueError unless the lists of stages agree."""
    if not depths or len(depths) != len(num_heads) or any(depth < 1 for depth in depths):
        raise ValueError(
            f"depths={tuple(depths)} and num_heads={tuple(num_heads)} must have one entry of 1 or more per stage"
        )
    last = len(depths) - 1
    stages = list(out_indices)
    if not stages or stages != sorted(set(stages)) or not 0 <= stages[0] <= stages[-1] <= last:
        raise ValueError(f"out_indices={tuple(stages)} must rise; this {name} has the stages 0 to {last}")
    if not -1 <= frozen_stages <= last:
        raise ValueError(f"frozen_stages={frozen_stages}: this {name} has the stages 0 to {last}; -1 freezes nothing")
