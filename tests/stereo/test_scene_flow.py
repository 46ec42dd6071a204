"""Scene Flow in every tree it is kept in: which pairs, in which order, and that their files belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from stereo_trees import check_pair, key_of, write_image, write_map, write_scene_flow_frame, write_views

from visionattn.registry import DATASETS
from visionattn.stereo.samples import PairFiles
from visionattn.stereo.scene_flow import FlyingThings3DSubset, SceneFlow, drawn_400

FLYING = {
    "TRAIN": [("A/0000", "0006"), ("A/0000", "0007"), ("B/0012", "0015"), ("C/0001", "0006")],
    "TEST": [("A/0000", "0006"), ("C/0149", "0015")],
}
MONKAA = [("a_rain_of_stones_x2", "0000"), ("treeflight_left_x2", "0001")]  # a scene whose name holds a view's
DRIVING = [
    ("15mm_focallength/scene_backwards/fast", "0001"),
    ("15mm_focallength/scene_forwards/slow", "0001"),
    ("35mm_focallength/scene_backwards/fast", "0001"),
]
TRAIN_PARTS = ["FlyingThings3D"] * 4 + ["Monkaa"] * 2 + ["Driving"] * 3


def makers_tree(root: Path, image_pass: str, suffix: str = ".png") -> None:
    for part, frames in (("Monkaa", MONKAA), ("Driving", DRIVING)):
        for folder, frame in frames:
            images, maps = root / part / f"frames_{image_pass}", root / part / "disparity"
            write_scene_flow_frame(images, maps, folder, frame, suffix=suffix)
    for split, frames in FLYING.items():
        for folder, frame in frames:
            images, maps = root / "FlyingThings3D" / f"frames_{image_pass}", root / "FlyingThings3D" / "disparity"
            write_scene_flow_frame(images, maps, f"{split}/{folder}", frame, suffix=suffix)


def psmnet_tree(root: Path, image_pass: str) -> None:
    for part, frames in (("monkaa", MONKAA), ("driving", DRIVING)):
        for folder, frame in frames:
            images, maps = root / f"{part}_frames_{image_pass}", root / f"{part}_disparity"
            write_scene_flow_frame(images, maps, folder, frame)
    for split, frames in FLYING.items():
        for folder, frame in frames:
            images, maps = root / f"frames_{image_pass}", root / "frames_disparity"
            write_scene_flow_frame(images, maps, f"{split}/{folder}", frame)


def gwcnet_tree(root: Path, image_pass: str) -> None:
    for split, frames in (("TRAIN", FLYING["TRAIN"] + MONKAA + DRIVING), ("TEST", FLYING["TEST"])):
        for folder, frame in frames:
            images, maps = root / f"frames_{image_pass}", root / "disparity"
            write_scene_flow_frame(images, maps, f"{split}/{folder}", frame)


TREES = {"makers": makers_tree, "psmnet": psmnet_tree, "gwcnet": gwcnet_tree}


def names(dataset: Any) -> list[str]:
    return [dataset.files(index).name for index in range(len(dataset))]


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("image_pass", ["cleanpass", "finalpass"])
def test_every_tree_gives_the_same_pairs(tree: str, image_pass: str, tmp_path: Path) -> None:
    TREES[tree](tmp_path, image_pass)
    train = SceneFlow(str(tmp_path), "train", image_pass, right_disparity=True)
    test = SceneFlow(str(tmp_path), "test", image_pass)
    flying = f"FlyingThings3D/{image_pass}"
    assert names(test) == [f"{flying}/TEST/A/0000/0006", f"{flying}/TEST/C/0149/0015"]
    expected = [f"{flying}/TRAIN/{folder}/{frame}" for folder, frame in FLYING["TRAIN"]]
    expected += [f"Monkaa/{image_pass}/{folder}/{frame}" for folder, frame in MONKAA]
    expected += [f"Driving/{image_pass}/{folder}/{frame}" for folder, frame in DRIVING]
    written = [name.replace("/TRAIN/", "/") if tree == "gwcnet" else name for name in names(train)]
    assert written == [name.replace("/TRAIN/", "/") if tree == "gwcnet" else name for name in expected]

    for dataset in (train, test):
        keys = [check_pair(dataset.raw(index)) for index in range(len(dataset))]
        assert len(set(keys)) == len(keys)
    assert "right_disparity" in train.raw(0)
    assert "right_disparity" not in test.raw(0)
    assert not {Path(train.files(i).left) for i in range(len(train))} & {Path(test.files(i).left) for i in range(2)}


@pytest.mark.parametrize("tree", TREES)
def test_parts_and_both_passes(tree: str, tmp_path: Path) -> None:
    for image_pass in ("cleanpass", "finalpass"):
        TREES[tree](tmp_path, image_pass)
    both = SceneFlow(str(tmp_path), "train", "both")
    assert [name.split("/")[0] for name in names(both)] == TRAIN_PARTS * 2
    assert ["cleanpass" in name for name in names(both)] == [True] * 9 + [False] * 9
    some = SceneFlow(str(tmp_path), "train", "cleanpass", parts=["Driving", "Monkaa"])
    assert [name.split("/")[0] for name in names(some)] == ["Driving"] * 3 + ["Monkaa"] * 2
    for index in range(len(some)):
        check_pair(some.raw(index))


def test_one_part_needs_no_other(tmp_path: Path) -> None:
    makers_tree(tmp_path, "finalpass")
    (tmp_path / "Driving").rename(tmp_path / "elsewhere")
    assert len(SceneFlow(str(tmp_path), "train", parts=["FlyingThings3D", "Monkaa"])) == 6
    with pytest.raises(
        FileNotFoundError, match=r"Scene Flow's Driving, finalpass: no folder .*Driving.*; data_root is"
    ):
        SceneFlow(str(tmp_path), "train")
    with pytest.raises(FileNotFoundError, match=r"no folder .*frames_cleanpass"):
        SceneFlow(str(tmp_path), "test", "cleanpass")


def test_the_makers_tree_goes_before_another_beside_it(tmp_path: Path) -> None:
    makers_tree(tmp_path, "finalpass")
    gwcnet_tree(tmp_path, "finalpass")
    test = SceneFlow(str(tmp_path), "test")
    assert [Path(test.files(index).left).relative_to(tmp_path).parts[0] for index in range(2)] == ["FlyingThings3D"] * 2


def test_masks_of_what_is_hidden_where_there_are_any(tmp_path: Path) -> None:
    makers_tree(tmp_path, "finalpass")
    assert "nonoccluded" not in SceneFlow(str(tmp_path), "test").raw(0)
    for folder, frame in FLYING["TEST"]:
        mask = tmp_path / "FlyingThings3D/disparity_occlusions/TEST" / folder / "left" / f"{frame}.png"
        write_image(mask, 255 if frame == "0006" else 0, (5, 8))
    test = SceneFlow(str(tmp_path), "test")
    assert [test.raw(index)["nonoccluded"].all() for index in range(2)] == [False, True]
    mask.unlink()
    with pytest.raises(FileNotFoundError, match=r"SceneFlow lacks .*disparity_occlusions/TEST/C/0149/left/0015\.png"):
        SceneFlow(str(tmp_path), "test")


def test_webp_images_beside_png_ones(tmp_path: Path) -> None:
    makers_tree(tmp_path, "cleanpass", suffix=".png")
    for file in sorted(tmp_path.rglob("*.png")):
        file.rename(file.with_suffix(".webp"))  # read by its content
    folder = tmp_path / "FlyingThings3D"
    (folder / "frames_cleanpass").rename(folder / "frames_cleanpass_webp")
    test = SceneFlow(str(tmp_path), "test", "cleanpass")
    assert [Path(test.files(index).left).suffix for index in range(2)] == [".webp"] * 2
    check_pair(test.raw(1))


def test_missing_files_are_named_and_counted(tmp_path: Path) -> None:
    makers_tree(tmp_path, "finalpass")
    right = tmp_path / "FlyingThings3D/frames_finalpass/TRAIN/A/0000/right/0006.png"
    left = tmp_path / "Monkaa/frames_finalpass/a_rain_of_stones_x2/left/0000.png"
    disparity = tmp_path / "Driving/disparity/35mm_focallength/scene_backwards/fast/left/0001.pfm"
    for file in (right, left, disparity):
        file.unlink()
    disparity.symlink_to(tmp_path / "nowhere")
    dataset = SceneFlow(str(tmp_path), "train", lazy_init=True)
    found = dataset.find_pairs()
    assert found.missing == [str(right), str(left), str(disparity)]
    assert len(found.pairs) == 6
    with pytest.raises(FileNotFoundError, match=r"SceneFlow lacks .*right/0006\.png and 2 more"):
        dataset.full_init()


def test_how_many_the_whole_has(tmp_path: Path) -> None:
    makers_tree(tmp_path, "finalpass")
    train, test = (SceneFlow(str(tmp_path), split).find_pairs().sizes for split in ("train", "test"))
    assert train == {
        "FlyingThings3D TRAIN finalpass": (4, 22390),
        "Monkaa TRAIN finalpass": (2, 8664),
        "Driving TRAIN finalpass": (3, 4400),
    }
    assert test == {"FlyingThings3D TEST finalpass": (2, 4370)}
    assert sum(whole for _, whole in train.values()) == 35454


def test_the_400_pairs_of_raft_stereo() -> None:
    pairs = [PairFiles(str(index), "left", "right") for index in range(4370)]
    np.random.seed(1000)  # as its loader does
    chosen = set(np.random.permutation(len(pairs))[:400])
    expected = [str(index) for index in range(4370) if index in chosen]
    assert [files.name for files in drawn_400(pairs)] == expected
    assert len(drawn_400(pairs[:7])) == 7


@pytest.mark.parametrize("test_folder", ["val", "test"])
def test_the_subset_and_its_sign(test_folder: str, tmp_path: Path) -> None:
    root = tmp_path / "FlyingThings3D_subset"
    for split in ("train", test_folder):
        for stem in ("0000000", "0000003"):
            key = key_of(split + stem)
            images = root / split / "image_clean"
            write_views(images / "left" / f"{stem}.png", images / "right" / f"{stem}.png", key)
            write_map(root / split / "disparity" / "left" / f"{stem}.pfm", -key / 4)
            write_map(root / split / "disparity" / "right" / f"{stem}.pfm", key / 4 + 1)
            hidden = root / split / "disparity_occlusions" / "left" / f"{stem}.png"
            write_image(hidden, 0, (5, 8))
            cv2.imwrite(str(hidden), np.array([[255] * 3 + [0] * 5] * 5, np.uint8))
    for where in (tmp_path, root):
        for split, folder in (("train", "train"), ("test", test_folder)):
            dataset = FlyingThings3DSubset(str(where), split, right_disparity=True)
            assert names(dataset) == [f"FlyingThings3D_subset/cleanpass/{folder}/000000{n}" for n in (0, 3)]
            for index in range(2):
                sample = dataset.raw(index)
                check_pair(sample)
                assert sample["nonoccluded"].tolist() == [[False] * 3 + [True] * 5] * 5


def test_from_a_config_with_transforms_and_indices(tmp_path: Path) -> None:
    makers_tree(tmp_path, "finalpass")
    dataset = DATASETS.build(
        {
            "type": "visionattn.SceneFlow",
            "data_root": str(tmp_path),
            "split": "train",
            "indices": [1, 5],
            "transforms": [{"type": "visionattn.PackStereo"}],
        }
    )
    assert len(dataset) == 2
    packed = dataset[1]
    assert packed["inputs"]["left"].shape == (3, 5, 8)
    assert packed["data_samples"].name == "Monkaa/finalpass/treeflight_left_x2/0001"
    assert packed["data_samples"].disparity.shape == (5, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, r"split='val' is none of 'train', 'test', 'test400'"),
        ({"split": "test", "image_pass": "clean"}, r"image_pass='clean' is none of 'cleanpass', 'finalpass', 'both'"),
        ({"split": "train", "parts": ["Sintel"]}, r"parts='Sintel' is none of 'FlyingThings3D', 'Monkaa', 'Driving'"),
    ],
)
def test_options_that_nothing_knows(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        SceneFlow(str(tmp_path), **options)
