"""KITTI, Middlebury, ETH3D, Sintel, InStereo2K, CREStereo and lists: tiny trees in their layouts, known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from stereo_trees import HEIGHT, WIDTH, check_pair, key_of, write_image, write_map, write_views

from visionattn.data.pfm import write_pfm
from visionattn.stereo import (
    ETH3D,
    KITTI2012,
    KITTI2015,
    CREStereo,
    InStereo2K,
    Middlebury2003,
    Middlebury2006,
    Middlebury2014,
    MiddleburyV3,
    PairList,
    Sintel,
)
from visionattn.stereo.kitti import _VAL_2012, _VAL_2015


def write_marks(path: Path, values: tuple[int, ...]) -> None:
    """A mask whose columns begin with these values; the others are 0."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, : len(values)] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)


def look(dataset: Any) -> list[str]:
    """Checks that all files of each pair belong together; the pairs' names."""
    keys = [check_pair(dataset.raw(index)) for index in range(len(dataset))]
    assert len(set(keys)) == len(keys)
    return [dataset.files(index).name for index in range(len(dataset))]


KITTI_FOLDERS = {
    KITTI2012: ("colored_0", "colored_1", "disp_occ", "disp_noc"),
    KITTI2015: ("image_2", "image_3", "disp_occ_0", "disp_noc_0"),
}


def write_kitti(root: Path, cls: Any, frames: range) -> None:
    left, right, all_, seen = KITTI_FOLDERS[cls]
    for folder in ("training", "testing"):
        for frame in frames:
            name = f"{frame:06}_10.png"
            key = key_of(folder + name)
            write_views(root / folder / left / name, root / folder / right / name, key)
            for view in (left, right):
                write_image(root / folder / view / f"{frame:06}_11.png", 255)
            if folder == "training":
                write_map(root / folder / all_ / name, key / 4)
                write_map(root / folder / seen / name, key / 4)
                write_marks(root / folder / "obj_map" / name, (0, 1, 2))


@pytest.mark.parametrize("cls", [KITTI2012, KITTI2015])
def test_kitti_takes_the_first_frames_and_pairs_them_by_name(cls: Any, tmp_path: Path) -> None:
    write_kitti(tmp_path, cls, range(7))
    training = cls(str(tmp_path), "training")
    assert look(training) == [f"{frame:06}_10" for frame in range(7)]
    sample = training.raw(2)
    assert sample["nonoccluded"].tolist() == sample["valid"].tolist()
    assert not sample["valid"][0, 0]
    if cls is KITTI2015:
        assert sample["foreground"].tolist() == [[False, True, True] + [False] * (WIDTH - 3)] * HEIGHT
    testing = cls(str(tmp_path), "testing")
    assert look(testing) == [f"{frame:06}_10" for frame in range(7)]
    assert "disparity" not in testing.raw(0)
    assert testing.find_pairs().sizes == {f"KITTI {cls.__name__[-4:]} testing": (7, 195 if cls is KITTI2012 else 200)}
    with pytest.raises(ValueError, match=rf"{cls.__name__} knows the disparity of left images only"):
        cls(str(tmp_path), "training", right_disparity=True)
    (tmp_path / "training" / KITTI_FOLDERS[cls][3] / "000003_10.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks .*noc.*000003_10\.png; fetch"):
        cls(str(tmp_path), "training")


@pytest.mark.parametrize(("cls", "number", "val"), [(KITTI2012, 194, _VAL_2012), (KITTI2015, 200, _VAL_2015)])
def test_kittis_training_frames_are_parted(cls: Any, number: int, val: tuple[int, ...], tmp_path: Path) -> None:
    for folder in KITTI_FOLDERS[cls]:
        (tmp_path / "training" / folder).mkdir(parents=True)
        for frame in range(number):
            (tmp_path / "training" / folder / f"{frame:06}_10.png").touch()  # only listed here
    frames = {}
    for split in ("train", "val"):
        pairs = cls(str(tmp_path), split, lazy_init=True).find_pairs().pairs
        frames[split] = [int(files.name[:6]) for files in pairs]
    assert len(frames["train"]) == 180
    assert sorted(frames["train"] + frames["val"]) == list(range(number))
    assert tuple(frames["val"]) == val
    assert cls(str(tmp_path), "val", lazy_init=True).find_pairs().sizes == {
        f"KITTI {cls.__name__[-4:]} val": (len(val), len(val))
    }


