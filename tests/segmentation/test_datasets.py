from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.datasets import ADE20KDataset

from visionattn.data.ade20k_scenes import write_ade20k
from visionattn.data.scenes import SCENE_CLASSES
from visionattn.registry import DATASETS
from visionattn.segmentation.datasets import ImageMaskFolder
from visionattn.segmentation.made_up import MadeUpADE20K
from visionattn.segmentation.public_datasets import ADE20K, CamVid

CLASSES = ("sky", "road", "tree")
PIPELINE = [
    {"type": "visionattn.LoadImage"},
    {"type": "visionattn.LoadLabels"},
    {"type": "mmseg.PackSegInputs"},
]


def loaded(dataset, index):
    return dataset[index]["data_samples"].gt_sem_seg.data[0].numpy()


def test_folder_pairs_by_stem_and_loads_the_file_s_labels(folder):
    (folder / "images" / "notes.txt").write_text("not an image")
    dataset = ImageMaskFolder(str(folder), classes=CLASSES, pipeline=PIPELINE)
    assert [image.rsplit("/", 1)[1] for image, _ in dataset.pairs()] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    for index, (image, mask) in enumerate(dataset.pairs()):
        np.testing.assert_array_equal(loaded(dataset, index), cv2.imread(mask, cv2.IMREAD_UNCHANGED))
        inputs = dataset[index]["inputs"].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(inputs, cv2.imread(image)[..., ::-1])  # RGB
    assert str(dataset.check()) == "checked the labels and sizes of 4 of 4 masks"
    assert dataset.metainfo["classes"] == CLASSES
    assert len(dataset.metainfo["palette"]) == 3


def test_folder_suffixes_and_subfolders(folder):
    (folder / "images" / "city").mkdir()
    (folder / "masks" / "city").mkdir()
    for stem in "ab":
        (folder / "images" / f"{stem}.jpg").rename(folder / "images" / "city" / f"{stem}_left.jpg")
        (folder / "masks" / f"{stem}.png").rename(folder / "masks" / "city" / f"{stem}_ids.png")
    dataset = ImageMaskFolder(str(folder), classes=CLASSES, image_suffix="_left.jpg", mask_suffix="_ids.png")
    assert len(dataset) == 2
    assert dataset.pairs()[1] == (str(folder / "images/city/b_left.jpg"), str(folder / "masks/city/b_ids.png"))


def test_folder_list_file_sets_the_order(folder):
    (folder / "val.txt").write_text("d\n\nb\n")
    dataset = ImageMaskFolder(str(folder), classes=CLASSES, ann_file="val.txt")
    assert [mask[-5:] for _, mask in dataset.pairs()] == ["d.png", "b.png"]


@pytest.mark.parametrize("folder_without", ["images", "masks"])
def test_partner_that_is_missing_is_named(folder, folder_without):
    stem, partner = ("c.jpg", "image") if folder_without == "images" else ("c.png", "mask")
    (folder / folder_without / stem).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"^1 .* have no {partner}: {folder / folder_without} lacks {stem}; add"
    ):
        ImageMaskFolder(str(folder), classes=CLASSES)
    (folder / "list.txt").write_text("a\nb\nd\n")
    assert len(ImageMaskFolder(str(folder), classes=CLASSES, ann_file="list.txt")) == 3
    (folder / "list.txt").write_text("a\nc\n")
    with pytest.raises(FileNotFoundError, match=rf"1 named in .*list\.txt have no {partner}: .* lacks {stem}; add"):
        ImageMaskFolder(str(folder), classes=CLASSES, ann_file="list.txt")


def test_missing_folder_is_one_line_with_key_and_way_out(tmp_path):
    for build in (
        lambda: CamVid(str(tmp_path / "no"), "train"),
        lambda: ADE20K(str(tmp_path / "no"), "training"),
        lambda: ImageMaskFolder(str(tmp_path / "no"), classes=CLASSES),
        lambda: DATASETS.build({"type": "visionattn.CamVid", "data_root": str(tmp_path / "no"), "split": "val"}),
    ):
        with pytest.raises(FileNotFoundError) as error:
            build()
        message = str(error.value)
        assert str(tmp_path / "no") in message
        assert "--cfg-options data_root=PATH" in message
        # Made-up scenes stand in for no other layout.
        assert ("visionattn data synth ade20k OUT" in message) == message.startswith("ADE20K ")
        assert "\n" not in message


