"""Blocks whose attention can be replaced: what a mechanism is given there, and how it comes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from visionattn.attention.base import TokenMixer
from visionattn.backbones.kept_weights import keep_weights, options_of
from visionattn.typing import Grid

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class ReplaceableBlock:
    """A block of ours; those of other libraries are handled by subclasses.

    Args:
        model: that holds the block.
        path: of the block in the model.
        block: with the attention to replace as `attn`.
    """

    def __init__(self, model: nn.Module, path: str, block: nn.Module) -> None:
        self.model = model
        self.path = path
        self.block: Any = block
        self.attn: Any = block.get_submodule("attn")
        self.where = f"{path}.attn" if path else "attn"

    def check(self) -> None:
        """Raises ValueError if the attention has what would be lost without a word."""
        for name, module in self.attn.named_modules(prefix=self.where):
            if any(getattr(module, hooks) for hooks in _HOOKS):
                raise ValueError(
                    f"{name!r} ({type(module).__name__}) has hooks, which would be lost; remove them first"
                )

    def dim(self) -> int:
        """Channels of the map."""
        return int(self.attn.dim)

    def grid(self) -> Grid | None:
        """Where position-bound parameters are learned."""
        grid: Grid | None = self.attn.grid
        return grid

    def options(self) -> dict[str, Any]:
        """What the mechanism gets where its config names nothing."""
        return options_of(self.attn)

    def installation(self, mixer: TokenMixer) -> Callable[[], None]:
        """What puts the mechanism in, with the weights that it can keep. It cannot fail any more; this may.

        Raises:
            ValueError: the mechanism cannot stand here.
        """
        if getattr(self.owner("num_prefix_tokens"), "num_prefix_tokens", 0):
            mixer.check_prefix_tokens()
        return self._putting(mixer)

    def owner(self, *names: str) -> nn.Module | None:
        """The nearest module above the block that has all of these attributes."""
        above = self.path
        while above:
            above = above.rpartition(".")[0]
            module = self.model.get_submodule(above)
            if all(hasattr(module, name) for name in names):
                return module
        return None

    def _putting(self, mixer: TokenMixer) -> Callable[[], None]:
        like = next(self.block.parameters())
        mixer.to(device=like.device, dtype=like.dtype).train(self.attn.training)
        replacement = keep_weights(self.attn, mixer)

        def put() -> None:
            mixer.replacement = replacement  # type: ignore[assignment]
            self.block.attn = mixer

        return put
