from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest

from visionattn.data.coco_scenes import write_coco
from visionattn.data.findings import check_files
from visionattn.detection.coco import CocoDetection
from visionattn.engine.config import load_config
from visionattn.engine.data_check import check_data
from visionattn.engine.skip_bad import skip_bad_samples


@pytest.fixture
def tree(tmp_path):
    return write_coco(tmp_path / "tree", train=12, val=2, seed=1, size=(96, 128))


def checked(tree, change=None, *, classes=None, **options):
    """The report of the tree's training split after a change of its json."""
    path = tree / "annotations/instances_train.json"
    if change is not None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    data = CocoDetection(
        str(tree), "annotations/instances_train.json", "train", classes=classes, with_masks=True, lazy_init=True
    )
    return check_files(data, **options)


def test_nothing_wrong(tree):
    report = checked(tree, decode=True)
    assert [finding for finding in report.findings if finding.kind != "class"] == []
    assert (report.dataset, report.samples, report.checked) == ("CocoDetection", 12, 12)
    assert report.inputs == [str(tree / "train" / f"{number:012d}.jpg") for number in range(1, 13)]
    content = json.loads((tree / "annotations/instances_train.json").read_text())
    assert sum(report.histogram.counts) == sum(not one["iscrowd"] for one in content["annotations"])
    assert report.histogram.ignored == sum(one["iscrowd"] for one in content["annotations"])
    assert report.histogram.unit == "boxes"
    assert checked(tree, limit=5).checked == 5


def first(content):
    return content["annotations"][0]


