"""A trained stereo model on pairs of images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from visionattn.data.images import IMAGE_SUFFIXES, read_image
from visionattn.engine.trained_model import TrainedModel

Image = str | Path | np.ndarray
Pair = tuple[Image, Image]


class PairPredictor:
    """A stereo model from a config and a checkpoint, called on one pair at a time.

    The pair goes to the model as it is, in its own size; transforms of the config's data, which may crop, are for
    evaluation and are left out.

    Args:
        config, checkpoint, device: as of `visionattn.predict`.
    """

    def __init__(
        self, config: str | Path | Config, checkpoint: str | Path, device: str | torch.device | None = None
    ) -> None:
        from visionattn.stereo.packing import PackStereo

        self._trained = TrainedModel(config, checkpoint, device)
        self.model, self.device = self._trained.model, self._trained.device
        self._pack = PackStereo()

    def __call__(self, left: Image, right: Image) -> Any:
        """The StereoSample of two image files or RGB arrays [H, W, 3] uint8, on the model's device.

        Warns where the right image's things stand further right than the left image's.

        Raises:
            FileNotFoundError: no such file.
            ValueError: an image cannot be read, or the two differ in size.
        """
        from visionattn.stereo.pair_check import looks_swapped

        names = tuple("an array" if isinstance(image, np.ndarray) else str(image) for image in (left, right))
        views = [image if isinstance(image, np.ndarray) else read_image(image) for image in (left, right)]
        for view in views:
            if view.dtype != np.uint8 or view.ndim != 3 or view.shape[2] != 3:
                raise ValueError(f"expected an RGB array [H, W, 3] uint8, got {view.dtype} {list(view.shape)}")
        (height, width), other = views[0].shape[:2], views[1].shape[:2]
        if (height, width) != other:
            raise ValueError(
                f"{names[0]} is {height} x {width}, {names[1]} is {other[0]} x {other[1]} (height x width); "
                "the two images of a rectified pair have one size"
            )
        if looks_swapped(*views):
            warnings.warn(
                f"{names[0]} and {names[1]} look swapped: things stand further right in the second one; "
                "give the left image first",
                stacklevel=2,
            )
        raw: dict[str, Any] = {"left": views[0], "right": views[1]}
        if not isinstance(left, np.ndarray):
            raw |= {"name": Path(left).stem, "left_path": str(left), "right_path": str(right)}
        return self._trained(self._pack(raw))


def expand_pairs(inputs: Any) -> list[Pair]:
    """Pairs of image files and arrays, with folders replaced by their images of equal names in order.

    Args:
        inputs: a pair (left, right), or a list of pairs; each of files, arrays or folders.
    Raises:
        FileNotFoundError: no such file or folder, no image in it, or an image without a partner.
        ValueError: not two images, or a folder beside an image.
    """
    entries = list(inputs) if isinstance(inputs, Sequence) and not isinstance(inputs, str) else [inputs]
    pairs = entries if entries and all(isinstance(entry, list | tuple) for entry in entries) else [entries]
    expanded: list[Pair] = []
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError(f"a stereo model predicts on pairs: expected a left and a right image, got {len(pair)}")
        left, right = pair
        if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
            expanded.append((left, right))
        else:
            expanded.extend(_files(Path(left).expanduser(), Path(right).expanduser()))
    return expanded


def _files(left: Path, right: Path) -> list[Pair]:
    for path in (left, right):
        if not path.exists():
            raise FileNotFoundError(f"no image {path}")
    if left.is_dir() != right.is_dir():
        raise ValueError(f"{left} and {right}: one is a folder, the other an image; give two of a kind")
    if left.is_file():
        return [(left, right)]
    lefts, rights = _images(left), _images(right)
    for ours, theirs, folder in ((lefts, rights, right), (rights, lefts, left)):
        lone = sorted(set(ours) - set(theirs))
        if lone:
            also = f" and {len(lone) - 1} more" if len(lone) > 1 else ""
            raise FileNotFoundError(f"{ours[lone[0]]}{also} has no partner of that name in {folder}")
    return [(lefts[name], rights[name]) for name in sorted(lefts)]


def _images(folder: Path) -> dict[str, Path]:
    """The images in and below the folder by their names in it, without suffix."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not files:
        raise FileNotFoundError(f"no image in {folder}; looked for {', '.join(IMAGE_SUFFIXES)}")
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
