"""A transformer whose stages halve the resolution: patches, then stages of blocks, a list of maps out.

The names of the parameters are timm's: patch_embed, layers.I.downsample (at the start of stage I), layers.I.blocks.J;
those of the output norms, norm0 and so on, are mmseg's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as run_again

from visionattn.attention.base import TokenMixer
from visionattn.attention.window import WindowAttention
from visionattn.backbones.depth import Attention, attention_by_depth, drop_path_by_depth
from visionattn.backbones.initial import init_linear, init_linears
from visionattn.blocks.patch import PatchEmbed, PatchMerging, PostNormPatchMerging
from visionattn.ops.position_embedding import resized_position_embedding
from visionattn.typing import AttentionConfig, Feature, Grid, Tokens
from visionattn.weights.loading import load_checkpoint

MakeBlock = Callable[[int, AttentionConfig, Grid, float], nn.Module]
"""From channels, attention, the grid at which it is learned and drop path, a block [B, H, W, C] -> [B, H, W, C]."""

_OF_THE_TASK = ("norm*", "head*")
"""What a classifier has behind the stages, and a backbone for maps has there."""

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
            x = run_again(block, x, use_reentrant=False)
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
        checkpoint: local .safetensors or .pth of a Swin as timm, microsoft, torchvision or mmseg publish it, or of
            ours. Its classifier may be left over, the norms on the maps may be missing, and where another mechanism
            stands in the place of windows, what the two do not share.
    Attributes:
        out_channels, strides: of the maps returned.
        feature_info: of every stage, dict(num_chs, reduction, module).
    Raises:
        KeyError, TypeError, ValueError: an option that does not fit; for the attention as `build_attention`.
        FileNotFoundError, ValueError: the checkpoint, as `load_checkpoint`.
    """

    def __init__(
        self,
        make_block: MakeBlock,
        make_merging: type[PatchMerging] | type[PostNormPatchMerging],
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
        checkpoint: str | Path | None,
    ) -> None:
        super().__init__()
        _check_stages(depths, num_heads, out_indices, frozen_stages, type(self).__name__)
        self.patch_embed = PatchEmbed(in_channels, embed_dim, patch)
        rows, columns = self.grid = _grid(image_size, self.patch_embed.patch)
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
        if checkpoint is not None:
            load_checkpoint(self, checkpoint, allow=(*_OF_THE_TASK, *self._replaced()))
        self.set_grad_checkpointing(grad_checkpointing)
        for unused in self.layers[self.out_indices[-1] + 1 :]:
            unused.requires_grad_(False)  # DistributedDataParallel waits for the gradient of whatever wants one
        self._frozen = self._freeze(frozen_stages)
        self.train()

    def forward(self, image: Tensor, out_indices: Sequence[int] | None = None) -> list[Feature]:
        """The maps of the stages in out_indices, NCHW.

        Args:
            image: [B, in_channels, H, W].
            out_indices: some of the model's own, for this call; stages behind the last of them do not run.
        Raises:
            ValueError: the image has another number of axes or channels.
        """
        wanted = self.out_indices if out_indices is None else out_indices
        x = self.patch_embed(image)
        if self.absolute_pos_embed is not None:
            grid = (x.shape[1], x.shape[2])
            x = x + resized_position_embedding(self.absolute_pos_embed, self.grid, grid).unflatten(1, grid)
        maps = []
        for index, stage in enumerate(self.layers):
            if index > wanted[-1]:
                break
            x = stage(x)
            if index in wanted:
                maps.append(getattr(self, f"norm{index}")(x).permute(0, 3, 1, 2))
        return maps

    def train(self, mode: bool = True) -> HierarchicalTransformer:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def keep_stages(self, out_indices: Sequence[int]) -> None:
        """Drops what these stages, some of the model's own, do not need: later stages, and the norms of others."""
        kept = [self.out_indices.index(stage) for stage in out_indices]
        for stage in set(self.out_indices) - set(out_indices):
            delattr(self, f"norm{stage}")
        self.layers = self.layers[: out_indices[-1] + 1]
        self.out_indices = tuple(out_indices)
        self.out_channels = tuple(self.out_channels[place] for place in kept)
        self.strides = tuple(self.strides[place] for place in kept)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the published recipes do not decay (besides norms and biases)."""
        return {name for name, _ in self.named_parameters() if any(part in _UNDECAYED for part in name.split("."))}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keeps only the blocks' inputs for the backward pass, and computes the blocks again there."""
        for stage in self.modules():
            if isinstance(stage, Stage):
                stage.grad_checkpointing = enable

    def _init_weights(self) -> None:
        if self.absolute_pos_embed is not None:
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        init_linears(self)
        for module in self.modules():
            if isinstance(module, PatchMerging | PostNormPatchMerging):
                init_linear(module.reduction)

    def _replaced(self) -> list[str]:
        """Patterns of the names in blocks whose mechanism is not that of any published Swin."""
        mixers = {name: module for name, module in self.named_modules() if isinstance(module, TokenMixer)}
        return [f"{name}.*" for name, mixer in mixers.items() if not isinstance(mixer, WindowAttention)]

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


def _grid(image_size: Sequence[int], patch: tuple[int, int]) -> tuple[int, int]:
    """Patches of an image, those at the edge that are not whole included."""
    if not isinstance(image_size, Sequence):
        raise TypeError(f"image_size={image_size!r} must hold height and width: ({image_size}, {image_size})")
    if len(image_size) != 2 or any(not isinstance(size, int) or size < 1 for size in image_size):
        raise ValueError(f"image_size={tuple(image_size)} must hold two integers of 1 or more, such as (224, 224)")
    return -(-image_size[0] // patch[0]), -(-image_size[1] // patch[1])


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
