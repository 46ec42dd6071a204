"""Pascal VOC's xml files as a detection data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from visionattn.detection.coco import CocoDetection, Pipeline
from visionattn.detection.coco_json import CocoJson, collected
from visionattn.registry import DATASETS

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@DATASETS.register_module()
class VOCDetection(CocoDetection):
    """Boxes of VOC's xml files: one folder of a year, as VOCdevkit/VOC2007.

        data_root/JPEGImages/000005.jpg    data_root/Annotations/000005.xml    data_root/ImageSets/Main/trainval.txt

    A difficult object is taken as a crowd: neither trained on nor held against a detector. The corners in the xml are
    pixels that belong to the object, counted from `first_pixel`; here a box reaches from edge to edge. metainfo holds
    `coco`, the same truth in the form of COCO's json, with `image_id`s from 1 on, instead of `ann_file`.

    Args:
        data_root: the folder above.
        split: a file of ImageSets/Main, without .txt.
        classes: names, in the order of the labels.
        first_pixel: 1 in VOC; tools that write 0 exist.
        image_suffix: how the images' names end.
        keep_empty, pipeline, test_mode, indices, skip_bad, lazy_init: as of `CocoDetection`.
    Raises:
        FileNotFoundError: the list or an xml file is missing.
        ValueError: an xml file that cannot be read, or names a class that `classes` does not have.
    """

    def __init__(
        self,
        data_root: str,
        split: str,
        *,
        classes: Sequence[str] = VOC_CLASSES,
        first_pixel: int = 1,
        image_suffix: str = ".jpg",
        keep_empty: bool = True,
        pipeline: Pipeline = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        skip_bad: bool = False,
        lazy_init: bool = False,
    ) -> None:
        if first_pixel not in (0, 1):
            raise ValueError(f"first_pixel={first_pixel!r} must be 1, as in VOC, or 0")
        self.first_pixel, self.image_suffix = first_pixel, image_suffix
        super().__init__(
            data_root,
            f"ImageSets/Main/{split}.txt",
            "JPEGImages",
            classes=classes,
            keep_empty=keep_empty,
            pipeline=pipeline,
            test_mode=test_mode,
            indices=indices,
            skip_bad=skip_bad,
            lazy_init=lazy_init,
        )

    def annotations(self) -> CocoJson:
        """The xml files of the split, as if they were a json."""
        content = self.as_coco()
        self._metainfo["coco"] = content  # the metric's truth
        return collected(content, self.ann_file)

    def as_coco(self) -> dict[str, Any]:
        """The split's truth in the form of COCO's json."""
        if not Path(self.ann_file).is_file():
            raise FileNotFoundError(f"no list {self.ann_file}; set data_root and split")
        assert self.classes is not None
        numbers = {name: number for number, name in enumerate(self.classes, start=1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for line in Path(self.ann_file).read_text().splitlines():
            if not line.strip():
                continue
            stem = line.split()[0]  # lists of a class have a second column
            path = Path(self.data_root) / "Annotations" / f"{stem}.xml"
            root = _parsed(path)
            size = {side: int(_text(root, f"size/{side}", path)) for side in ("height", "width")}
            images.append({"id": len(images) + 1, "file_name": stem + self.image_suffix, **size})
            for found in root.iter("object"):
                name = _text(found, "name", path)
                if name not in numbers:
                    raise ValueError(f"{path} names {name!r}; classes has {', '.join(self.classes)}")
                left, top, right, bottom = (float(_text(found, f"bndbox/{side}", path)) for side in _SIDES)
                box = [left - self.first_pixel, top - self.first_pixel, right - left + 1, bottom - top + 1]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": images[-1]["id"],
                        "category_id": numbers[name],
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": int(found.findtext("difficult", "0").strip() == "1"),
                    }
                )
        categories = [{"id": number, "name": name} for name, number in numbers.items()]
        return {"images": images, "annotations": annotations, "categories": categories}

    def load_data_list(self) -> list[dict[str, Any]]:
        infos = super().load_data_list()
        del self._metainfo["ann_file"]  # it is no json
        return infos


def _parsed(path: Path) -> ElementTree.Element:
    if not path.is_file():
        raise FileNotFoundError(f"no annotation {path}; add it, or take it off the list")
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no xml ({error}); fetch or export it again") from error


def _text(element: ElementTree.Element, tag: str, path: Path) -> str:
    text = element.findtext(tag)
    if text is None or not text.strip():
        raise ValueError(f"{path} has no {element.tag}/{tag}")
    return text.strip()
