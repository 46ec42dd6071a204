from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS
from pycocotools import mask as rle

from visionattn.detection.coco import CocoDetection
from visionattn.detection.coco_json import decode_mask, read_coco

MINI = Path(os.environ.get("VISIONATTN_DATA") or Path(__file__).parents[3] / "shared" / "data") / "coco_mini"
SIZE = (40, 60)


def box_mask(left, top, right, bottom):
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def content():
    """Three images; ids with gaps; a polygon, and a crowd as run lengths of both kinds."""
    crowd = rle.encode(np.asfortranarray(box_mask(10, 5, 50, 35)))
    plain = _run_lengths(box_mask(0, 20, 20, 40))
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 9000000001, "file_name": "b.png", "height": 40, "width": 60},
            {"id": 2, "file_name": "c.png", "height": 40, "width": 60},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}],
        "annotations": [
            {
                "id": 31,
                "image_id": 7,
                "category_id": 13,
                "bbox": [20.0, 10.0, 15.0, 20.0],
                "segmentation": [[20, 10, 35, 10, 35, 30, 20, 30]],
                "iscrowd": 0,
                "area": 300,
            },
            {
                "id": 32,
                "image_id": 7,
                "category_id": 1,
                "bbox": [10, 5, 40, 30],
                "segmentation": {"size": crowd["size"], "counts": crowd["counts"].decode()},
                "iscrowd": 1,
                "area": 1200,
            },
            {
                "id": 5,
                "image_id": 2,
                "category_id": 90,
                "bbox": [-5.5, 20, 25.5, 30],
                "segmentation": {"size": list(SIZE), "counts": plain},
                "iscrowd": 1,
                "area": 400,
            },
        ],
    }


