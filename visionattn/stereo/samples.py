"""One stereo pair: its files, and the raw sample that is read from them."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import numpy as np

from visionattn.data.images import read_image
from visionattn.stereo.truth import TruthFormat, read_mask


class PairFiles(NamedTuple):
    """Where a pair lies; what there is not is None or empty.

    Attributes:
        name: of the pair within its data set, "A/0032/0006" or "000000_10".
        left, right: the images.
        disparity, right_disparity: their disparity maps.
        nonoccluded: the files that say what both images see; the data set's format knows how.
        foreground: an image that is not 0 on what moves by itself (KITTI's object maps).
    """

    name: str
    left: str
    right: str
    disparity: str | None = None
    right_disparity: str | None = None
    nonoccluded: tuple[str, ...] = ()
    foreground: str | None = None

    def all_files(self) -> tuple[str, ...]:
        named = (self.left, self.right, self.disparity, self.right_disparity, *self.nonoccluded, self.foreground)
        return tuple(file for file in named if file is not None)


class Maps(TypedDict, total=False):
    """What is known of each pixel, [H, W]; nothing of a pair without truth.

    disparity: float32, pixels of the left image, 0 or more, x_right = x_left - disparity; 0 where not valid.
    valid: bool, where the disparity is known.
    nonoccluded: bool, what both images see; absent where the data set does not say.
    foreground: bool, what moves by itself; absent where the data set does not say.
    right_disparity: float32, pixels of the right image, 0 or more, x_left = x_right + disparity; 0 where not known.
    """

    disparity: np.ndarray
    valid: np.ndarray
    nonoccluded: np.ndarray
    foreground: np.ndarray
    right_disparity: np.ndarray


class RawSample(Maps):
    """What stereo data sets hand to transforms.

    left, right: uint8 [H, W, 3], RGB.
    name: of the pair within its data set.
    left_path, right_path, disparity_path: the files; None where there is no such file.
    """

    left: np.ndarray
    right: np.ndarray
    name: str
    left_path: str | None
    right_path: str | None
    disparity_path: str | None


def read_pair(files: PairFiles, truth: TruthFormat) -> RawSample:
    """The raw sample of these files. Images may be grey, RGBA or of 16 bits.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file cannot be read, sizes differ, or the truth holds NaN or no valid pixel; names the file.
    """
    left, right = read_image(files.left), read_image(files.right)
    check_views(files, left.shape[:2], right.shape[:2])
    return {
        **read_maps(files, truth, left.shape[:2]),
        "left": left,
        "right": right,
        "name": files.name,
        "left_path": files.left,
        "right_path": files.right,
        "disparity_path": files.disparity,
    }


def read_maps(files: PairFiles, truth: TruthFormat, size: tuple[int, int]) -> Maps:
    """What is known of the pair's pixels.

    Args:
        size: height and width of the images.
    Raises:
        FileNotFoundError, ValueError: as `read_pair` does.
    """
    maps: Maps = {}
    if files.disparity is not None:
        maps["disparity"], maps["valid"] = truth.disparity(files.disparity)
        _check_map(files, files.disparity, maps["disparity"], size)
        if not maps["valid"].any():
            raise ValueError(
                f"{files.disparity} has no valid pixel: nothing can be learned or scored there; replace the file, "
                "leave it out of the list, or set skip_bad=True"
            )
    if files.right_disparity is not None:
        maps["right_disparity"] = truth.disparity(files.right_disparity).disparity
        _check_map(files, files.right_disparity, maps["right_disparity"], size)
    if files.nonoccluded and truth.nonoccluded is not None:
        maps["nonoccluded"] = truth.nonoccluded(files.nonoccluded)
        _check_map(files, files.nonoccluded[0], maps["nonoccluded"], size)
    if files.foreground is not None:
        maps["foreground"] = read_mask(files.foreground) > 0
        _check_map(files, files.foreground, maps["foreground"], size)
    return maps


def check_views(files: PairFiles, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    """Raises ValueError unless both images have this one size (height, width)."""
    if left != right:
        raise ValueError(
            f"{files.left} is {_size(left)}, {files.right} is {_size(right)} (height x width); "
            "the two images of a rectified pair have one size"
        )


def _check_map(files: PairFiles, path: str, found: np.ndarray, size: tuple[int, int]) -> None:
    if found.shape != size:
        raise ValueError(
            f"{path} is {_size(found.shape)}, {files.left} is {_size(size)} (height x width); "
            "a map has the size of its images: look whether both are of one resolution"
        )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
