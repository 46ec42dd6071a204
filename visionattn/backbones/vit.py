"""Vision transformers: ViT (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929), DeiT (Touvron et al., ICML 2021, arXiv
2012.12877) and, with windows in most blocks, ViTDet's backbone (Li et al., ECCV 2022, arXiv 2203.16527).

Compared with: timm 1.0.31 `VisionTransformer`, `VisionTransformerDistilled` and `VisionTransformerSAM` (outputs and
gradients of models with the same weights; same parameter names).
Differs: no classifier; any image size; ViTDet's decomposed relative positions, which depend on the query, are left out
(`WindowAttention` has Swin's).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as computed_again

from visionattn.attention.base import check_whole
from visionattn.backbones.depth import Attention, attention_by_depth, drop_path_by_depth
from visionattn.backbones.initial import init_linears
from visionattn.blocks.patch import PatchEmbed
from visionattn.blocks.transformer import TransformerBlock
from visionattn.ops.position_embedding import resized_position_embedding
from visionattn.registry import MODELS
from visionattn.typing import Feature, Tokens
from visionattn.weights.loading import load_checkpoint


@MODELS.register_module()
class VisionTransformer(nn.Module):
    """Image [B, in_channels, H, W] of any size -> maps [B, embed_dim, ceil(H / patch), ceil(W / patch)] of its blocks.

    Class, distillation and register tokens lie nowhere on the map. With any of them, the blocks mix one sequence
    [B, P + N, C], these tokens before those of the map, and a mechanism that goes by where a token lies (windows,
    sub-sampling) refuses. Without them (class_token=False) the blocks mix the map [B, H, W, C], and every mechanism
    will do: ViTDet is `attention=[*[dict(type="WindowAttention", window=(14, 14))] * 2, "SoftmaxAttention"]`.

    Args:
        in_channels: channels of the image.
        image_size: height and width at which the positions are learned, whole patches; others are interpolated from
            it as timm's dynamic_img_size does. An image that the patches do not divide is padded with zeros.
        patch: extent of a patch.
        embed_dim: channels C.
        depth: number of blocks.
        num_heads: for mechanisms whose config names none.
        attention: a mechanism's config, or a list of them that the blocks take in turn; options of the attention
            (qkv_bias=False, attn_drop=0.1) are given there. None is SoftmaxAttention.
        mlp_ratio: hidden channels of the MLP over embed_dim.
        layer_scale: first value of a learned gain per channel on every branch; None is without.
        drop_path_rate: of the last block; it rises linearly from 0 at the first.
        class_token: a learned token, as in ViT and DeiT.
        distillation_token: another one, of distilled DeiTs.
        register_tokens: number of further ones (Darcet et al., ICLR 2024).
        prefix_position: these tokens have rows of their own in the position embedding, before those of the map; False
            in DeiT-III and DINOv2 with registers.
        norm_pre: a LayerNorm before the blocks, and no bias in the patch embedding, as in CLIP.
        norm_eps: epsilon of every LayerNorm; CLIP's is 1e-5.
        out_indices: blocks whose maps are returned, rising; the last one if None. Blocks behind them do not run.
        out_norms: the final LayerNorm, on each map that is returned; False returns the maps as the blocks leave them.
        checkpoint: local .safetensors or .pth of a ViT under timm's, torchvision's or mmseg's names, as
            `load_checkpoint` takes it. Positions of another image size are interpolated; a classifier, and the tokens
            and the final norm that this model does without, are passed over.
        frozen_stages: the blocks up to this one, and all before them, are not trained and stay in eval mode; -1
            freezes nothing.
        grad_checkpointing: trades time for memory while training.
    Attributes:
        out_channels, strides: of the maps returned.
        feature_info: of every block, dict(num_chs, reduction, module).
    Raises:
        KeyError, TypeError, ValueError: an option that does not fit; for the attention as `build_attention`.
        FileNotFoundError, ValueError: the checkpoint, as `load_checkpoint`.
    """

    cls_token: nn.Parameter | None
    dist_token: nn.Parameter | None
    reg_token: nn.Parameter | None

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: Sequence[int] = (224, 224),
        patch: Sequence[int] = (16, 16),
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        attention: Attention | None = None,
        mlp_ratio: float = 4.0,
        layer_scale: float | None = None,
        drop_path_rate: float = 0.0,
        class_token: bool = True,
        distillation_token: bool = False,
        register_tokens: int = 0,
        prefix_position: bool = True,
        norm_pre: bool = False,
        norm_eps: float = 1e-6,
        out_indices: Sequence[int] | None = None,
        out_norms: bool = True,
        checkpoint: str | Path | None = None,
        frozen_stages: int = -1,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        out_indices = (depth - 1,) if out_indices is None else tuple(out_indices)
        _check_blocks(depth, out_indices, frozen_stages)
        self.patch_embed = PatchEmbed(in_channels, embed_dim, patch, norm=False)
        if norm_pre:
            self.patch_embed.proj.bias = None
        self.grid = _grid(image_size, self.patch_embed.patch)
        self.cls_token = _tokens(int(class_token), embed_dim)
        self.dist_token = _tokens(int(distillation_token), embed_dim)
        self.reg_token = _tokens(register_tokens, embed_dim)
        self.num_prefix_tokens = sum(len(token[0]) for token in self._prefix())
        self.prefix_position = prefix_position
        rows = self.grid[0] * self.grid[1] + (self.num_prefix_tokens if prefix_position else 0)
        self.pos_embed = nn.Parameter(torch.empty(1, rows, embed_dim))
        self.norm_pre = nn.LayerNorm(embed_dim, eps=norm_eps) if norm_pre else nn.Identity()
        mixers = attention_by_depth("SoftmaxAttention" if attention is None else attention, depth, num_heads)
        blocks = [
            TransformerBlock(
                embed_dim,
                cfg,
                None if self.num_prefix_tokens else self.grid,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path,
                layer_scale=layer_scale,
                norm_eps=norm_eps,
            )
            for cfg, drop_path in zip(mixers, drop_path_by_depth(drop_path_rate, [depth])[0], strict=True)
        ]
        if self.num_prefix_tokens:
            for block in blocks:
                block.attn.check_prefix_tokens()
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps) if out_norms else nn.Identity()

        stride = max(self.patch_embed.patch)
        self.out_indices = out_indices
        self.out_channels = (embed_dim,) * len(out_indices)
        self.strides = (stride,) * len(out_indices)
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": embed_dim, "reduction": stride, "module": f"blocks.{index}"} for index in range(depth)
        ]
        self._init_weights()
        if checkpoint is not None:
            load_checkpoint(self, checkpoint, allow=self._not_of_a_backbone())
        self.set_grad_checkpointing(grad_checkpointing)
        for unused in self.blocks[out_indices[-1] + 1 :]:
            unused.requires_grad_(False)  # DistributedDataParallel waits for the gradient of whatever wants one
        self._frozen = self._freeze(frozen_stages)
        self.train()

    def forward(self, image: Tensor, out_indices: Sequence[int] | None = None) -> list[Feature]:
        """The maps of the blocks in out_indices, NCHW.

        Args:
            image: [B, in_channels, H, W].
            out_indices: other blocks for this call, none behind the model's last; those behind them do not run.
        Raises:
            ValueError: the image has another number of axes or channels.
        """
        tokens = self.forward_tokens(image, self.out_indices if out_indices is None else out_indices)
        return [self.norm(self.on_map(x, image)).permute(0, 3, 1, 2) for x in tokens]

    def forward_tokens(self, image: Tensor, out_indices: Sequence[int]) -> list[Tokens]:
        """What some blocks hand on: sequences [B, P + H * W, C] with prefix tokens, maps [B, H, W, C] without."""
        x = self.norm_pre(self._embed(self.patch_embed(image)))
        found = []
        for index, block in enumerate(self.blocks):
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = computed_again(block, x, use_reentrant=False)
            else:
                x = block(x)
            if index in out_indices:
                found.append(x)
            if index == out_indices[-1]:
                break
        return found

    def on_map(self, x: Tokens, image: Tensor) -> Tokens:
        """Those tokens of a block that lie on the map of the image, [B, H, W, C]."""
        if not self.num_prefix_tokens:
            return x
        rows, columns = (
            (n + patch - 1) // patch for n, patch in zip(image.shape[-2:], self.patch_embed.patch, strict=True)
        )
        return x[:, self.num_prefix_tokens :].unflatten(1, (rows, columns))

    def keep_stages(self, out_indices: Sequence[int]) -> None:
        """Drops the blocks that these, some of the model's own, do not need."""
        self.blocks = self.blocks[: out_indices[-1] + 1]
        self.out_indices = tuple(out_indices)
        self.out_channels, self.strides = self.out_channels[: len(out_indices)], self.strides[: len(out_indices)]

    def train(self, mode: bool = True) -> VisionTransformer:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the published recipes do not decay (besides norms and biases)."""
        names = ("pos_embed", "cls_token", "dist_token", "reg_token")
        return {name for name in names if getattr(self, name) is not None}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keeps only the blocks' inputs for the backward pass, and computes the blocks again there."""
        self.grad_checkpointing = enable

    def _prefix(self) -> list[Tensor]:
        """The tokens that stand before those of the map, [1, number, C] each, in timm's order."""
        return [token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None]

    def _embed(self, x: Tokens) -> Tokens:
        """The patches [B, H, W, C] with their positions; with prefix tokens one sequence [B, P + H * W, C]."""
        grid = (x.shape[1], x.shape[2])
        position = resized_position_embedding(self.pos_embed, self.grid, grid)
        with_rows = self.num_prefix_tokens if self.prefix_position else 0
        x = x + position[:, with_rows:].unflatten(1, grid)
        if not self.num_prefix_tokens:
            return x
        prefix = torch.cat(self._prefix(), dim=1)
        if with_rows:
            prefix = prefix + position[:, :with_rows]
        return torch.cat([prefix.to(x.dtype).expand(len(x), -1, -1), x.flatten(1, 2)], dim=1)

    def _init_weights(self) -> None:
        """As timm's: the tokens of ViT start near zero, everything else truncated N(0, 0.02), biases zero."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for token, std in ((self.cls_token, 1e-6), (self.reg_token, 1e-6), (self.dist_token, 0.02)):
            if token is not None:
                nn.init.trunc_normal_(token, std=std)
        init_linears(self)

    def _not_of_a_backbone(self) -> list[str]:
        """Patterns of what a checkpoint may hold and this model need not have."""
        tokens = [name for name in ("cls_token", "dist_token", "reg_token") if getattr(self, name) is None]
        norm = ["norm.*"] if isinstance(self.norm, nn.Identity) else []
        return ["head.*", "head_dist.*", "fc_norm.*", "attn_pool.*", *tokens, *norm]

    def _freeze(self, frozen_stages: int) -> list[nn.Module]:
        """Switches off the gradients up to a block; the modules that stay in eval mode."""
        if frozen_stages < 0:
            return []
        frozen = [self.patch_embed, self.norm_pre, *self.blocks[: frozen_stages + 1]]
        if frozen_stages >= self.out_indices[-1]:
            frozen.append(self.norm)
        for module in frozen:
            module.requires_grad_(False)
        for parameter in (self.pos_embed, *self._prefix()):
            parameter.requires_grad_(False)
        return frozen


def _tokens(number: int, dim: int) -> nn.Parameter | None:
    """[1, number, dim]; None for no token."""
    check_whole(register_tokens=number)
    if number < 0:
        raise ValueError(f"register_tokens={number}: there are none (0) or some")
    return nn.Parameter(torch.empty(1, number, dim)) if number else None


def _grid(image_size: Sequence[int], patch: tuple[int, int]) -> tuple[int, int]:
    """Patches of the image in which the positions are learned."""
    if not isinstance(image_size, Sequence):
        raise TypeError(f"image_size={image_size!r} must hold height and width: ({image_size}, {image_size})")
    if len(image_size) != 2 or any(size < 1 or size % length for size, length in zip(image_size, patch, strict=False)):
        whole = tuple(14 * length for length in patch)
        raise ValueError(f"image_size={tuple(image_size)} must be whole patches of {patch}, such as {whole}")
    return image_size[0] // patch[0], image_size[1] // patch[1]


def _check_blocks(depth: int, out_indices: Sequence[int], frozen_stages: int) -> None:
    """Raises ValueError unless the numbers are those of blocks."""
    if depth < 1:
        raise ValueError(f"depth={depth}: a vision transformer has 1 block or more")
    blocks = list(out_indices)
    if not blocks or blocks != sorted(set(blocks)) or not 0 <= blocks[0] <= blocks[-1] < depth:
        raise ValueError(
            f"out_indices={tuple(blocks)} must rise; this VisionTransformer has the blocks 0 to {depth - 1}"
        )
    if not -1 <= frozen_stages < depth:
        raise ValueError(
            f"frozen_stages={frozen_stages}: this VisionTransformer has the blocks 0 to {depth - 1}; -1 freezes nothing"
        )
