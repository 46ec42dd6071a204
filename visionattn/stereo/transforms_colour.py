"""albumentations on the colours of both views, alike or each for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from visionattn.data.augmentation import build_augmentation
from visionattn.data.randomness import generators, sample_seed
from visionattn.registry import TRANSFORMS
from visionattn.stereo.packing import as_rgb, check_sizes
from visionattn.stereo.transforms_scale import check_chance


@TRANSFORMS.register_module()
class StereoColour:
    """Colours of both views by the same random numbers or, as often as `asymmetric` says, by each view's own.

    Two cameras differ in exposure and white balance; but noise that is the same in both views would be texture that
    matches at disparity 0: give noise and blur a StereoColour of their own with asymmetric=1.

    Args:
        transforms: dict(type=<name in albumentations>, **its options), as in `build_augmentation`; any that leave
            pixels in their places.
        asymmetric: how often each view draws its own.
    Raises:
        ValueError: a transform moves pixels, or leaves a view in another shape.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], asymmetric: float = 0.2) -> None:
        check_chance("asymmetric", asymmetric)
        self.compose = build_augmentation(transforms, fill_mask=0)
        self.asymmetric = asymmetric
        for transform in _moving(self.compose.transforms):
            raise ValueError(
                f"{type(transform).__name__} moves pixels, and StereoColour may change colours alone; use "
                "visionattn's StereoRandomCrop, StereoRandomScale, StereoVerticalFlip or StereoHorizontalFlip"
            )

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        draw = np.random.default_rng(sample_seed())
        left, right = as_rgb(results["left"]), as_rgb(results["right"])
        seeds = [int(seed) for seed in draw.integers(2**63, size=2)]
        own = draw.random() < self.asymmetric
        return results | {
            "left": self._changed(left, seeds[0]),
            "right": self._changed(right, seeds[1] if own else seeds[0]),
        }

    def _changed(self, view: np.ndarray, seed: int) -> np.ndarray:
        self.compose.set_random_state(*generators(seed))
        changed: np.ndarray = self.compose(image=np.ascontiguousarray(view))["image"]
        if changed.shape != view.shape or changed.dtype != np.uint8:
            raise ValueError(
                f"{self!r} made {changed.dtype} {list(changed.shape)} of a view of uint8 {list(view.shape)}; "
                "StereoColour may change colours alone"
            )
        return changed

    def __repr__(self) -> str:
        return f"StereoColour({[type(transform).__name__ for transform in self.compose.transforms]})"


def _moving(transforms: Sequence[Any]) -> list[Any]:
    """Those that are not photometric, also out of OneOf and the like."""
    from visionattn.data.quiet_albumentations import albumentations as alb

    found: list[Any] = []
    for transform in transforms:
        if isinstance(transform, alb.BaseCompose):
            found += _moving(transform.transforms)
        elif not isinstance(transform, alb.ImageOnlyTransform | alb.NoOp):
            found.append(transform)
    return found
