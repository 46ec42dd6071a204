"""Levels above those that a backbone gives, at half the resolution each.

Compared with: torchvision 0.26 `LastLevelMaxPool` and `LastLevelP6P7` (same parameter names).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from torch import nn
from torch.nn import functional as F

from visionattn.registry import MODELS
from visionattn.typing import Feature


class ExtraLevels(nn.Module):
    """Further maps of a pyramid.

    Args:
        in_channels: of the last of the neck's inputs, given by the neck.
        out_channels: of the pyramid, given by the neck.
    """

    number: ClassVar[int]
    """How many maps it adds."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, outputs: Sequence[Feature], inputs: Sequence[Feature]) -> list[Feature]:
        """The maps that follow those of the pyramid.

        Args:
            outputs: the pyramid's maps, [B, out_channels, H, W] each.
            inputs: what the neck made them from.
        """


@MODELS.register_module()
class LastLevelMaxPool(ExtraLevels):
    """Every other pixel of the last map: P6 of Faster and Mask R-CNN (Lin et al., CVPR 2017)."""

    number = 1

    def forward(self, outputs: Sequence[Feature], inputs: Sequence[Feature]) -> list[Feature]:
        return [F.max_pool2d(outputs[-1], kernel_size=1, stride=2)]


@MODELS.register_module()
class LastLevelP6P7(ExtraLevels):
    """Two strided convolutions one after the other, with a ReLU between: RetinaNet's (Lin et al., ICCV 2017).

    Args:
        on_output: the first looks at the pyramid's last map, as in FCOS and torchvision's second RetinaNet; False at
            the neck's last input, as published.
    """

    number = 2

    def __init__(self, in_channels: int, out_channels: int, *, on_output: bool = False) -> None:
        super().__init__(in_channels, out_channels)
        self.on_output = on_output
        self.p6 = nn.Conv2d(out_channels if on_output else in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            init_conv(conv)

    def forward(self, outputs: Sequence[Feature], inputs: Sequence[Feature]) -> list[Feature]:
        p6 = self.p6(outputs[-1] if self.on_output else inputs[-1])
        return [p6, self.p7(F.relu(p6))]


def build_extra_levels(cfg: str | Mapping[str, Any] | None, in_channels: int, out_channels: int) -> ExtraLevels | None:
    """The levels that a config describes: "LastLevelMaxPool", dict(type="LastLevelP6P7", on_output=True), or None.

    Raises:
        KeyError, TypeError: not the config of any.
    """
    if cfg is None:
        return None
    options = {"type": cfg} if isinstance(cfg, str) else dict(cfg)
    built = MODELS.get(options.get("type", ""))
    if not (isinstance(built, type) and issubclass(built, ExtraLevels)):
        raise KeyError(f"extra_levels={cfg!r} names no levels of a pyramid; known: LastLevelMaxPool, LastLevelP6P7")
    # The class itself: while a config of another scope is at work, its name without a scope would not be ours.
    options |= {"type": built, "in_channels": in_channels, "out_channels": out_channels}
    return cast("ExtraLevels", MODELS.build(options))


def init_conv(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Weights uniform within sqrt(3 / fan_in), bias zero: as torchvision's and detectron2's pyramids start."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
