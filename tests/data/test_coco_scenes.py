from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS
from pycocotools import mask as rle

from visionattn.cli.main import main
from visionattn.data.coco_objects import OBJECT_CLASSES, compose_objects, objects_in
from visionattn.data.coco_scenes import CATEGORY_IDS, outline_polygons, run_lengths, write_coco
from visionattn.data.findings import check_files
from visionattn.data.scene_drawing import draw_scene
from visionattn.data.scenes import class_label

SCENES = 60


@pytest.fixture(scope="module")
def scenes():
    return [compose_objects(np.random.default_rng([0, number]), (160, 224)) for number in range(SCENES)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco") / "tree", train=24, val=4, seed=3, size=(128, 192))


def content(tree, split="train"):
    return json.loads((tree / "annotations" / f"instances_{split}.json").read_text())


def test_masks_are_what_is_painted(scenes):
    """The labels that are painted with the picture know nothing of objects, and agree pixel by pixel."""
    things = {class_label(name) for name in OBJECT_CLASSES}
    number = 0
    for composed in scenes:
        _, labels = draw_scene(composed.scene)
        owners = np.zeros(labels.shape, int)
        for one in objects_in(composed):
            assert set(np.unique(labels[one.mask])) == {class_label(one.name)}
            owners += one.mask
            number += 1
        np.testing.assert_array_equal(owners, np.isin(labels, list(things)))
    assert number > 2 * SCENES


def test_polygons_enclose_the_mask(scenes):
    """As pycocotools draws them; a shift of half a pixel would cost a fifteenth of a small object."""
    checked = 0
    for one in (one for composed in scenes[:20] for one in objects_in(composed) if one.whole):
        drawn = rle.decode(rle.merge(rle.frPyObjects(outline_polygons(one.mask), *one.mask.shape))) > 0
        assert np.count_nonzero(drawn != one.mask) < 0.01 * np.count_nonzero(one.mask)
        checked += 1
    assert checked > 20


def test_crowds_and_empty_scenes_occur(scenes):
    found = [objects_in(composed) for composed in scenes]
    crowds = [one for some in found for one in some if one.crowd]
    assert 3 < len(crowds) < 25
    assert all(sum(one.crowd for one in some) <= 1 for some in found)
    assert all(np.count_nonzero(one.mask) > 300 for one in crowds)
    assert 0 < sum(not some for some in found) < 12
    assert {one.name for some in found for one in some} == set(OBJECT_CLASSES)


@pytest.mark.parametrize("kind", ["random", "ones", "zeros", "first"])
def test_run_lengths_are_coco_s(kind):
    mask = np.random.default_rng(0).random((13, 9)) > 0.6
    if kind != "random":
        mask[:] = kind == "ones"
        mask[0, 0] |= kind == "first"
    counts = run_lengths(mask)
    assert sum(counts) == mask.size
    decoded = rle.decode(rle.frPyObjects({"size": [13, 9], "counts": counts}, 13, 9))
    np.testing.assert_array_equal(decoded, mask)


def test_layout(tree):
    for split, count in (("train", 24), ("val", 4)):
        found = content(tree, split)
        assert [image["file_name"] for image in found["images"]] == [f"{k:012d}.jpg" for k in range(1, count + 1)]
        image = cv2.imread(str(tree / split / found["images"][0]["file_name"]))
        assert image.shape == (128, 192, 3)
        assert [category["id"] for category in found["categories"]] == list(CATEGORY_IDS)
        assert np.diff(CATEGORY_IDS).max() > 1
    kinds = {
        "polygon" if isinstance(one["segmentation"], list) else type(one["segmentation"]["counts"]).__name__
        for one in content(tree)["annotations"]
    }
    assert kinds == {"polygon", "str", "list"}
    crowds = [one for one in content(tree)["annotations"] if one["iscrowd"]]
    assert all(isinstance(one["segmentation"]["counts"], list) for one in crowds)


def test_boxes_and_areas_are_those_of_the_masks(tree):
    from visionattn.detection.coco_json import decode_mask

    for one in content(tree)["annotations"]:
        mask = decode_mask(one["segmentation"], 128, 192)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        around = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        x, y, width, height = one["bbox"]
        assert [x, y, x + width, y + height] == around
        exact = not isinstance(one["segmentation"], list)
        assert abs(int(mask.sum()) - one["area"]) <= (0 if exact else 0.01 * one["area"])


def test_picture_depends_on_seed_split_and_number_alone(tree, tmp_path):
    more = write_coco(tmp_path / "more", train=25, val=1, seed=3, size=(128, 192))
    first = {one["image_id"]: one for one in content(tree)["annotations"]}
    assert {k: one for k, one in ((one["image_id"], one) for one in content(more)["annotations"]) if k < 25} == first
    name = "000000000007.jpg"
    assert (more / "train" / name).read_bytes() == (tree / "train" / name).read_bytes()
    assert (more / "train" / "000000000001.jpg").read_bytes() != (more / "val" / "000000000001.jpg").read_bytes()
    other = write_coco(tmp_path / "other", train=7, val=1, seed=4, size=(128, 192))
    assert (other / "train" / name).read_bytes() != (tree / "train" / name).read_bytes()


def test_command_writes_once(tree, tmp_path, capsys):
    command = ["data", "synth", "coco", str(tmp_path / "out"), "--train", "2", "--val", "1", "--size", "64", "80"]
    assert main(command) == 0
    assert f"made-up scenes in {tmp_path / 'out'}" in capsys.readouterr().out
    written = (tmp_path / "out/train/000000000001.jpg").stat().st_mtime_ns
    assert main(command) == 0
    assert (tmp_path / "out/train/000000000001.jpg").stat().st_mtime_ns == written
    with pytest.raises(FileExistsError, match="holds scenes made with other arguments"):
        write_coco(tmp_path / "out", train=3, val=1, size=(64, 80))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "train=0 must be a whole number of 1 or more"),
        ({"seed": -1}, "seed=-1 must be a whole number of 0 or more"),
        ({"size": (63, 64)}, r"size=\(63, 64\) must be \(height, width\) of 64 pixels or more"),
        ({"size": 64}, "size=64 must be"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_coco(tmp_path / "out", **options)


def test_data_set_of_made_up_scenes(tree, tmp_path, monkeypatch):
    def small(out):
        return write_coco(out, train=2, val=1, size=(64, 64))

    monkeypatch.setattr("visionattn.detection.made_up.write_coco", small)
    config = {"type": "visionattn.MadeUpCoco", "data_root": str(tmp_path / "missing"), "with_masks": True}
    report = check_files(DATASETS.build({**config, "lazy_init": True}))  # before a training, too
    assert (report.samples, report.checked) == (2, 2)
    data = DATASETS.build(config)
    assert len(data) == 2
    assert data.raw(0)["image"].shape == (64, 64, 3)
    data = DATASETS.build({**config, "data_root": str(tree), "split": "val"})
    assert len(data) == 4
    assert data.metainfo["classes"] == OBJECT_CLASSES
    assert data.metainfo["category_ids"] == CATEGORY_IDS
    with pytest.raises(ValueError, match="split='test' is none of 'train', 'val'"):
        DATASETS.build({**config, "split": "test"})
