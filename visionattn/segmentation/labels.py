"""What the numbers in a mask file mean, and that every one of them means something.

Inside the package a label is uint8: 0..K-1, or 255 = ignored. mmseg's loader drops labels of K and more silently and
wraps 16-bit files (300 becomes 44); here they are refused, with file, pixel and value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from visionattn.data.images import image_size, read_image

IGNORE = 255
"""The label that loss and metric leave out."""

_PNG, _GREY_8_BIT, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\x08\x00", b"IEND\xaeB`\x82"
_VALUES = 1 << 16
_REFUSED = 254  # "no label" among 8-bit labels, unless there are 255 classes: then the slower way decides


@dataclass(frozen=True)
class LabelCheck:
    """How much of a dataset was looked at."""

    checked: int
    total: int

    def __str__(self) -> str:
        how = "" if self.checked == self.total else ", evenly spaced"
        return f"checked the labels and sizes of {self.checked} of {self.total} masks{how}"


def read_mask(path: str | Path) -> np.ndarray:
    """The mask as it lies in the file, [H, W], of the file's own integer type (of a palette file: the indices).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, or not one channel of integers.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no mask {path}")
    file = Path(path).read_bytes()
    # The usual mask, which OpenCV decodes faster; where it fails, Pillow has the say and the words.
    if file[24:26] == _GREY_8_BIT and file.startswith(_PNG) and file.endswith(_PNG_END):
        decoded = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is not None and decoded.ndim == 2:
            return decoded
    try:
        # Not OpenCV: it turns palette files into colours and stretches 1-bit files to 0 and 255.
        with Image.open(path) as image:
            mode, mask = image.mode, np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"mask {path} cannot be decoded ({error}); replace the file") from error
    if mask.dtype == np.bool_:
        mask = mask.astype(np.uint8)
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(
            f"mask {path} has mode {mode}; a mask is one channel of class numbers (8 or 16 bit, or a palette): "
            "convert colours to class numbers first"
        )
    return mask


def resolve_label_map(label_map: Mapping[int, int | str] | None, classes: Sequence[str] | None) -> dict[int, int]:
    """(number in the masks -> class number or 255) of a label map as users write it: `{0: "ignore", 255: "person"}`.

    Args:
        label_map: keys may be strings of digits, as a config file that was written out has them.
        classes: names in the order of their numbers.
    Raises:
        ValueError: a key is no 16-bit number, or a value is neither a class's name or number nor "ignore" or 255.
    """
    names = list(classes or ())
    resolved = {}
    for key, meaning in (label_map or {}).items():
        number = int(key) if isinstance(key, str) and key.isdecimal() else key
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < _VALUES:
            raise ValueError(f"label_map has the key {key!r}; a key is a number in the masks, 0 to {_VALUES - 1}")
        resolved[number] = _meaning(number, meaning, names)
    return resolved


