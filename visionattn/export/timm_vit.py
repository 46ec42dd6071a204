"""timm's methods over a vision transformer, whose classifier may read a token that lies nowhere on the map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from timm.layers import global_pool_nlc
from torch import Tensor, nn

from visionattn.blocks.transformer import TransformerBlock
from visionattn.export.timm_features import taken
from visionattn.export.timm_model import TimmModel
from visionattn.typing import Tokens

_POOLS = ("token", "avg", "max", "avgmax", "")


class TimmTokenModel(TimmModel):
    """Over `VisionTransformer`. The classifier is `head`, as in timm's, behind the class token where there is one.

    Attributes:
        output_fmt: "NLC" with class, distillation or register tokens, else "NCHW".
        global_pool: "token", "avg", "max", "avgmax", or "" for none.
    """

    blocks: nn.Sequential
    classifier_name = "head"
    num_prefix_tokens: int
    global_pool: str
    forward_tokens: Callable[[Tensor, Sequence[int]], list[Tokens]]
    on_map: Callable[[Tokens, Tensor], Tokens]
    _raw: bool  # maps are handed out as the blocks leave them, and `norm` is the head's

    def forward_features(self, x: Tensor) -> Tensor:
        """The last block's tokens, normalised: [B, P + H * W, C] with prefix tokens, [B, C, H, W] without."""
        return self._features(self.forward_tokens(x, self.out_indices[-1:])[0])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooling and classifier; pooling alone with pre_logits."""
        if self.global_pool:
            tokens = x.flatten(2).transpose(1, 2) if x.dim() == 4 else x
            x = global_pool_nlc(tokens, self.global_pool, num_prefix_tokens=self.num_prefix_tokens)
        x = self.head_drop(x)
        return x if pre_logits else cast("Tensor", self.head(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The tokens of some blocks, with the final features before them.

        Args:
            x: image [B, in_chans, H, W].
            indices: places in feature_info; the last n for a number, all if None.
            norm: the final norm on every one.
            stop_early: the features are those of the last block asked for.
            output_fmt: "NCHW" for maps, "NLC" for their tokens in rows.
            intermediates_only: only the list.
        Raises:
            ValueError: no such block, one that was pruned, or another format.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt={output_fmt!r} must be NCHW or NLC")
        places = self._check_returned(taken(len(self.feature_info), indices))
        run = self._returned if not (stop_early or intermediates_only) else tuple(places)
        tokens = dict(zip(run, self.forward_tokens(x, self._stages(run)), strict=True))
        found = []
        for place in places:
            own = self.on_map(tokens[place], x)
            own = self.norm(own) if norm or not self._raw else own
            found.append(own.permute(0, 3, 1, 2) if output_fmt == "NCHW" else own.flatten(1, 2))
        return found if intermediates_only else (self._features(tokens[run[-1]]), found)

    def get_classifier(self) -> nn.Module:
        return cast("nn.Module", self.head)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = self._checked_pool(global_pool)
        like = next(self.blocks.parameters())
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head = head.to(like.device, like.dtype)

    def add_norm(self, raw: bool) -> None:
        self._raw = raw
        if raw:
            block = cast("TransformerBlock", self.blocks[0])
            self.norm = nn.LayerNorm(self.num_features, eps=block.norm1.eps)

    def add_head(self, num_classes: int, global_pool: str | None, drop_rate: float) -> None:
        default = "token" if self.num_prefix_tokens else "avg"
        self.output_fmt = "NLC" if self.num_prefix_tokens else "NCHW"
        self.head_drop = nn.Dropout(drop_rate)
        self.head_hidden_size = self.num_features
        self.reset_classifier(num_classes, default if global_pool is None else global_pool)

    def _drop_norm(self) -> None:
        if self._raw:
            self.norm = nn.Identity()

    def _features(self, tokens: Tokens) -> Tensor:
        x = self.norm(tokens)
        return cast("Tensor", x if self.num_prefix_tokens else x.permute(0, 3, 1, 2))

    def _checked_pool(self, pool: str) -> str:
        allowed = [one for one in _POOLS if one != "token" or self.num_prefix_tokens]
        if pool not in allowed:
            raise ValueError(f"global_pool={pool!r} must be one of {', '.join(map(repr, allowed))} here")
        return pool
