"""timm's ViT and Swin blocks as hosts of another mechanism. Imported only for a model of timm's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from timm.layers import Attention
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer import WindowAttention as TimmWindowAttention
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from timm.models.swin_transformer_v2 import WindowAttention as TimmWindowAttentionV2
from timm.models.vision_transformer import Block, ResPostBlock
from torch import nn

from visionattn.attention.base import QKVAttention, TokenMixer
from visionattn.attention.build import build_attention
from visionattn.attention.softmax import SoftmaxAttention
from visionattn.backbones.depth import with_host_options
from visionattn.backbones.kept_weights import keep_weights
from visionattn.backbones.patch_map import PatchMap, patch_grid
from visionattn.backbones.replaceable import ReplaceableBlock
from visionattn.backbones.timm_blocks import ResPostTokenBlock, TokenBlock, WholeMapBlock, WholeMapBlockV2
from visionattn.typing import Grid

# A block -> what it becomes, and the attention that it must have for that.
_TOKENS: dict[type[nn.Module], tuple[type[nn.Module], type[nn.Module]]] = {
    Block: (TokenBlock, Attention),
    ResPostBlock: (ResPostTokenBlock, Attention),
}
_MAPS: dict[type[nn.Module], tuple[type[nn.Module], type[nn.Module]]] = {
    SwinTransformerBlock: (WholeMapBlock, TimmWindowAttention),
    SwinTransformerV2Block: (WholeMapBlockV2, TimmWindowAttentionV2),
}
_BEYOND = {
    "q_norm": "normalises queries (qk_norm)",
    "k_norm": "normalises keys (qk_norm)",
    "norm": "normalises the attended values (scale_norm)",
    "gate": "gates the attended values",
}


def timm_replaceable(model: nn.Module, path: str, block: nn.Module) -> ReplaceableBlock | None:
    """The block as a host; None if it is none of timm's, or one that nobody here knows."""
    for kinds, host in ((_TOKENS, _TokenHost), (_MAPS, _MapHost)):
        for kind, (becomes, attention) in kinds.items():
            if type(block) in (kind, becomes):
                return host(model, path, block, becomes, attention)
    return None


class _TimmHost(ReplaceableBlock):
    def __init__(
        self, model: nn.Module, path: str, block: nn.Module, becomes: type[nn.Module], attention: type[nn.Module]
    ) -> None:
        super().__init__(model, path, block)
        self.becomes = becomes
        self.attention = attention

    def check(self) -> None:
        super().check()
        if isinstance(self.attn, TokenMixer):
            return
        if type(self.attn) is not self.attention:
            raise ValueError(
                f"{self.where!r} is {type(self.attn).__name__}, which computes more than qkv and proj tell (positions, "
                f"norms or gates); replace_attention takes the place of timm's {self.attention.__name__} itself: "
                "choose other blocks, or a model without it"
            )
        for name, what in _BEYOND.items():
            if not isinstance(getattr(self.attn, name, None), nn.Identity | None):
                raise ValueError(
                    f"{self.where!r} {what}, which no mechanism here would go on doing; choose other blocks, or a "
                    "model without it"
                )
        for name in ("qkv", "proj"):
            linear = getattr(self.attn, name)
            if type(linear) is not nn.Linear:
                raise ValueError(
                    f"'{self.where}.{name}' is {type(linear).__name__}, not nn.Linear: its weights cannot be kept; "
                    "replace the attention before it is adapted, quantised or parametrised"
                )

    def dim(self) -> int:
        return int(self.attn.dim) if isinstance(self.attn, TokenMixer) else int(self.attn.qkv.in_features)


class _TokenHost(_TimmHost):
    """A ViT's block, on tokens [B, P + N, C]."""

    def grid(self) -> Grid | None:
        owner: Any = self.owner("patch_embed", "num_prefix_tokens")
        grid = None if owner is None else getattr(owner.patch_embed, "grid_size", None)
        return None if grid is None else tuple(grid)

    def installation(self, mixer: TokenMixer) -> Callable[[], None]:
        try:
            mixer.check_prefix_tokens()
            watch, prefix, number = None, None, 0
        except ValueError:
            watch, prefix, number = self._map_parts(mixer)
        put = super()._putting(mixer)

        def install() -> None:
            self.block.__class__ = self.becomes
            self.block.patch_map = None if watch is None else PatchMap(patch_grid(watch), prefix, number)
            put()

        return install

    def _map_parts(self, mixer: TokenMixer) -> tuple[nn.Module, SoftmaxAttention | None, int]:
        """For a mechanism that sees the map: the embedding that tells its grid, and what the tokens before it need."""
        owner: Any = self.owner("patch_embed", "num_prefix_tokens")
        if owner is None or not hasattr(owner.patch_embed, "dynamic_feat_size"):
            raise ValueError(
                f"{type(mixer).__name__} goes by where tokens lie on the map, and no patch embedding above the block "
                "tells that; pass the whole vision transformer, or take a mechanism that does not, as SoftmaxAttention"
            )
        number = owner.num_prefix_tokens
        return owner.patch_embed, self._prefix() if number else None, number

    def _prefix(self) -> SoftmaxAttention:
        """Softmax attention with a copy of the block's weights."""
        earlier: PatchMap | None = getattr(self.block, "patch_map", None)
        if earlier is not None and earlier.prefix is not None:
            return earlier.prefix
        if isinstance(self.attn, TokenMixer) and not isinstance(self.attn, QKVAttention):
            raise ValueError(
                f"no weights of qkv and proj are left in {type(self.attn).__name__} for the class token; replace the "
                "attention of the pretrained model instead"
            )
        prefix = build_attention(with_host_options("SoftmaxAttention", self.options()), self.dim())
        like = next(self.attn.parameters())
        prefix.to(device=like.device, dtype=like.dtype).train(self.attn.training)
        keep_weights(copy.deepcopy(self.attn), prefix)
        assert isinstance(prefix, SoftmaxAttention)
        return prefix


class _MapHost(_TimmHost):
    """A Swin's block, on maps [B, H, W, C]."""

    def grid(self) -> Grid | None:
        return tuple(self.block.input_resolution)

    def options(self) -> dict[str, Any]:
        options = {
            "window": tuple(self.block.window_size),
            "shift": tuple(self.block.shift_size),
            "mask_padding": False,
            "shift_covered_axes": True,  # timm's block has decided already where not to shift
            "shift_before_padding": True,
        }
        trained = tuple(getattr(self.attn, "pretrained_window_size", ()))
        if trained and all(trained):
            options["pretrained_window"] = trained
        return options | super().options()

    def installation(self, mixer: TokenMixer) -> Callable[[], None]:
        put = super()._putting(mixer)

        def install() -> None:
            self.block.__class__ = self.becomes
            self.block.attn_mask = None
            put()

        return install
