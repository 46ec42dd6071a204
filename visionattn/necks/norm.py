"""The norms of necks, by the names that OpenMMLab's configs have for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from visionattn.typing import Feature


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a map [B, C, H, W], position by position."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Feature:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


_KINDS: dict[str, type[nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "GN": nn.GroupNorm,
    "LN2d": LayerNorm2d,
}


def build_norm(cfg: str | Mapping[str, Any], channels: int) -> nn.Module:
    """The norm that `cfg` describes: "LN2d", dict(type="GN", num_groups=32), dict(type="BN", requires_grad=False).

    Raises:
        KeyError: no norm of this name.
        TypeError: an option that the norm does not have.
        ValueError: num_groups does not divide the channels.
    """
    options: dict[str, Any] = {"type": cfg} if isinstance(cfg, str) else dict(cfg)
    kind = options.pop("type", None)
    if kind not in _KINDS:
        raise KeyError(f"no norm of a neck is called {kind!r}; known: {', '.join(_KINDS)}")
    trained = options.pop("requires_grad", True)
    if kind == "GN":
        groups = options.pop("num_groups", 32)
        if channels % groups:
            raise ValueError(f"num_groups={groups} does not divide the {channels} channels of the map")
        norm: nn.Module = nn.GroupNorm(groups, channels, **options)
    else:
        norm = _KINDS[kind](channels, **options)
    return norm if trained else norm.requires_grad_(False)


def normed(conv: nn.Conv2d, norm_cfg: str | Mapping[str, Any] | None) -> nn.Sequential:
    """The convolution with its norm behind it, as children 0 and 1; a norm takes the place of the bias."""
    if norm_cfg is None:
        return nn.Sequential(conv)
    conv.bias = None
    return nn.Sequential(conv, build_norm(norm_cfg, conv.out_channels))
