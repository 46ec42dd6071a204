"""Any backbone of the toolkit as the feature extractor of a stereo network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from visionattn.backbones.build import create_backbone
from visionattn.necks.fpn import FPN
from visionattn.typing import Feature


class BackboneFeatures(nn.Module):
    """A backbone and a feature pyramid on it: image -> maps of equal width at the strides that a network matches at.

    Args:
        backbone: as `create_backbone` takes it, such as "resnet18" or dict(type="SwinTransformer", depths=(2, 2)).
        channels: of the maps returned.
        strides: of the maps returned, in that order.
    Raises:
        KeyError: no backbone is called so.
        ValueError: it has no map at one of the strides, or does not say at which it has.
    """

    def __init__(self, backbone: str | Mapping[str, Any], channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.body = create_backbone(backbone)
        given: Sequence[int] | None = getattr(self.body, "strides", None)
        if given is None or any(stride not in given for stride in strides):
            has = "does not say where it has maps" if given is None else f"has maps at {', '.join(map(str, given))}"
            wanted = " and ".join(map(str, strides))
            raise ValueError(f"the features are read at stride {wanted}, and {backbone!r} {has}; take another backbone")
        self.finest = min(given.index(stride) for stride in strides)
        self.levels = [given.index(stride) - self.finest for stride in strides]
        widths: Sequence[int] = getattr(self.body, "out_channels")  # noqa: B009  # an attribute of no Module's type
        self.neck = FPN(widths[self.finest :], channels)
        for level in range(len(self.neck.in_channels)):
            if level not in self.levels:  # nobody reads that map: its weights would never get a gradient
                self.neck.layer_blocks[level] = nn.Identity()

    def forward(self, image: Tensor) -> list[Feature]:
        """Maps [B, channels, H / stride, W / stride] of an image [B, 3, H, W]."""
        pyramid = self.neck(self.body(image)[self.finest :])
        return [pyramid[level] for level in self.levels]