@pytest.mark.parametrize("below", ["MiddEval3", "."])
def test_middleburys_evaluation(below: str, tmp_path: Path) -> None:
    for scene in ("Adirondack", "PianoL"):
        for split in ("trainingQ", "testQ"):
            folder = tmp_path / below / split / scene
            key = key_of(split + scene)
            write_views(folder / "im0.png", folder / "im1.png", key)
            if split == "trainingQ":
                values = np.full((HEIGHT, WIDTH), key / 4, np.float32)
                values[:, 0] = np.inf, np.inf, 0, np.inf, np.inf
                write_pfm(folder / "disp0GT.pfm", values)
                write_map(folder / "disp1GT.pfm", key / 4 + 1)
                write_marks(folder / "mask0nocc.png", (0, 128, 128, 255, 255))
    (tmp_path / below / "trainingQ" / "notes").mkdir()
    training = MiddleburyV3(str(tmp_path), "trainingQ", right_disparity=True)
    assert look(training) == ["Adirondack", "PianoL"]
    sample = training.raw(0)
    assert sample["valid"].tolist() == [[False] + [True] * (WIDTH - 1)] * HEIGHT
    assert sample["nonoccluded"][0].tolist() == [False] * 3 + [True] * 2 + [False] * 3
    assert training.find_pairs().sizes == {"Middlebury trainingQ": (2, 15)}
    test = MiddleburyV3(str(tmp_path), "testQ")
    assert look(test) == ["Adirondack", "PianoL"]
    assert "disparity" not in test.raw(1)
    with pytest.raises(FileNotFoundError, match=r"Middlebury v3: no folder .*trainingF; data_root is"):
        MiddleburyV3(str(tmp_path), "trainingF")


def test_middlebury_2014(tmp_path: Path) -> None:
    for scene in ("Sword1-perfect", "Cable-perfect", "Cable-imperfect", "artroom1"):
        key = key_of(scene)
        write_views(tmp_path / scene / "im0.png", tmp_path / scene / "im1.png", key)
        write_image(tmp_path / scene / "im1E.png", 255)
        write_map(tmp_path / scene / "disp0.pfm", key / 4)
        write_map(tmp_path / scene / "disp1.pfm", key / 4 + 1)
    assert look(Middlebury2014(str(tmp_path), "perfect", right_disparity=True)) == ["Cable-perfect", "Sword1-perfect"]
    assert look(Middlebury2014(str(tmp_path), "imperfect")) == ["Cable-imperfect"]
    everything = Middlebury2014(str(tmp_path), "all")
    assert look(everything) == ["Cable-imperfect", "Cable-perfect", "Sword1-perfect", "artroom1"]
    assert "nonoccluded" not in everything.raw(0)