def _meaning(number: int, meaning: int | str, names: Sequence[str]) -> int:
    if isinstance(meaning, str):
        if meaning in names:
            return names.index(meaning)
        if meaning == "ignore":
            return IGNORE
        close = get_close_matches(meaning, [*names, "ignore"], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the classes are {', '.join(names[:5])}"
        raise ValueError(f"label_map sends {number} to {meaning!r}, which is no class; {hint}")
    if (
        isinstance(meaning, bool)
        or not isinstance(meaning, int)
        or (meaning != IGNORE and meaning not in range(len(names)))
    ):
        raise ValueError(
            f"label_map sends {number} to {meaning!r}; it may send to a class's name, 0..{len(names) - 1}, or "
            f'"ignore" ({IGNORE})'
        )
    return meaning


def label_map_items(label_map: Mapping[int, int] | None) -> tuple[tuple[int, int], ...]:
    """`label_map` as `label_table` takes it."""
    return tuple(sorted((label_map or {}).items()))


@lru_cache(maxsize=32)
def label_table(
    num_classes: int, reduce_zero_label: bool = False, label_map: tuple[tuple[int, int], ...] = ()
) -> np.ndarray:
    """[65536] int16: the label of each number that a mask may hold, -1 where the number is refused.

    Args:
        num_classes: K, at most 255.
        reduce_zero_label: 0 is ignored and k means class k - 1, as in ADE20K.
        label_map: (number, label) after `reduce_zero_label`; a number that is not in it is its own label.
    Raises:
        ValueError: K is not from 1 to 255, or label_map leads to something that is no label.
    """
    if not 1 <= num_classes <= IGNORE:
        raise ValueError(f"{num_classes} classes; masks can tell 1 to {IGNORE} apart ({IGNORE} itself means ignored)")
    labels = np.full(_VALUES, -1, np.int16)
    labels[:num_classes] = np.arange(num_classes)
    labels[IGNORE] = IGNORE
    for number, label in label_map:
        if label != IGNORE and not 0 <= label < num_classes:
            raise ValueError(
                f"label_map sends {number} to {label}; it may send to 0..{num_classes - 1} or {IGNORE} (ignored)"
            )
        labels[number] = label
    if reduce_zero_label:
        labels = np.roll(labels, 1)
        labels[0] = labels[IGNORE] = IGNORE
        labels[IGNORE + 1] = -1
    labels.flags.writeable = False
    return labels


def to_labels(mask: np.ndarray, table: np.ndarray, path: str | Path) -> np.ndarray:
    """[H, W] uint8 labels of the numbers in `mask`.

    Args:
        mask: [H, W], any integer type.
        table: of `label_table`.
        path: the mask's file, for the message.
    Raises:
        ValueError: a number that has no label; names the file, the first such pixel, and what is allowed.
    """
    if mask.dtype == np.uint8:
        quickly = cv2.LUT(mask, np.where(table[:256] < 0, _REFUSED, table[:256]).astype(np.uint8))
        if not (quickly == _REFUSED).any():
            return quickly
    outside = (mask < 0) | (mask >= _VALUES) if mask.dtype.itemsize > 2 or mask.dtype.kind == "i" else None
    labels = table[mask if outside is None else np.where(outside, 0, mask)]
    refused = labels < 0 if outside is None else (labels < 0) | outside
    if refused.any():
        row, column = np.unravel_index(refused.argmax(), mask.shape)
        raise ValueError(
            f"mask {path}: row {row}, column {column} holds {mask[row, column]}; allowed are {allowed_numbers(table)}: "
            "correct the mask, or name its class in the dataset's classes, or its ignore_index"
        )
    return labels.astype(np.uint8)


def check_labels(
    pairs: Sequence[tuple[str, str]], table: np.ndarray, *, limit: int = 2000, threads: int = 4
) -> LabelCheck:
    """Reads masks as training would, and how many it read; every file when there are at most `limit`.

    Args:
        pairs: (image file, mask file).
        table: of `label_table`.
        limit: above this number of masks, as many evenly spaced ones are read.
        threads: files read at a time.
    Raises:
        FileNotFoundError: a file of a pair is missing.
        ValueError: of the first file (in the order of `pairs`) that cannot be decoded, whose mask holds a refused
            number, or whose image and mask differ in size.
    """
    if len(pairs) > limit:
        pairs_read = [pairs[i] for i in np.linspace(0, len(pairs) - 1, limit).round().astype(int)]
    else:
        pairs_read = list(pairs)

    def check(pair: tuple[str, str]) -> None:
        image, mask_file = pair
        mask = read_mask(mask_file)
        to_labels(mask, table, mask_file)
        # Only decoding is certain (EXIF in PNG), so a header that disagrees is not yet a mismatch.
        if image_size(image) != mask.shape:
            check_size(read_image(image).shape[:2], mask.shape, image, mask_file)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for _ in pool.map(check, pairs_read):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return LabelCheck(len(pairs_read), len(pairs))


def check_size(image_shape: Sequence[int], mask_shape: Sequence[int], image: str, mask: str) -> None:
    """Raises ValueError unless image and mask, (height, width), are of one size."""
    if tuple(image_shape) != tuple(mask_shape):
        raise ValueError(
            f"image {image} is {image_shape[0]} x {image_shape[1]} (height x width) but its mask {mask} is "
            f"{mask_shape[0]} x {mask_shape[1]}; they must be equal: rescale the mask by the nearest pixel"
        )


def allowed_numbers(table: np.ndarray) -> str:
    """The numbers of the table in words: "0..10 or ignored 11, 255"."""
    classes = _ranges(np.flatnonzero((table >= 0) & (table != IGNORE)))
    return f"{classes} or ignored {_ranges(np.flatnonzero(table == IGNORE))}"


def _ranges(numbers: np.ndarray) -> str:
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs if len(run))
