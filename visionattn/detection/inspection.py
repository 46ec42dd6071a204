"""One image with its annotations: everything that keeps it from being used."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from PIL import Image

from visionattn.data.images import image_size, read_image
from visionattn.detection.coco_json import decode_mask


def problems_of(info: Mapping[str, Any], decode: bool) -> list[tuple[str, str]]:
    """(kind, line) of what is wrong with an image and its masks: "missing", "undecodable", "size", "mask".

    Args:
        info: of mmengine's data list, see `CocoDetection`.
        decode: reads all of the file, not its header alone.
    """
    problems = []
    size = (info["height"], info["width"])
    try:
        if decode:
            with Image.open(info["img_path"]) as file:  # OpenCV returns the first half of a truncated file
                file.load()
        there = read_image(info["img_path"]).shape[:2] if decode else image_size(info["img_path"])
        if there != size:
            line = f"{info['img_path']} is {there[0]} x {there[1]}, the json says {size[0]} x {size[1]}"
            problems.append(("size", f"{line} (height x width)"))
    except FileNotFoundError:
        problems.append(("missing", info["img_path"]))
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        line = " ".join(str(error).split())
        problems.append(("undecodable", line if info["img_path"] in line else f"{info['img_path']} ({line})"))
    for segmentation, number in zip(info.get("segmentations", ()), info.get("annotation_ids", ()), strict=True):
        try:
            decode_mask(segmentation, *size)
        except ValueError as error:
            problems.append(("mask", f"annotation {number} of {info['img_path']}: {error}"))
    return problems


def problems_of_all(infos: Iterable[Mapping[str, Any]]) -> list[list[tuple[str, str]]]:
    """`problems_of` each, all of every file read, several at a time."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(partial(problems_of, decode=True), infos))