@pytest.mark.parametrize(
    ("cls", "split", "steps", "image", "views"),
    [
        (Middlebury2003, "quarter", 4, "im", "26"),
        (Middlebury2003, "half", 2, "im", "26"),
        (Middlebury2006, "third", 3, "view", "15"),
        (Middlebury2006, "half", 2, "view", "15"),
        (Middlebury2006, "full", 1, "view", "15"),
    ],
)
def test_middleburys_older_scenes(cls: Any, split: str, steps: int, image: str, views: str, tmp_path: Path) -> None:
    left, right = views[0], views[1]
    for scene, key in (("Cones", 24), ("Teddy", 48)):  # disparities 6 and 12
        folder = tmp_path / scene
        write_views(folder / f"{image}{left}.png", folder / f"{image}{right}.png", key)
        write_map(folder / f"disp{left}.png", key / 4, steps, np.uint8)
        write_map(folder / f"disp{right}.png", key / 4 + 1, steps, np.uint8)
    dataset = cls(str(tmp_path), split, right_disparity=True)
    assert look(dataset) == ["Cones", "Teddy"]
    assert not dataset.raw(0)["valid"][0, 0]
    (tmp_path / "Teddy" / f"disp{left}.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"Teddy/disp{left}\.png"):
        cls(str(tmp_path), split)


@pytest.mark.parametrize("truth", ["two_view_training_gt", "two_view_training"])
def test_eth3d(truth: str, tmp_path: Path) -> None:
    for scene in ("delivery_area_1l", "terrains_2s"):
        for split in ("training", "test"):
            key = key_of(split + scene)
            folder = tmp_path / f"two_view_{split}" / scene
            write_image(folder / "im0.png", key, (HEIGHT, WIDTH))  # grey
            write_image(folder / "im1.png", key + 1, (HEIGHT, WIDTH))
            if split == "training":
                values = np.full((HEIGHT, WIDTH), key / 4, np.float32)
                values[0, :2] = np.inf, 0
                (tmp_path / truth / scene).mkdir(parents=True, exist_ok=True)
                write_pfm(tmp_path / truth / scene / "disp0GT.pfm", values)
                write_marks(tmp_path / truth / scene / "mask0nocc.png", (255, 0))
    training = ETH3D(str(tmp_path), "training")
    assert look(training) == ["delivery_area_1l", "terrains_2s"]
    assert training.raw(1)["valid"].sum() == HEIGHT * WIDTH - 2
    assert training.raw(1)["nonoccluded"][:, :2].tolist() == [[True, False]] * HEIGHT
    test = ETH3D(str(tmp_path), "test")
    assert look(test) == ["delivery_area_1l", "terrains_2s"]
    assert "disparity" not in test.raw(0)


def test_sintel(tmp_path: Path) -> None:
    training = tmp_path / "training"
    for sequence, frame in (("alley_1", "0001"), ("alley_1", "0002"), ("temple_3", "0001")):
        key = key_of(sequence + frame)
        where = f"{sequence}/frame_{frame}.png"
        for number, split in enumerate(("clean", "final")):
            write_views(training / f"{split}_left" / where, training / f"{split}_right" / where, key + number)
        blue_green_red = np.array([0, key % 4 * 16, key // 16], np.uint8)  # 4 R + G / 64, of key / 4
        (training / "disparities" / sequence).mkdir(parents=True, exist_ok=True)
        assert key // 16 * 4 + key % 4 / 4 == key // 16 * 4 + key % 4 * 16 / 64
        cv2.imwrite(str(training / "disparities" / where), np.tile(blue_green_red, (HEIGHT, WIDTH, 1)))
        write_marks(training / "occlusions" / where, (0, 255, 0))
        write_marks(training / "outofframe" / where, (255, 0, 0))
    for split, number in (("clean", 0), ("final", 1)):
        dataset = Sintel(str(tmp_path), split)
        names = [dataset.files(index).name for index in range(len(dataset))]
        assert names == ["alley_1/frame_0001", "alley_1/frame_0002", "temple_3/frame_0001"]
        for index in range(3):
            sample = dataset.raw(index)
            key = int(sample["left"][0, 0, 0]) - number
            assert sample["right"][0, 0, 0] == key + number + 1
            assert (sample["disparity"] == key // 16 * 4 + key % 4 / 4).all()
            assert sample["nonoccluded"].tolist() == [[False, False] + [True] * (WIDTH - 2)] * HEIGHT


@pytest.mark.parametrize("part", ["part1/", ""])
def test_instereo2k_has_a_hundred_steps_a_pixel(part: str, tmp_path: Path) -> None:
    for split, prefix in (("train", part), ("test", "")):
        for scene in ("000000", "000041"):
            folder = tmp_path / split / (prefix + scene)
            key = key_of(split + scene)
            write_views(folder / "left.png", folder / "right.png", key)
            write_map(folder / "left_disp.png", key / 4, 100)
            write_map(folder / "right_disp.png", key / 4 + 1, 100)
    train = InStereo2K(str(tmp_path), "train", right_disparity=True)
    assert look(train) == [f"{part}000000", f"{part}000041"]
    assert train.find_pairs().sizes == {"InStereo2K train": (2, 2010)}
    assert look(InStereo2K(str(tmp_path), "test")) == ["000000", "000041"]


def test_crestereo_has_32_steps_a_pixel(tmp_path: Path) -> None:
    written = ["tree/a_1", "tree/b/img_7", "shapenet/0", "reflective/0", "hole/0"]
    for stem in written:
        key = key_of(stem)
        for view, value in (("left", key), ("right", key + 1)):
            path = tmp_path / f"{stem}_{view}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path.with_suffix(".png")), np.full((HEIGHT, WIDTH, 3), value, np.uint8))
            path.with_suffix(".png").rename(path)  # without JPEG's losses; read by its content
        write_map(tmp_path / f"{stem}_left.disp.png", key / 4, 32)
        write_map(tmp_path / f"{stem}_right.disp.png", key / 4 + 1, 32)
    assert look(CREStereo(str(tmp_path), "all", right_disparity=True)) == written
    assert look(CREStereo(str(tmp_path), "tree")) == written[:2]


def test_lists_of_two_three_and_four_files(tmp_path: Path) -> None:
    for key, folder, suffix in ((8, "a", ".pfm"), (12, "b", ".png"), (16, "with a blank", ".pfm")):
        write_views(tmp_path / folder / "left.png", tmp_path / folder / "right.png", key)
        write_map(tmp_path / folder / f"d{suffix}", key / 4)
        write_map(tmp_path / folder / f"r{suffix}", key / 4 + 1)
    lines = [
        "# left right disparity right_disparity",
        "a/left.png a/right.png a/d.pfm a/r.pfm",
        "",
        "b/left.png  b/right.png   b/d.png b/r.png",
        "with a blank/left.png\twith a blank/right.png\twith a blank/d.pfm\twith a blank/r.pfm",
    ]
    (tmp_path / "all.txt").write_text("\n".join(lines))
    dataset = PairList("all.txt", str(tmp_path), right_disparity=True)
    assert look(dataset) == ["a/left", "b/left", "with a blank/left"]
    (tmp_path / "three.txt").write_text(lines[1][:-8] + "\n" + lines[3][:-8])
    three = PairList(str(tmp_path / "three.txt"), str(tmp_path))
    assert look(three) == ["a/left", "b/left"]
    assert "right_disparity" not in three.raw(0)
    (tmp_path / "two.txt").write_text("a/left.png a/right.png\n")
    assert "disparity" not in PairList("two.txt", str(tmp_path)).raw(0)
    with pytest.raises(ValueError, match=r"two\.txt, line 1 names 2 files; expected left right disparity right_disp"):
        PairList("two.txt", str(tmp_path), right_disparity=True)
    (tmp_path / "bad.txt").write_text("a/left.png a/right.png\na/left.png\n")
    with pytest.raises(ValueError, match=r"bad\.txt, line 2 names 1 files; expected left right disparity, parted"):
        PairList("bad.txt", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no list .*none\.txt; it holds `left right disparity`"):
        PairList("none.txt", str(tmp_path))
    (tmp_path / "gone.txt").write_text("a/left.png a/right.png a/nowhere.pfm\n")
    with pytest.raises(FileNotFoundError, match=r"PairList lacks .*a/nowhere\.pfm; fetch"):
        PairList("gone.txt", str(tmp_path))


def test_a_list_says_what_its_numbers_mean(tmp_path: Path) -> None:
    write_views(tmp_path / "l.png", tmp_path / "r.png", 20)
    write_map(tmp_path / "eight.png", 5, 4, np.uint8)
    write_map(tmp_path / "negative.pfm", -5)
    write_map(tmp_path / "zero.pfm", 0)
    for name in ("eight.png", "negative.pfm", "zero.pfm"):
        (tmp_path / f"{name}.txt").write_text(f"l.png r.png {name}")
    check_pair(PairList("eight.png.txt", str(tmp_path), png_scale=4, png_bits=8).raw(0))
    check_pair(PairList("negative.pfm.txt", str(tmp_path)).raw(0))
    with pytest.raises(ValueError, match=r"zero\.pfm has no valid pixel"):
        PairList("zero.pfm.txt", str(tmp_path)).raw(0)
    assert PairList("zero.pfm.txt", str(tmp_path), zero_is_unknown=False).raw(0)["valid"].all()
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="PairList found no pair"):
        PairList("empty.txt", str(tmp_path))
