"""COCO's json: images, categories and annotations, put together by their ids and checked; LVIS writes the same."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from visionattn.detection.lvis_json import contradictions, federated_lack, unknown_categories


@dataclass
class CocoJson:
    """What an annotation file says.

    Attributes:
        path: of the file, for messages.
        images: by id, in the file's order.
        categories: id -> name, in the order of the ids.
        annotations: image id -> its annotations, without those of `problems`.
        problems: (kind, line) of each entry that means nothing: "category", "image", "box", "duplicate", "federated".
        bad_images: ids of the images whose entries or annotations are among `problems`.
        degenerate: a line for each box that has no area inside its image; it stays in `annotations`.
        federated: it says what LVIS's metric needs, see `lvis_json`.
        contradictions: a line for each category that is said not to be in an image, and is annotated there.
    """

    path: str
    images: dict[int, dict[str, Any]] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)
    annotations: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    problems: list[tuple[str, str]] = field(default_factory=list)
    bad_images: set[int] = field(default_factory=set)
    degenerate: list[str] = field(default_factory=list)
    federated: bool = False
    contradictions: list[str] = field(default_factory=list)


def read_coco(path: str | Path) -> CocoJson:
    """The annotation file, everything in it checked that needs no image.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not COCO's json: another structure, or nothing in it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no annotation file {path}; set data_root and ann_file")
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no json ({error}); fetch or export it again") from error
    return collected(content, str(path))


def collected(content: Any, path: str) -> CocoJson:
    """What json of COCO's form holds; see `read_coco`.

    Args:
        path: where it came from, for messages.
    """
    keys = ("images", "annotations", "categories")
    lacking = [key for key in keys if not isinstance(content, Mapping) or not isinstance(content.get(key), list)]
    if lacking:
        raise ValueError(
            f"{path} has no list of {lacking[0]}: COCO's instances json holds images, annotations and categories; "
            "a file of results or of image infos is no ground truth"
        )
    found = CocoJson(path)
    names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
    found.categories = dict(sorted(names.items()))
    for image in content["images"]:
        if image["id"] in found.images:
            found.problems.append(("duplicate", f"image id {image['id']} is listed twice"))
            found.bad_images.add(image["id"])
        found.images[image["id"]] = image
    if not found.images or not found.categories:
        raise ValueError(f"{path} lists {len(found.images)} images and {len(found.categories)} categories")
    seen: set[Any] = set()
    for annotation in content["annotations"]:
        problem = _problem(annotation, found)
        if annotation.get("id") in seen:
            problem = ("duplicate", f"annotation id {annotation['id']} is listed twice")
        seen.add(annotation.get("id"))
        if problem is not None:
            found.problems.append(problem)
            found.bad_images |= {annotation.get("image_id")} & found.images.keys()
            continue
        found.annotations[annotation["image_id"]].append(annotation)
        if not inside(annotation, found.images[annotation["image_id"]]):
            found.degenerate.append(box_line(annotation, found.images[annotation["image_id"]]))
    found.federated = federated_lack(content) is None
    for image_id, image in found.images.items():
        unknown = unknown_categories(image, found.categories)
        if unknown:
            found.problems += [("federated", line) for line in unknown]
            found.bad_images.add(image_id)
        found.contradictions += contradictions(image, found.annotations.get(image_id, ()))
    return found


def file_name(image: Mapping[str, Any]) -> str:
    """The image's file relative to the image folder; LVIS gives it within COCO by its address."""
    if image.get("file_name"):
        return str(image["file_name"])
    return "/".join(str(image.get("coco_url", f"image {image['id']}")).split("/")[-2:])


def corners(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """left, top, right, bottom of its box, cut off at the image's border."""
    x, y, width, height = annotation["bbox"]
    return (
        min(max(x, 0), image["width"]),
        min(max(y, 0), image["height"]),
        min(max(x + width, 0), image["width"]),
        min(max(y + height, 0), image["height"]),
    )


def box_line(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    """The box as a line for people."""
    x, y, width, height = annotation["bbox"]
    return (
        f"annotation {annotation.get('id')} of {file_name(image)}: x {x:g}, y {y:g}, width {width:g}, "
        f"height {height:g} in {image['width']} x {image['height']}"
    )


def inside(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    """Whether its box has an area in the image, also as float32."""
    left, top, right, bottom = corners(annotation, image)
    if right - left > 0.01 and bottom - top > 0.01:  # float32 is finer than that, and rounding takes a while
        return True
    left, top, right, bottom = np.array((left, top, right, bottom), np.float32).tolist()
    return right > left and bottom > top


def lies_outside(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    """Whether its box has an area, and none of it in the image."""
    return min(annotation["bbox"][2:]) > 0 and not inside(annotation, image)


def label_order(categories: Mapping[int, str], classes: Iterable[str] | None, path: str) -> dict[int, int]:
    """Category id -> label: the order of the ids, or that of `classes`, which may be fewer.

    Raises:
        ValueError: a class that the file does not have (nearest names offered), or names that are not unique.
    """
    if classes is None:
        return {category: label for label, category in enumerate(categories)}
    ids: dict[str, list[int]] = defaultdict(list)
    for category, name in categories.items():
        ids[name].append(category)
    order: dict[int, int] = {}
    for label, name in enumerate(classes):
        if name not in ids:
            close = get_close_matches(name, ids, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"it has {_some(list(ids))}"
            raise ValueError(f"classes names {name!r}, and {path} has no such category; {hint}")
        if len(ids[name]) > 1:
            raise ValueError(
                f"{path} has the category {name!r} under the ids {ids[name]}; give them names of their own"
            )
        if ids[name][0] in order:
            raise ValueError(f"classes names {name!r} twice")
        order[ids[name][0]] = label
    return order


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """uint8 [height, width], 1 in the object, of polygons, or of run lengths compressed or not.

    Raises:
        ValueError: run lengths of another size, or what is none of the three.
    """
    from pycocotools import mask as rle

    if isinstance(segmentation, Mapping) and "counts" in segmentation:
        size = list(segmentation.get("size", ()))
        if size != [height, width]:
            raise ValueError(f"its mask is {' x '.join(map(str, size))}, the image {height} x {width} (height x width)")
        plain = isinstance(segmentation["counts"], list)
        coded = rle.frPyObjects(segmentation, height, width) if plain else dict(segmentation)
        return np.asarray(rle.decode(coded), np.uint8)
    if isinstance(segmentation, list):
        # Fewer than three corners enclose nothing, and pycocotools takes four numbers for a box.
        polygons = [polygon for polygon in segmentation if isinstance(polygon, list) and len(polygon) >= 6]
        if polygons:
            return np.asarray(rle.decode(rle.merge(rle.frPyObjects(polygons, height, width))), np.uint8)
    raise ValueError("its segmentation is neither polygons of three corners or more nor run lengths")


def _problem(annotation: Mapping[str, Any], found: CocoJson) -> tuple[str, str] | None:
    """What makes an annotation unusable."""
    name = f"annotation {annotation.get('id')}"
    image = found.images.get(annotation.get("image_id", -1))
    if image is None:
        return "image", f"{name}: image id {annotation.get('image_id')} is not in the file's images"
    category = annotation.get("category_id")
    if category not in found.categories:
        return "category", f"{name} of {file_name(image)}: category id {category} is not in the file's categories"
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_finite(side) for side in box):
        return "box", f"{name} of {file_name(image)}: bbox is {box!r}, not [x, y, width, height]"
    return None


def _finite(number: Any) -> bool:
    return isinstance(number, int | float) and math.isfinite(number)


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
