"""The public data sets' layouts on a few files, read by ours and by mmseg's own classes."""

from __future__ import annotations

import cv2
import mmseg.datasets
import numpy as np
import pytest
from PIL import Image

from visionattn.registry import DATASETS
from visionattn.segmentation.datasets import ImageMaskFolder
from visionattn.segmentation.public_datasets import Cityscapes, COCOStuff164k, PascalVOC2012Aug

PIPELINE = [{"type": "visionattn.LoadImage"}, {"type": "visionattn.LoadLabels"}, {"type": "mmseg.PackSegInputs"}]
THEIRS = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "mmseg.PackSegInputs"}]

# name, id and train id of cityscapesScripts' table of labels; those of train id 255 or -1 are not evaluated.
CITYSCAPES_LABELS = """
unlabeled 0 255 | ego vehicle 1 255 | rectification border 2 255 | out of roi 3 255 | static 4 255 | dynamic 5 255
ground 6 255 | road 7 0 | sidewalk 8 1 | parking 9 255 | rail track 10 255 | building 11 2 | wall 12 3 | fence 13 4
guard rail 14 255 | bridge 15 255 | tunnel 16 255 | pole 17 5 | polegroup 18 255 | traffic light 19 6
traffic sign 20 7 | vegetation 21 8 | terrain 22 9 | sky 23 10 | person 24 11 | rider 25 12 | car 26 13 | truck 27 14
bus 28 15 | caravan 29 255 | trailer 30 255 | train 31 16 | motorcycle 32 17 | bicycle 33 18
"""


def write(root, image, mask, numbers, seed):
    """An image file and a mask file with every one of `numbers` in it."""
    rng = np.random.default_rng(seed)
    for name in (image, mask):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / image), rng.integers(0, 256, (23, 31, 3), np.uint8))
    drawn = Image.fromarray(rng.permutation(np.resize(np.array(numbers, np.uint8), 23 * 31)).reshape(23, 31))
    if "JPEGImages" in image:  # Pascal's masks are pictures with a palette, whose indices are the numbers
        drawn.putpalette(rng.integers(0, 256, 768).tolist())
    drawn.save(root / mask)


def cases():
    """type of ours, split, (image, mask) files, numbers in the masks, list file, mmseg's class with its arguments."""
    coco = "{}/{}/COCO_{}{}"
    yield (
        "ADE20K", "validation",
        [(f"images/validation/ADE_val_{i}.jpg", f"annotations/validation/ADE_val_{i}.png") for i in (2, 1)],
        range(151), None, ("ADE20KDataset", "images/validation", "annotations/validation", {}),
    )  # fmt: skip
    yield (
        "CityscapesTrainIds", "train",
        [(f"leftImg8bit/train/{c}/{c}_0_leftImg8bit.png", f"gtFine/train/{c}/{c}_0_gtFine_labelTrainIds.png")
         for c in ("ulm", "bonn")],
        [*range(19), 255], None, ("CityscapesDataset", "leftImg8bit/train", "gtFine/train", {}),
    )  # fmt: skip
    for name, split, numbers, options in (
        ("COCOStuff164k", "train2017", [*range(171), 255], {}),
        ("COCOStuff10k", "test2014", range(172), {"reduce_zero_label": True}),
    ):
        files = [(coco.format("images", split, i, ".jpg"), coco.format("annotations", split, i, "_labelTrainIds.png"))
                 for i in (5, 3)]  # fmt: skip
        yield name, split, files, numbers, None, (
            "COCOStuffDataset", f"images/{split}", f"annotations/{split}", options,
        )  # fmt: skip
    for name, folder, listed, numbers, theirs in (
        ("PascalVOC2012", "SegmentationClass", "Segmentation", [*range(21), 255], "PascalVOCDataset"),
        ("PascalContext59", "SegmentationClassContext", "SegmentationContext", range(60), "PascalContextDataset59"),
        ("PascalContext60", "SegmentationClassContext", "SegmentationContext", range(60), "PascalContextDataset"),
    ):
        list_file = f"ImageSets/{listed}/val.txt"
        files = [(f"JPEGImages/{stem}.jpg", f"{folder}/{stem}.png") for stem in ("2007_2", "2007_1")]
        yield name, "val", files, numbers, list_file, (theirs, "JPEGImages", folder, {"ann_file": list_file})


