"""Any pair of images, in sides that a network takes: padded before it, its disparity cropped back behind it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

_FILLS = {"edge": "replicate", "zeros": "constant"}
_SIDES = ("top_right", "centre")


class Padder:
    """Pads both views alike, which changes no disparity.

    Args:
        divisor: of both sides of what a network takes.
        smallest: the least side that it takes.
        side: where the padding goes: "top_right" (PSMNet, KITTI) or "centre", half of it on each side (RAFT-Stereo).
        fill: "edge" repeats the border, "zeros" is the mean colour once images are normalised.
    Raises:
        ValueError: an argument that makes no sense.
    """

    def __init__(self, divisor: int = 1, smallest: int = 1, side: str = "top_right", fill: str = "edge") -> None:
        if divisor < 1 or smallest < 1:
            raise ValueError(f"divisor={divisor} and smallest={smallest} must be 1 or more")
        for name, value, known in (("side", side, _SIDES), ("fill", fill, tuple(_FILLS))):
            if value not in known:
                raise ValueError(f"padding: {name}={value!r} must be {' or '.join(map(repr, known))}")
        self.divisor, self.smallest, self.side, self.fill = divisor, smallest, side, fill

    def pad(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Both views [B, C, H, W] with sides that are multiples of the divisor, and not below the smallest.

        Raises:
            ValueError: the views differ in size.
        """
        if left.shape != right.shape or left.dim() != 4:
            raise ValueError(f"expected views [B, C, H, W] of one size, got {list(left.shape)} and {list(right.shape)}")
        amounts = self._amounts(*left.shape[2:])
        if not any(amounts):
            return left, right
        return F.pad(left, amounts, mode=_FILLS[self.fill]), F.pad(right, amounts, mode=_FILLS[self.fill])

    def crop(self, disparity: Tensor, height: int, width: int) -> Tensor:
        """Of a disparity [..., H', W'] of padded views, the part [..., height, width] that is the image."""
        before, _, above, _ = self._amounts(height, width)
        return disparity[..., above : above + height, before : before + width]

    def _amounts(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Columns before and behind, rows above and below, in the order of `F.pad`."""
        rows, columns = (self._side(length) - length for length in (height, width))
        before, above = (columns // 2, rows // 2) if self.side == "centre" else (0, rows)
        return before, columns - before, above, rows - above

    def _side(self, length: int) -> int:
        return -(-max(length, self.smallest) // self.divisor) * self.divisor

    def __repr__(self) -> str:
        return f"Padder(divisor={self.divisor}, smallest={self.smallest}, side={self.side!r}, fill={self.fill!r})"
