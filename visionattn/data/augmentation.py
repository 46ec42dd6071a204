"""albumentations pipelines from config dicts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import albumentations


def build_augmentation(
    transforms: Sequence[Mapping[str, Any]],
    *,
    fill_mask: int,
    bbox_params: albumentations.BboxParams | None = None,
) -> albumentations.Compose:
    """The albumentations pipeline of `transforms`; masks are resampled by the nearest pixel and stay labels.

    Args:
        transforms: dict(type=<class>, **its options), of albumentations or of ours (CategoryCrop, FittedResize,
            LargeScaleJitter, PhotometricDistortion, ScaledCrop); OneOf, SomeOf and Sequential nest by `transforms`.
        fill_mask: what padding puts into a mask, unless a transform's own fill_mask says otherwise. Transforms that
            leave the mask alone by default (dropouts) still do.
        bbox_params: how boxes come along; none do if None.
    Raises:
        KeyError: there is no such transform; the message has the nearest names.
        TypeError: an option that the transform does not have.
        ValueError: an option's value.
    """
    import cv2

    from visionattn.data.quiet_albumentations import albumentations as alb

    return alb.Compose(
        [_build(cfg, fill_mask) for cfg in transforms],
        bbox_params=bbox_params,
        mask_interpolation=cv2.INTER_NEAREST,
    )


def _build(cfg: Mapping[str, Any], fill_mask: int) -> Any:
    if not isinstance(cfg, Mapping) or "type" not in cfg:
        raise KeyError(f'an albumentations transform is written dict(type="HorizontalFlip", p=0.5), got {cfg!r}')
    options = dict(cfg)
    name = options.pop("type")
    known = _transforms()
    if name not in known:
        close = get_close_matches(str(name), known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "names: https://explore.albumentations.ai"
        raise KeyError(f"albumentations has no transform {name!r}; {hint}")
    transform = known[name]
    if "transforms" in options:
        options["transforms"] = [_build(inner, fill_mask) for inner in options["transforms"]]
    allowed = inspect.signature(transform).parameters
    unknown = [option for option in options if option not in allowed]
    if unknown:
        has = ", ".join(option for option in allowed if option != "kwargs")
        raise TypeError(f"{name} has no option {unknown[0]!r}; it has {has}")
    if "fill_mask" in allowed and allowed["fill_mask"].default is not None:
        options.setdefault("fill_mask", fill_mask)
    try:
        return transform(**options)
    except ValueError as error:  # pydantic's message is many lines
        reason = " ".join(line.strip() for line in str(error).splitlines() if "errors.pydantic.dev" not in line)
        raise ValueError(f"{name} refuses its options: {reason}") from error


def _transforms() -> dict[str, type]:
    """Class by name: albumentations', then ours."""
    from visionattn.data.category_crop import CategoryCrop
    from visionattn.data.fitted_resize import FittedResize
    from visionattn.data.large_scale_jitter import LargeScaleJitter
    from visionattn.data.photometric import PhotometricDistortion
    from visionattn.data.quiet_albumentations import albumentations as alb
    from visionattn.data.scaled_crop import ScaledCrop

    kinds = (alb.BasicTransform, alb.BaseCompose)
    theirs = {key: value for key, value in vars(alb).items() if inspect.isclass(value) and issubclass(value, kinds)}
    ours = (CategoryCrop, FittedResize, LargeScaleJitter, PhotometricDistortion, ScaledCrop)
    return theirs | {transform.__name__: transform for transform in ours}