def _run_lengths(mask):
    """COCO's uncompressed counts, by a loop: columns from the left, each from the top, zeros first."""
    counts, value, length = [], 0, 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(length)
            value, length = pixel, 0
        length += 1
    return [*counts, length]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for stem in "abc":
        image = np.random.default_rng(ord(stem)).integers(0, 256, (*SIZE, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{stem}.png"), image)
    write(tmp_path, content())
    return tmp_path


def write(folder, what):
    (folder / "instances.json").write_text(json.dumps(what))


def dataset(folder, **options):
    return CocoDetection(str(folder), "instances.json", "images", **options)


def test_sparse_ids_become_labels_by_their_order(folder):
    data = dataset(folder)
    assert data.metainfo["classes"] == ("person", "stop sign", "toothbrush")
    assert data.metainfo["category_ids"] == (1, 13, 90)
    assert data.metainfo["ann_file"] == str(folder / "instances.json")
    assert [data.get_data_info(index)["image_id"] for index in range(3)] == [7, 9000000001, 2]
    sample = data.raw(0)
    assert sample["labels"].tolist() == [1, 0]
    assert sample["crowd"].tolist() == [False, True]
    np.testing.assert_array_equal(sample["boxes"], [[20, 10, 35, 30], [10, 5, 50, 35]])
    assert (sample["boxes"].dtype, sample["labels"].dtype, sample["crowd"].dtype) == (np.float32, np.int64, np.bool_)
    np.testing.assert_array_equal(sample["image"], cv2.imread(str(folder / "images/a.png"))[..., ::-1])
    assert sample["file"] == str(folder / "images/a.png")
    assert sample["ori_shape"] == SIZE
    assert "masks" not in sample


def test_boxes_end_at_the_border(folder):
    np.testing.assert_array_equal(dataset(folder).raw(2)["boxes"], [[0, 20, 20, 40]])


def test_polygons_and_run_lengths_of_both_kinds(folder):
    data = dataset(folder, with_masks=True)
    np.testing.assert_array_equal(data.raw(0)["masks"], [box_mask(20, 10, 35, 30), box_mask(10, 5, 50, 35)])
    np.testing.assert_array_equal(data.raw(2)["masks"], [box_mask(0, 20, 20, 40)])
    assert data.raw(1)["masks"].shape == (0, *SIZE)
    assert data.raw(1)["boxes"].shape == (0, 4)


def test_images_without_a_single_object(folder):
    assert len(dataset(folder)) == 3
    data = dataset(folder, keep_empty=False)
    assert [data.get_data_info(index)["image_id"] for index in range(len(data))] == [7]  # a crowd alone is none
    with pytest.raises(ValueError, match="no image has a single object of person; keep_empty=True keeps all 3"):
        dataset(folder, keep_empty=False, classes=["person"])


def test_choice_of_classes_in_an_order_of_its_own(folder):
    data = dataset(folder, classes=["toothbrush", "person"], with_masks=True)
    assert data.metainfo["classes"] == ("toothbrush", "person")
    assert data.metainfo["category_ids"] == (90, 1)
    sample = data.raw(0)
    assert sample["labels"].tolist() == [1]
    np.testing.assert_array_equal(sample["masks"], [box_mask(10, 5, 50, 35)])
    assert data.raw(2)["labels"].tolist() == [0]


def test_class_that_the_file_does_not_have(folder):
    with pytest.raises(ValueError, match=r"classes names 'stopsign', and .*instances.json.*did you mean 'stop sign'"):
        dataset(folder, classes=["person", "stopsign"])
    with pytest.raises(ValueError, match=r"it has 'person', 'stop sign', 'toothbrush'"):
        dataset(folder, classes=["zzz"])
    with pytest.raises(ValueError, match="classes names 'person' twice"):
        dataset(folder, classes=["person", "person"])
    twice = content()
    twice["categories"].append({"id": 2, "name": "person"})
    write(folder, twice)
    with pytest.raises(ValueError, match=r"category 'person' under the ids \[1, 2\]"):
        dataset(folder, classes=["person"])


def test_boxes_without_area_are_left_out_and_named(folder, monkeypatch):
    flawed = content()
    for number, box in enumerate([[5, 5, 0, 10], [70, 5, 10, 10], [3, 3, -4, 9], [59.9999999, 3, 4, 9]]):
        flawed["annotations"].append({"id": 100 + number, "image_id": 7, "category_id": 1, "bbox": box})
    write(folder, flawed)
    logged = []
    monkeypatch.setattr("visionattn.detection.coco.print_log", lambda line, **options: logged.append(line))
    data = dataset(folder)
    assert len(logged) == 1
    assert "4 boxes without area in their image are left out" in logged[0]
    assert "annotation 100 of a.png: x 5, y 5, width 0, height 10 in 60 x 40" in logged[0]
    assert data.raw(0)["labels"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 2}, "annotation 31 of a.png: category id 2 is not in the file's categories"),
        ({"image_id": 8}, "annotation 31: image id 8 is not in the file's images"),
        ({"bbox": [1, 2, 3]}, r"annotation 31 of a.png: bbox is \[1, 2, 3\], not \[x, y, width, height\]"),
        ({"bbox": [1, 2, float("nan"), 3]}, "annotation 31 of a.png: bbox is"),
        ({"id": 32}, "annotation id 32 is listed twice"),
    ],
)
def test_what_the_file_does_not_explain(folder, change, message):
    flawed = content()
    flawed["annotations"][0] |= change
    write(folder, flawed)
    with pytest.raises(ValueError, match=f"instances.json: {message}"):
        dataset(folder)


def test_all_problems_are_found_at_once(folder):
    flawed = content()
    flawed["annotations"][0]["category_id"] = 2
    flawed["annotations"][1]["image_id"] = 8
    write(folder, flawed)
    found = read_coco(folder / "instances.json")
    assert [kind for kind, _ in found.problems] == ["category", "image"]
    assert sum(map(len, found.annotations.values())) == 1


