"""The map in a token sequence: for mechanisms that go by where tokens lie, in hosts that hand on [B, P + H * W, C]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from visionattn.attention.base import TokenMixer
from visionattn.attention.softmax import SoftmaxAttention
from visionattn.typing import Grid


class PatchGrid:
    """Rows and columns of patches in the image that a model works on: a forward hook of its patch embedding."""

    handle: RemovableHandle  # unpickled in a new process, it keeps torch from giving its number to another hook

    def __init__(self, grid: Grid) -> None:
        self.now = grid

    def __call__(self, patch_embed: nn.Module, args: Any, output: Any) -> None:
        rows, columns = patch_embed.dynamic_feat_size(args[0].shape[-2:])  # type: ignore[operator]
        self.now = (rows, columns)


def patch_grid(patch_embed: nn.Module) -> PatchGrid:
    """The embedding's grid; watched from now on if it was not."""
    for hook in patch_embed._forward_hooks.values():
        if isinstance(hook, PatchGrid):
            return hook
    size: Any = patch_embed.grid_size
    grid = PatchGrid((0, 0) if size is None else tuple(size))
    grid.handle = patch_embed.register_forward_hook(grid)
    return grid


class PatchMap(nn.Module):
    """Lets a mechanism see the map [B, H, W, C] in tokens [B, P + H * W, C].

    Class, register and distillation tokens lie nowhere on the map. They come first, and each looks at all tokens by
    softmax attention of its own; the mechanism does not see them, nor do the patches.

    Args:
        grid: of the model.
        prefix: softmax attention for the P tokens in front; None where there are none.
        num_prefix_tokens: P.
    """

    def __init__(self, grid: PatchGrid, prefix: SoftmaxAttention | None, num_prefix_tokens: int) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, attn: TokenMixer, tokens: Tensor) -> Tensor:
        rows, columns = self.grid.now
        first = self.num_prefix_tokens
        if tokens.shape[1] != first + rows * columns:
            raise ValueError(
                f"{type(attn).__name__} needs the whole map: {first} + {rows} x {columns} tokens, got "
                f"{tokens.shape[1]}; train without patch dropout, and run the blocks as part of their model"
            )
        patches: Tensor = attn(tokens[:, first:].unflatten(1, (rows, columns))).flatten(1, 2)
        if self.prefix is None:
            return patches
        return torch.cat([self.prefix(tokens[:, :first], context=tokens), patches], dim=1)

    def remember_for(self, output: Tensor) -> None:
        """Sets the grid of this forward again before the backward of the output.

        Gradient checkpointing runs the block a second time there, when the model may have seen another image.
        """
        grid = self.grid.now

        def restore(gradient: Tensor) -> None:
            self.grid.now = grid

        if output.requires_grad and not torch.compiler.is_compiling():
            output.register_hook(restore)