def test_suffix_that_no_file_has_is_answered_with_those_there_are(folder):
    with pytest.raises(
        ValueError, match=r"no file in .*images ends in '\.png' \(there are: 4 \.jpg\); set image_suffix"
    ):
        ImageMaskFolder(str(folder), classes=CLASSES, image_suffix=".png")


def test_classes_are_needed(folder):
    with pytest.raises(ValueError, match="ImageMaskFolder needs the names of its classes"):
        ImageMaskFolder(str(folder))


def test_ignored_number_of_the_files_is_loaded_as_255(folder):
    dataset = ImageMaskFolder(str(folder), classes=CLASSES[:2], ignore_index=2, pipeline=PIPELINE)
    raw = cv2.imread(dataset.pairs()[0][1], cv2.IMREAD_UNCHANGED)
    assert (raw == 2).any()
    np.testing.assert_array_equal(loaded(dataset, 0), np.where(raw == 2, 255, raw))
    dataset.check()
    with pytest.raises(ValueError, match="ignore_index=2 is also the class 'tree'"):
        ImageMaskFolder(str(folder), classes=CLASSES, ignore_index=2)


def test_label_outside_the_classes_is_refused_when_checked_and_when_loaded(folder):
    dataset = ImageMaskFolder(str(folder), classes=CLASSES[:2], pipeline=PIPELINE)
    with pytest.raises(ValueError, match=r"a\.png: row \d+, column \d+ holds 2; allowed are 0\.\.1 or ignored 255"):
        dataset.check()
    with pytest.raises(ValueError, match=r"b\.png: row \d+, column \d+ holds 2"):
        dataset[1]


@pytest.fixture
def person(folder):
    """The folder's masks with 0 = unlabelled, 255 = person, and 1 = ground."""
    for path in (folder / "masks").iterdir():
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.select([mask == 0, mask == 255], [1, 0], 255).astype(np.uint8))
    return folder


@pytest.mark.parametrize("label_map", [{0: "ignore", 255: "person", 1: "ground"}, {0: 255, 255: 1, 1: 0}])
def test_label_map_says_what_numbers_mean(person, label_map):
    dataset = ImageMaskFolder(str(person), classes=("ground", "person"), label_map=label_map, pipeline=PIPELINE)
    dataset.check()
    for index, (_, mask) in enumerate(dataset.pairs()):
        raw = cv2.imread(mask, cv2.IMREAD_UNCHANGED)
        assert set(np.unique(raw)) == {0, 1, 255}
        np.testing.assert_array_equal(loaded(dataset, index), np.select([raw == 1, raw == 255], [0, 1], 255))


def test_numbers_that_the_label_map_leaves_out_keep_their_meaning_or_are_refused(person):
    dataset = ImageMaskFolder(str(person), classes=("x", "ground", "person"), label_map={0: "ignore", 255: 2})
    table = dataset.label_table()
    assert table[:4].tolist() == [255, 1, 2, -1]
    assert table[255] == 2
    assert (table[256:] == -1).all()
    with pytest.raises(ValueError, match=r"holds 1; allowed are 0, 255 or ignored 7:"):
        ImageMaskFolder(str(person), classes=("person",), label_map={255: "person", 7: "ignore"}).check()