def test_files_that_are_no_coco_json(folder):
    path = folder / "instances.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="is no json"):
        dataset(folder)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"has no list of images: .*results"):
        dataset(folder)
    write(folder, {"images": [], "categories": [{"id": 1, "name": "a"}], "annotations": []})
    with pytest.raises(ValueError, match="lists 0 images and 1 categories"):
        dataset(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no annotation file .*set data_root and ann_file"):
        dataset(folder)


def test_image_that_is_missing_or_of_another_size(folder):
    data = dataset(folder)
    (folder / "images/b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no image .*b\.png"):
        data.raw(1)
    cv2.imwrite(str(folder / "images/b.png"), np.zeros((60, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r"b\.png is 60 x 40, the json says 40 x 60"):
        data.raw(1)


def test_masks_that_cannot_be_decoded(folder):
    for segmentation, message in [
        ({"size": [60, 40], "counts": [2400]}, "its mask is 60 x 40, the image 40 x 60"),
        ([[1, 2, 3, 4]], "its segmentation is neither polygons of three corners or more nor run lengths"),
        (None, "its segmentation is neither polygons"),
    ]:
        flawed = content()
        flawed["annotations"][0]["segmentation"] = segmentation
        write(folder, flawed)
        with pytest.raises(ValueError, match=rf"annotation 31 of .*a\.png: {message}"):
            dataset(folder, with_masks=True).raw(0)
        assert len(dataset(folder).raw(0)["boxes"]) == 2  # without masks nobody asks


def test_lvis_names_files_by_their_address(folder):
    lvis = content()
    for image in lvis["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/images/{image.pop('file_name')}"
    write(folder, lvis)
    assert CocoDetection(str(folder), "instances.json").raw(0)["file"] == str(folder / "images/a.png")


def test_pipeline_and_registry(folder):
    data = DATASETS.build(
        {
            "type": "visionattn.CocoDetection",
            "data_root": str(folder),
            "ann_file": "instances.json",
            "image_dir": "images",
            "with_masks": True,
            "pipeline": [{"type": "visionattn.PackDetection"}],
            "indices": 2,
        }
    )
    assert len(data) == 2
    sample = data[0]["data_samples"]
    assert sample.masks.shape == (2, *SIZE)
    assert sample.image_id == 7
    assert data[1]["data_samples"].masks.shape == (0, *SIZE)


def test_object_in_two_parts():
    """Polygons of an object that something crosses: its mask is all of them together."""
    parts = [[5, 5, 15, 5, 15, 15, 5, 15], [30, 20, 50, 20, 50, 30, 30, 30], [1, 2, 3, 4]]
    wanted = box_mask(5, 5, 15, 15) | box_mask(30, 20, 50, 30)
    np.testing.assert_array_equal(decode_mask(parts, *SIZE), wanted)


def test_polygon_of_a_triangle_by_hand():
    mask = decode_mask([[10, 10, 30, 10, 10, 30]], *SIZE)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    wanted = (rows >= 10) & (columns >= 10) & (rows + columns + 1 <= 40)
    assert np.count_nonzero(mask != wanted) <= 20  # the diagonal's pixels, which are half covered


@pytest.mark.skipif(not MINI.is_dir(), reason=f"no {MINI}")
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_annotations(split, capsys):
    """Masks and boxes are pycocotools' own, for 80 images of COCO 2017."""
    from pycocotools.coco import COCO

    path = MINI / f"instances_{split}.json"
    peer = COCO(str(path))
    capsys.readouterr()  # it prints
    data = CocoDetection(str(MINI), path.name, "images" if (MINI / "images").is_dir() else "", with_masks=True)
    assert len(data) == len(peer.imgs)
    assert len(data.metainfo["classes"]) == 80
    for index in range(0, len(data), 27):
        info = data.get_data_info(index)
        annotations = peer.loadAnns(peer.getAnnIds(imgIds=[info["image_id"]]))
        assert [data.metainfo["category_ids"][label] for label in info["labels"]] == [
            one["category_id"] for one in annotations
        ]
        x, y, width, height = np.array([one["bbox"] for one in annotations]).T
        np.testing.assert_allclose(info["boxes"], np.stack([x, y, x + width, y + height], 1), atol=1e-3)
        for segmentation, one in zip(info["segmentations"], annotations, strict=True):
            np.testing.assert_array_equal(decode_mask(segmentation, info["height"], info["width"]), peer.annToMask(one))
    crowds = sum(int(data.get_data_info(index)["crowd"].sum()) for index in range(len(data)))
    assert crowds == {"train": 8, "val": 5}[split]