@pytest.mark.parametrize(
    ("name", "split", "files", "numbers", "listed", "theirs"), [pytest.param(*case, id=case[0]) for case in cases()]
)
def test_files_and_labels_are_mmseg_s(tmp_path, name, split, files, numbers, listed, theirs):
    for seed, (image, mask) in enumerate(files):
        write(tmp_path, image, mask, numbers, seed)
    # What lies beside them in a real tree.
    first_mask = tmp_path / files[0][1]
    first_mask.with_name(first_mask.name.split("_")[0] + "_color.bmp").write_bytes(b"another file")
    if listed:
        (tmp_path / listed).parent.mkdir(parents=True)
        (tmp_path / listed).write_text("2007_2\n2007_1\n")
        write(tmp_path, "JPEGImages/unlisted.jpg", files[0][1].replace("2007_2", "unlisted"), [0], 9)
    ours = DATASETS.build(
        {"type": f"visionattn.{name}", "data_root": str(tmp_path), "split": split, "pipeline": PIPELINE}
    )
    class_name, images, masks, options = theirs
    theirs = getattr(mmseg.datasets, class_name)(
        data_root=str(tmp_path), data_prefix={"img_path": images, "seg_map_path": masks}, pipeline=THEIRS, **options
    )
    assert isinstance(ours, ImageMaskFolder)
    assert len(ours) == len(theirs) == len(files)
    assert str(ours.check()) == "checked the labels and sizes of 2 of 2 masks"
    for key in ("classes", "palette"):
        assert ours.metainfo[key] == theirs.metainfo[key]
    for index in range(len(files)):
        for key in ("img_path", "seg_map_path"):
            assert ours.get_data_info(index)[key] == theirs.get_data_info(index)[key]
        ours_loaded, theirs_loaded = ours[index], theirs[index]
        np.testing.assert_array_equal(
            ours_loaded["data_samples"].gt_sem_seg.data, theirs_loaded["data_samples"].gt_sem_seg.data
        )
        np.testing.assert_array_equal(ours_loaded["inputs"], theirs_loaded["inputs"].flip(0))
    found = set(ours[0]["data_samples"].gt_sem_seg.data.unique().tolist())
    assert found >= set(range(len(ours.classes)))


def test_cityscapes_raw_ids_are_the_scripts_train_ids(tmp_path):
    rows = [entry.rsplit(maxsplit=2) for line in CITYSCAPES_LABELS.strip().splitlines() for entry in line.split("|")]
    train_ids = {int(number): int(train_id) for _, number, train_id in rows}
    assert sorted(train_ids) == list(range(34))
    write(tmp_path, "leftImg8bit/val/ulm/a_leftImg8bit.png", "gtFine/val/ulm/a_gtFine_labelIds.png", range(34), 0)
    write(tmp_path, "x/a.png", "gtFine/val/ulm/a_gtFine_labelTrainIds.png", [0], 0)  # in the same folder
    dataset = Cityscapes(str(tmp_path), "val", pipeline=PIPELINE)
    dataset.check()
    raw = cv2.imread(dataset.pairs()[0][1], cv2.IMREAD_UNCHANGED)
    expected = np.array([train_ids[number] for number in range(34)])[raw]
    np.testing.assert_array_equal(dataset[0]["data_samples"].gt_sem_seg.data[0], expected)
    names = {int(train_id): name.strip() for name, _, train_id in rows if train_id != "255"}
    assert list(dataset.classes) == [names[label] for label in range(19)]
    assert (dataset.label_table()[34:255] == -1).all()
    chosen = Cityscapes(str(tmp_path), "val", classes=("car", "road"), pipeline=PIPELINE)
    np.testing.assert_array_equal(
        chosen[0]["data_samples"].gt_sem_seg.data[0], np.select([raw == 26, raw == 7], [0, 1], 255)
    )


def test_voc_aug_is_train_and_then_sbd(tmp_path):
    for stem, folder in (("a", "SegmentationClass"), ("b", "SegmentationClassAug"), ("c", "SegmentationClassAug")):
        write(tmp_path, f"JPEGImages/{stem}.jpg", f"{folder}/{stem}.png", [*range(21), 255], ord(stem))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    (tmp_path / "ImageSets/Segmentation/aug.txt").write_text("c\nb\n")
    dataset = PascalVOC2012Aug(str(tmp_path), "train", classes=("person", "cat"), pipeline=PIPELINE)
    assert [mask.split("/")[-2:] for _, mask in dataset.pairs()] == [
        ["SegmentationClass", "a.png"], ["SegmentationClassAug", "c.png"], ["SegmentationClassAug", "b.png"],
    ]  # fmt: skip
    assert str(dataset.check()) == "checked the labels and sizes of 3 of 3 masks"
    raw = np.asarray(Image.open(dataset.pairs()[2][1]))
    np.testing.assert_array_equal(
        dataset[2]["data_samples"].gt_sem_seg.data[0], np.select([raw == 15, raw == 8], [0, 1], 255)
    )
    (tmp_path / "SegmentationClassAug/b.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 named in .*aug\.txt have no mask: .*SegmentationClassAug lacks b\.png; add"
    ):
        PascalVOC2012Aug(str(tmp_path), "train")
    (tmp_path / "ImageSets/Segmentation/aug.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"PascalVOC2012Aug found no .*aug\.txt \(data_root=.*voc_aug\.py writes"
    ):
        PascalVOC2012Aug(str(tmp_path), "train")
    with pytest.raises(ValueError, match=r"PascalVOC2012Aug is for training.*PascalVOC2012's$"):
        PascalVOC2012Aug(str(tmp_path), "val")


def test_masks_that_a_converter_has_yet_to_write(tmp_path):
    write(tmp_path, "images/val2017/1.jpg", "annotations/val2017/1.png", [7], 0)
    with pytest.raises(
        ValueError, match=r"ends in '_labelTrainIds\.png' \(there are: 1 \.png\).*coco_stuff164k\.py writes"
    ):
        COCOStuff164k(str(tmp_path), "val2017")


def test_images_in_another_format(tmp_path):
    write(tmp_path, "leftImg8bit/val/ulm/a.jpg", "gtFine/val/ulm/a_gtFine_labelIds.png", [7], 0)
    assert len(Cityscapes(str(tmp_path), "val", image_suffix=".jpg")) == 1


def test_split_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Cityscapes found no .*leftImg8bit/training \(data_root="):
        Cityscapes(str(tmp_path), "training")