def test_label_map_with_a_choice_of_classes(tmp_path):
    class Remapped(ImageMaskFolder):
        METAINFO = CamVid.METAINFO

    root = camvid_like(tmp_path, numbers=(0, 8, 200))
    options = {"label_map": {200: "Tree", 11: "ignore"}, "classes": ("Tree", "Car"), "pipeline": PIPELINE}
    dataset = Remapped(root, "images/train", "annotations/train", **options)
    dataset.check()
    raw = cv2.imread(dataset.pairs()[0][1], cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(loaded(dataset, 0), np.select([raw == 200, raw == 8], [0, 1], 255))


def test_label_map_survives_a_config_that_is_written_out(person):
    written = Config({"dataset": {"label_map": {0: "ignore", 255: "person", 1: "ground"}}})
    written.dump(person / "config.py")
    label_map = Config.fromfile(person / "config.py").dataset.label_map
    ImageMaskFolder(str(person), classes=("ground", "person"), label_map=label_map).check()


def test_label_map_that_contradicts_is_refused(folder):
    with pytest.raises(ValueError, match="label_map and reduce_zero_label=True exclude each other"):
        ImageMaskFolder(str(folder), classes=CLASSES, label_map={0: "ignore"}, reduce_zero_label=True)
    with pytest.raises(ValueError, match="label_map sends 9 to 'road', and ignore_index=9; drop one"):
        ImageMaskFolder(str(folder), classes=CLASSES, label_map={9: "road"}, ignore_index=9)
    assert len(ImageMaskFolder(str(folder), classes=CLASSES, label_map={2: "ignore"}, ignore_index=2)) == 4


def camvid_like(root, numbers=range(12)):
    rng = np.random.default_rng(3)
    for kind in ("images", "annotations"):
        (root / kind / "train").mkdir(parents=True)
    for stem in ("x_2", "x_1"):
        cv2.imwrite(str(root / "images/train" / f"{stem}.jpg"), rng.integers(0, 256, (12, 17, 3), np.uint8))
        cv2.imwrite(str(root / "annotations/train" / f"{stem}.png"), rng.choice(np.array(numbers, np.uint8), (12, 17)))
    (root / "train.txt").write_text("x_2\nx_1\n")
    return str(root)


def test_camvid_reads_its_split_and_ignores_void(tmp_path):
    dataset = CamVid(camvid_like(tmp_path), "train", pipeline=PIPELINE)
    dataset.check()
    assert len(dataset.classes) == len(dataset.metainfo["palette"]) == 11
    raw = cv2.imread(dataset.pairs()[0][1], cv2.IMREAD_UNCHANGED)
    assert dataset.pairs()[0][1].endswith("x_2.png")
    np.testing.assert_array_equal(loaded(dataset, 0), np.where(raw == 11, 255, raw))


def test_choice_of_classes_ignores_the_others(tmp_path):
    dataset = CamVid(camvid_like(tmp_path), "train", classes=("Car", "Sky"), pipeline=PIPELINE)
    dataset.check()
    raw = cv2.imread(dataset.pairs()[1][1], cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(loaded(dataset, 1), np.select([raw == 8, raw == 0], [0, 1], 255))
    assert dataset.metainfo["palette"] == [[64, 0, 128], [128, 128, 128]]
    camvid_like(tmp_path / "bad", numbers=range(10, 14))
    with pytest.raises(ValueError, match=r"holds 1[23]; allowed are 0, 8 or ignored 1\.\.7, 9\.\.11, 255:"):
        CamVid(str(tmp_path / "bad"), "train", classes=("Car", "Sky")).check()


def test_ade20k_has_mmseg_s_classes_and_reduces_the_zero_label(tree):
    dataset = ADE20K(str(tree), "training", pipeline=PIPELINE)
    assert dataset.metainfo["classes"] == ADE20KDataset.METAINFO["classes"]
    assert len(dataset.classes) == 150
    assert len(dataset) == 8
    raw = cv2.imread(dataset.pairs()[0][1], cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(loaded(dataset, 0), np.where(raw == 0, 255, raw - 1))
    assert (raw == 0).any()
    dataset.check()


def test_made_up_tree_is_used_where_it_lies_and_written_where_it_is_missing(tree, tmp_path, monkeypatch):
    dataset = MadeUpADE20K(str(tree), "validation", pipeline=PIPELINE)
    assert tuple(dataset.classes) == SCENE_CLASSES
    assert len(dataset) == 4
    dataset.check()

    def small(out):
        return write_ade20k(out, train=2, val=1, size=(64, 64))

    monkeypatch.setattr("visionattn.segmentation.made_up.write_ade20k", small)
    assert len(MadeUpADE20K(str(tmp_path / "new" / "tree"), "training")) == 2
    assert len(MadeUpADE20K(str(tmp_path / "new" / "tree"), "validation")) == 1


def test_made_up_tree_does_not_touch_a_folder_of_other_data(tmp_path):
    camvid_like(tmp_path / "camvid")
    before = sorted((tmp_path / "camvid").rglob("*"))
    with pytest.raises(FileExistsError, match="is not empty and was not made here"):
        MadeUpADE20K(str(tmp_path / "camvid"), "training")
    assert sorted((tmp_path / "camvid").rglob("*")) == before


def test_made_up_tree_that_lost_a_folder_is_an_error_and_not_written_again(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "tree")
    shutil.rmtree(tmp_path / "tree" / "annotations" / "training")
    with pytest.raises(FileNotFoundError, match=r"MadeUpADE20K found no .*annotations/training"):
        MadeUpADE20K(str(tmp_path / "tree"), "training")


def test_indices_take_the_first_samples(folder):
    dataset = ImageMaskFolder(str(folder), classes=CLASSES, indices=2)
    assert len(dataset.pairs()) == len(dataset) == 2