@pytest.mark.parametrize(
    ("change", "level", "kind", "message"),
    [
        (
            lambda content: first(content).update(category_id=4),
            "error",
            "category",
            "1 annotation names a category that the json does not have: annotation 1 of 0*1.jpg: category id 4 is not",
        ),
        (
            lambda content: [one.update(image_id=99) for one in content["annotations"][:2]],
            "error",
            "image",
            "2 annotations name an image that the json does not have: annotation 1: image id 99",
        ),
        (
            lambda content: first(content).update(bbox=None),
            "error",
            "box",
            "1 annotation has a bbox that is not .x, y, width, height.: annotation 1 of",
        ),
        (
            lambda content: first(content).update(bbox=[200, 3, 10, 10]),
            "error",
            "box",
            "1 box lies outside its image: annotation 1 of 0*1.jpg: x 200, y 3, width 10, height 10 in 128 x 96",
        ),
        (
            lambda content: [one.update(bbox=[2, 3, 0, 10]) for one in content["annotations"][:2]],
            "warning",
            "box",
            "2 boxes have no area and will be left out: annotation 1 of 0*1.jpg: x 2, y 3, width 0",
        ),
        (
            lambda content: first(content).update(bbox=[-3, 3, 20, 10]),
            "warning",
            "box",
            "1 box reaches over the border: annotation 1 of",
        ),
        (
            lambda content: content["annotations"][1].update(id=1),
            "error",
            "duplicate",
            "1 annotation stands in the json twice: annotation id 1 is listed twice",
        ),
        (
            lambda content: first(content).update(segmentation={"size": [5, 5], "counts": [25]}),
            "error",
            "mask",
            "1 image has a mask that cannot be used: annotation 1 of .*1.jpg: its mask is 5 x 5, the image 96 x 128",
        ),
        (
            lambda content: content["images"][2].update(height=97),
            "error",
            "size",
            "1 image has another size than the json says: .*3.jpg is 96 x 128, the json says 97 x 128",
        ),
        (
            lambda content: content["images"][2].update(file_name="gone.jpg"),
            "error",
            "missing",
            "1 image is missing: .*gone.jpg",
        ),
        (
            lambda content: content["images"][2].update(file_name="000000000001.jpg"),
            "warning",
            "duplicate",
            r"1 file stands in the json more than once: .*0001.jpg \(2 times\)",
        ),
        (
            lambda content: content["categories"].append({"id": 77, "name": "kite"}),
            "warning",
            "class",
            "kite",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_fault_is_found_and_named(tree, change, level, kind, message):
    findings = [finding for finding in checked(tree, change).findings if finding.kind == kind]
    text = [f"{finding} {finding.cases}" for finding in findings if finding.level == level]
    assert len(text) == 1, findings
    assert re.search(message, text[0]), text[0]
    assert findings[0].advice or kind == "class"


def test_broken_image(tree):
    image = tree / "train/000000000004.jpg"
    image.write_bytes(image.read_bytes()[:900])
    assert not [finding for finding in checked(tree).findings if finding.level == "error"]  # its header is whole
    found = [finding for finding in checked(tree, decode=True).findings if finding.level == "error"]
    assert [finding.kind for finding in found] == ["undecodable"]
    assert "000000000004.jpg" in found[0].cases[0]
    cv2.imwrite(str(image), np.zeros((128, 96, 3), np.uint8))
    assert "size" in [finding.kind for finding in checked(tree).findings]


def test_class_that_the_json_does_not_have(tree):
    report = checked(tree, classes=["stars"])
    assert [finding.kind for finding in report.findings] == ["dataset"]
    assert "did you mean 'star'" in report.findings[0].message
    (tree / "annotations/instances_train.json").write_text("{")
    assert "is no json" in checked(tree).findings[0].message
    (tree / "annotations/instances_train.json").unlink()
    assert checked(tree).findings[0].kind == "missing"


def test_whole_config(tree, tmp_path):
    """Through `data check`: a head with too few classes, and a training image that is evaluated on."""
    config = tmp_path / "config.py"
    config.write_text(
        f"""
default_scope = "mmengine"
model = dict(type="visionattn.Detector", head=dict(type="visionattn.FCOSHead", num_classes=3))
train_dataloader = dict(dataset=dict(type="visionattn.MadeUpCoco", data_root={str(tree)!r}, split="train"))
val_dataloader = dict(dataset=dict(type="visionattn.MadeUpCoco", data_root={str(tree)!r}, split="val"))
"""
    )
    (tree / "val/000000000001.jpg").write_bytes((tree / "train/000000000001.jpg").read_bytes())
    report = check_data(load_config(str(config)))
    errors = [str(finding) for _, finding in report.findings if finding.level == "error"]
    assert any("model.head.num_classes=3, but MadeUpCoco has 8 classes" in line for line in errors)
    assert any("1 input of train is in val too" in line for line in errors)
    assert len(errors) == 2


def spoilt(content):
    """Six of the twelve images, each in a way of its own."""
    images, annotations = content["images"], content["annotations"]
    of = {image["id"]: [one for one in annotations if one["image_id"] == image["id"]] for image in images}
    full = [image for image in images if of[image["id"]]]
    full[0]["file_name"] = "gone.jpg"
    full[1]["height"] += 1
    of[full[2]["id"]][0]["category_id"] = 4
    of[full[3]["id"]][0]["bbox"] = [300, 3, 10, 10]
    of[full[4]["id"]][0]["segmentation"] = []
    of[full[5]["id"]][0]["bbox"] = None
    annotations.append({**of[full[6]["id"]][0], "id": 999, "image_id": 77})  # no image's


def test_skip_bad_leaves_out_what_cannot_be_used(tree):
    path = tree / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    spoilt(content)
    path.write_text(json.dumps(content))
    options = {"with_masks": True, "skip_bad": True}
    data = CocoDetection(str(tree), "annotations/instances_train.json", "train", **options)
    assert len(data) == 12 - 6
    assert data.left_out == 6
    assert all(len(data.raw(index)["masks"]) == len(data.raw(index)["boxes"]) for index in range(len(data)))

    report = check_files(data)
    assert [finding for finding in report.findings if finding.level == "error"] == []
    (skipped,) = [finding for finding in report.findings if finding.kind == "skipped"]
    assert str(skipped).startswith("6 images are left out by skip_bad")
    text = "\n".join(skipped.cases)
    said = ("gone.jpg", "the json says 97 x 128", "category id 4", "x 300", "its segmentation", "bbox is None", "id 77")
    assert [part for part in said if part not in text] == []
    with pytest.raises(ValueError, match="or leave such images out by skip_bad=True"):
        CocoDetection(str(tree), "annotations/instances_train.json", "train")


def test_skip_bad_needs_something_to_be_left(tree):
    for image in (tree / "train").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match=r"no image can be used: .*000000000001\.jpg"):
        CocoDetection(str(tree), "annotations/instances_train.json", "train", skip_bad=True)


def test_skip_bad_by_the_command(tree):
    config = load_config("quickstart/detection", {"data_root": str(tree)})
    skip_bad_samples(config, parts=("train", "val"))
    assert config.train_dataloader.dataset.skip_bad
    (tree / "train/000000000002.jpg").unlink()
    assert check_data(config).count("error") == 0
