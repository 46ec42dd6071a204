"""Image files as arrays."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Of the files in a folder that are taken for images."""

_ORIENTATION = 0x0112
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def read_image(path: str | Path) -> np.ndarray:
    """The image as RGB, [H, W, 3] uint8, turned as its EXIF orientation says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image that OpenCV decodes, or a JPEG that ends too early.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no image {path}")
    # A JPEG without its end is found first: of that libjpeg would complain on the terminal, too.
    image = None if _is_cut_off(path) else cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError(f"{path} cannot be decoded as an image; replace the file or take it out of the list")
    return image


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as `read_image` gives them, by the file's header: nothing is decoded.

    Of the EXIF orientation only JPEG's counts; in other formats it may lie behind the pixels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image that Pillow knows.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no image {path}")
    try:
        with Image.open(path) as image:
            turned = image.format == "JPEG" and image.getexif().get(_ORIENTATION, 1) >= 5  # by a quarter
            return (image.width, image.height) if turned else (image.height, image.width)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is not an image; replace the file or take it out of the list") from error


def _is_cut_off(path: str | Path) -> bool:
    """Whether the file is a JPEG without its end: OpenCV makes up the rest of it, in grey."""
    with open(path, "rb") as file:
        if file.read(2) != _JPEG:
            return False
        file.seek(-2, os.SEEK_END)
        if file.read() == _JPEG_END:
            return False
    try:  # cameras may put something behind the end: Pillow has the say
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError):
        return True
    return False
