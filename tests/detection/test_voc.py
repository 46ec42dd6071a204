from __future__ import annotations

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS

from visionattn.data.findings import check_files
from visionattn.detection.voc import VOC_CLASSES, VOCDetection

OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"""


def write_xml(folder, stem, objects):
    text = "".join(OBJECT.format(name=name, difficult=difficult, box=box) for name, difficult, box in objects)
    size = "<size><width>60</width><height>40</height><depth>3</depth></size>"
    (folder / "Annotations" / f"{stem}.xml").write_text(f"<annotation><folder>VOC</folder>{size}{text}</annotation>")


@pytest.fixture
def year(tmp_path):
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    for stem in ("000005", "000007", "000009"):
        cv2.imwrite(str(tmp_path / "JPEGImages" / f"{stem}.jpg"), np.zeros((40, 60, 3), np.uint8))
    write_xml(tmp_path, "000005", [("chair", 0, (11, 6, 30, 25)), ("person", 1, (1, 1, 60, 40))])
    write_xml(tmp_path, "000007", [])
    write_xml(tmp_path, "000009", [("tvmonitor", 0, (5, 5, 5, 5))])
    (tmp_path / "ImageSets/Main/trainval.txt").write_text("000005\n000007  1\n\n000009 -1\n")
    return tmp_path


def test_corners_become_edges_and_difficult_objects_crowds(year):
    data = DATASETS.build({"type": "visionattn.VOCDetection", "data_root": str(year), "split": "trainval"})
    sample = data.raw(0)
    # Pixels 11 to 30, counted from 1, reach from 10 to 30; the whole image of 60 x 40 from 0 to 60 and 40.
    np.testing.assert_array_equal(sample["boxes"], [[10, 5, 30, 25], [0, 0, 60, 40]])
    assert [VOC_CLASSES[label] for label in sample["labels"]] == ["chair", "person"]
    assert sample["crowd"].tolist() == [False, True]
    assert sample["file"] == str(year / "JPEGImages/000005.jpg")
    np.testing.assert_array_equal(data.raw(2)["boxes"], [[4, 4, 5, 5]])  # one pixel is no empty box
    assert data.metainfo["classes"] == VOC_CLASSES
    assert "ann_file" not in data.metainfo
    zero = VOCDetection(str(year), "trainval", first_pixel=0)
    np.testing.assert_array_equal(zero.raw(0)["boxes"][0], [11, 6, 31, 26])


def test_truth_for_the_metric_is_the_data_set_s(year):
    data = VOCDetection(str(year), "trainval")
    coco = data.metainfo["coco"]
    assert [image["id"] for image in coco["images"]] == [data.get_data_info(index)["image_id"] for index in range(3)]
    assert [one["bbox"] for one in coco["annotations"]] == [[10, 5, 20, 20], [0, 0, 60, 40], [4, 4, 1, 1]]
    assert [one["iscrowd"] for one in coco["annotations"]] == [0, 1, 0]
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert tuple(names[number] for number in data.metainfo["category_ids"]) == VOC_CLASSES


def test_empty_images_and_the_check(year):
    assert len(VOCDetection(str(year), "trainval", keep_empty=False)) == 2
    report = check_files(VOCDetection(str(year), "trainval", lazy_init=True), decode=True)
    assert [finding.level for finding in report.findings] == ["warning"]  # classes without an object
    assert (sum(report.histogram.counts), report.histogram.ignored) == (2, 1)


def test_what_is_wrong_is_named(year):
    with pytest.raises(FileNotFoundError, match=r"no list .*ImageSets/Main/val\.txt; set data_root and split"):
        VOCDetection(str(year), "val")
    with pytest.raises(ValueError, match=r"000005\.xml names 'chair'; classes has person"):
        VOCDetection(str(year), "trainval", classes=["person"])
    (year / "Annotations/000007.xml").write_text("<annotation><size>")
    with pytest.raises(ValueError, match=r"000007\.xml is no xml"):
        VOCDetection(str(year), "trainval")
    (year / "Annotations/000007.xml").write_text("<annotation></annotation>")
    with pytest.raises(ValueError, match=r"000007\.xml has no annotation/size/height"):
        VOCDetection(str(year), "trainval")
    (year / "Annotations/000007.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"no annotation .*000007\.xml"):
        VOCDetection(str(year), "trainval")
    with pytest.raises(ValueError, match="first_pixel=2 must be 1, as in VOC, or 0"):
        VOCDetection(str(year), "trainval", first_pixel=2)
