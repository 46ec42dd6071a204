"""Images with boxes and masks in COCO's json, as a data set; LVIS too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from visionattn.data.images import read_image
from visionattn.detection.coco_json import (
    CocoJson,
    box_line,
    corners,
    decode_mask,
    file_name,
    inside,
    label_order,
    lies_outside,
    read_coco,
)
from visionattn.detection.inspection import problems_of_all
from visionattn.registry import DATASETS

Pipeline = Sequence[dict[str, Any] | Callable[..., Any]]


@DATASETS.register_module()
class CocoDetection(BaseDataset):
    """Objects as COCO's json lists them; its category ids, with gaps or not, become labels from 0 on.

    A box without area in its image is left out, and the log names the first. What the pipeline gets (see `raw`):
    `image` uint8 [H, W, 3] RGB, `boxes` float32 [N, 4] (left, top, right, bottom, cut off at the border), `labels`
    int64 [N], `crowd` bool [N], `masks` uint8 [N, H, W] if asked for, `image_id`, `file`, `ori_shape`.

    metainfo: `classes` in the order of the labels, `category_ids` (the json's id of each), `ann_file`, `federated`
    (the json says what `LvisMetric` needs). In a ConcatDataset of several files, `ignore_keys=["ann_file"]`.

    Args:
        data_root: the folder that `ann_file` and `image_dir` are relative to.
        ann_file: the json.
        image_dir: where the images lie that it names.
        classes: names, in the order of the labels; annotations of others are left out. All if None, by their ids.
        with_masks: decodes polygons and run lengths too.
        keep_empty: images without a single object stay; without them training sees objects everywhere.
        pipeline: transforms, as config dicts.
        test_mode: evaluation; never replaces a sample.
        indices: the first n images, or those of these positions.
        skip_bad: reads every image once before the first access, and leaves out and counts those that cannot be used,
            or have an annotation that means nothing; otherwise the first of them ends the run where it is met.
        lazy_init: leaves the files alone until the first access.
    Raises:
        FileNotFoundError: the json is missing.
        ValueError: a json of another form, ids that it does not explain, a class that it does not have.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        image_dir: str = "",
        *,
        classes: Sequence[str] | None = None,
        with_masks: bool = False,
        keep_empty: bool = True,
        pipeline: Pipeline = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        skip_bad: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.skip_bad = skip_bad
        self.skipped: list[str] = []  # a line about each thing for which an image was left out
        self.left_out = 0  # images
        self.classes = None if classes is None else tuple(classes)
        self.with_masks = with_masks
        self.keep_empty = keep_empty
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix={"img_path": image_dir},
            pipeline=list(pipeline),
            test_mode=test_mode,
            indices=indices,
            lazy_init=lazy_init,
        )

    def annotations(self) -> CocoJson:
        """The annotation file, with all that is wrong in it."""
        return read_coco(self.ann_file)

    def load_data_list(self) -> list[dict[str, Any]]:
        """mmengine's data list: of each image its file, size, boxes, labels and, if asked for, segmentations."""
        found = self.annotations()
        if found.problems and not self.skip_bad:
            more = f" and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
            raise ValueError(
                f"{found.path}: {found.problems[0][1]}{more}; correct the file (`visionattn data check` lists all), "
                "or leave such images out by skip_bad=True"
            )
        if found.degenerate:
            number = len(found.degenerate)
            what = (
                "1 box without area in its image is"
                if number == 1
                else f"{number} boxes without area in their image are"
            )
            print_log(
                f"{found.path}: {what} left out: {found.degenerate[0]}",
                logger="current",
                level=logging.WARNING,
            )
        order = label_order(found.categories, self.classes, found.path)
        by_label = sorted(order, key=order.__getitem__)
        self._metainfo |= {
            "classes": tuple(found.categories[category] for category in by_label),
            "category_ids": tuple(by_label),
            "ann_file": self.ann_file,
            "federated": found.federated,
        }
        infos = [
            self._info(image, found.annotations.get(image_id, []), order) for image_id, image in found.images.items()
        ]
        if self.skip_bad:
            infos = self._usable(infos, found)
        kept = [info for info in infos if self.keep_empty or not info["crowd"].all()]
        if not kept:
            if self.skipped:
                raise ValueError(f"{found.path}: no image can be used: {self.skipped[0]}")
            names = ", ".join(self._metainfo["classes"][:5])
            raise ValueError(
                f"{found.path}: no image has a single object of {names}; keep_empty=True keeps all {len(infos)}"
            )
        return kept

    def _usable(self, infos: list[dict[str, Any]], found: CocoJson) -> list[dict[str, Any]]:
        """Those of the images that can be read and used; what is wrong with the others is noted and logged."""
        kept = []
        self.skipped = [line for _, line in found.problems]
        for info, problems in zip(infos, problems_of_all(infos), strict=True):
            image_id = info["image_id"]
            lines = [line for _, line in problems]
            lines += [
                f"outside: {box_line(one, found.images[image_id])}"
                for one in found.annotations.get(image_id, [])
                if lies_outside(one, found.images[image_id])
            ]
            self.skipped += lines
            if not lines and image_id not in found.bad_images:
                kept.append(info)
        self.left_out = len(infos) - len(kept)
        if self.skipped:
            more = f", and {len(self.skipped) - 1:,} more" if len(self.skipped) > 1 else ""
            print_log(
                f"{type(self).__name__} leaves out {self.left_out:,} of {len(infos):,} images that cannot be used: "
                f"{self.skipped[0]}{more}",
                logger="current",
                level=logging.WARNING,
            )
        return kept

    def _info(self, image: dict[str, Any], annotations: list[dict[str, Any]], order: dict[int, int]) -> dict[str, Any]:
        kept = [one for one in annotations if one["category_id"] in order and inside(one, image)]
        info: dict[str, Any] = {
            "img_path": str(Path(self.data_prefix["img_path"]) / file_name(image)),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "boxes": np.array([corners(one, image) for one in kept], np.float32).reshape(-1, 4),
            "labels": np.array([order[one["category_id"]] for one in kept], np.int64),
            "crowd": np.array([bool(one.get("iscrowd", 0)) for one in kept], np.bool_),
        }
        if self.with_masks:
            info["segmentations"] = [one.get("segmentation") for one in kept]
            info["annotation_ids"] = [one.get("id") for one in kept]
        return info

    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels of the single objects of an image, by which mmengine's ClassBalancedDataset repeats rare classes."""
        info = self.get_data_info(idx)
        return sorted(set(info["labels"][~info["crowd"]].tolist()))

    def raw(self, index: int) -> dict[str, Any]:
        """What the pipeline gets of one image.

        Raises:
            FileNotFoundError, ValueError: the image is missing, cannot be read, or has another size than the json says;
                a mask that cannot be decoded; names the file.
        """
        info = self.get_data_info(index)
        image = read_image(info["img_path"])
        size = (info["height"], info["width"])
        if image.shape[:2] != size:
            raise ValueError(
                f"{info['img_path']} is {image.shape[0]} x {image.shape[1]}, the json says {size[0]} x {size[1]} "
                "(height x width): its boxes belong to another version of the image"
            )
        sample = {
            "image": image,
            **{key: info[key] for key in ("boxes", "labels", "crowd", "image_id")},
            "file": info["img_path"],
            "ori_shape": size,
        }
        if self.with_masks:
            sample["masks"] = _masks(info, size)
        return sample

    def prepare_data(self, idx: int) -> Any:
        """An image after the pipeline."""
        return self.pipeline(self.raw(idx))


def _masks(info: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """uint8 [N, H, W]."""
    masks = np.zeros((len(info["labels"]), *size), np.uint8)
    for mask, segmentation, number in zip(masks, info["segmentations"], info["annotation_ids"], strict=True):
        try:
            mask[:] = decode_mask(segmentation, *size)
        except ValueError as error:
            raise ValueError(f"annotation {number} of {info['img_path']}: {error}") from error
    return masks
