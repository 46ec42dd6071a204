"""Bad input ends a training before its first step, by what `visionattn train` calls, with one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from visionattn.data.coco_scenes import write_coco
from visionattn.engine.config import load_config
from visionattn.engine.preflight import check_config

Content = dict[str, Any]


def _category(content: Content) -> None:
    content["annotations"][0]["category_id"] = 4


def _outside(content: Content) -> None:
    content["annotations"][0]["bbox"] = [200, 3, 10, 10]


def _image(content: Content) -> None:
    content["images"][0]["file_name"] = "gone.jpg"


def _mask(content: Content) -> None:
    content["annotations"][0]["segmentation"] = {"size": [5, 5], "counts": [25]}


def _nothing(content: Content) -> None:
    pass


BAD: dict[str, tuple[Callable[[Content], None], dict[str, Any], str]] = {
    "category id": (_category, {}, "1 annotation names a category that the json does not have: .*category id 4"),
    "class name": (
        _nothing,
        {"train_dataloader.dataset.classes": ["crates"], "model.head.num_classes": 1},
        "classes names 'crates', .*did you mean 'crate'",
    ),
    "box": (_outside, {}, "1 box lies outside its image: annotation 1 of .*x 200, y 3"),
    "image": (_image, {}, r"1 image is missing: .*gone\.jpg"),
    "mask": (_mask, {}, "1 image has a mask that cannot be used: .*its mask is 5 x 5, the image 96 x 128"),
    "num_classes": (
        _nothing,
        {"model.head.num_classes": 80},
        r"model\.head\.num_classes=80, but MadeUpCoco has 8 classes .*model\.head\.num_classes=8",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_it_ends_before_the_first_step(name: str, tmp_path: Path) -> None:
    change, options, message = BAD[name]
    tree = write_coco(tmp_path / "tree", train=6, val=2, seed=1, size=(96, 128))
    path = tree / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    config = load_config("quickstart/detection", {"data_root": str(tree), **options})
    with pytest.raises(ValueError, match=message) as caught:
        check_config(config, parts=("train", "val"))
    assert "\n" not in str(caught.value)


def test_good_input_passes(tmp_path: Path) -> None:
    tree = write_coco(tmp_path / "tree", train=6, val=2, seed=1, size=(96, 128))
    check_config(load_config("quickstart/detection", {"data_root": str(tree)}), parts=("train", "val"))
