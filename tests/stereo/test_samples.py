"""One pair's files: images of every kind, disparity maps of every kind, and what is refused, with the file's name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from stereo_trees import HEIGHT, WIDTH, check_pair, write_image, write_map, write_views

from visionattn.data.disparity_png import read_disparity_png
from visionattn.data.pfm import write_pfm
from visionattn.stereo.samples import PairFiles, RawSample, read_pair
from visionattn.stereo.truth import (
    TruthFormat,
    known_in_png,
    marked,
    read_disparity,
    read_float_disparity,
    unmarked,
)

FLOATS = TruthFormat(partial(read_float_disparity, zero_is_unknown=True))
INF = float("inf")


def floats(path: Path, rows: list[list[float]]) -> str:
    values = np.array(rows, np.float32)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        write_pfm(path, values)
    return str(path)


@pytest.mark.parametrize("suffix", [".pfm", ".npy"])
def test_what_is_unknown_in_floats(suffix: str, tmp_path: Path) -> None:
    path = floats(tmp_path / f"d{suffix}", [[0, 2.5, INF], [-INF, 0.25, 300]])
    disparity, valid = read_float_disparity(path, zero_is_unknown=True)
    assert disparity.tolist() == [[0, 2.5, 0], [0, 0.25, 300]]
    assert disparity.dtype == np.float32
    assert valid.tolist() == [[False, True, False], [False, True, True]]
    _, valid = read_float_disparity(path, zero_is_unknown=False)
    assert valid.tolist() == [[True, True, False], [False, True, True]]


def test_a_map_of_displacements_is_turned_where_it_may_be_one(tmp_path: Path) -> None:
    path = floats(tmp_path / "d.pfm", [[-1, -2.5, INF], [0, -0.25, -300]])
    disparity, valid = read_float_disparity(path, zero_is_unknown=False, signed=True)
    assert disparity.tolist() == [[1, 2.5, 0], [0, 0.25, 300]]
    assert valid.tolist() == [[True, True, False], [True, True, True]]
    with pytest.raises(ValueError, match=r"d\.pfm holds negative disparities at row 0, column 0 and 3 more pixels"):
        read_float_disparity(path, zero_is_unknown=False)
    mixed = floats(tmp_path / "m.pfm", [[1, 2], [3, -4]])
    with pytest.raises(ValueError, match=r"m\.pfm holds negative disparities beside positive ones at row 1, column 1;"):
        read_float_disparity(mixed, zero_is_unknown=True, signed=True)
    positive = floats(tmp_path / "p.pfm", [[1, 2], [3, 0]])
    assert read_float_disparity(positive, zero_is_unknown=False, signed=True).disparity.tolist() == [[1, 2], [3, 0]]


@pytest.mark.parametrize("suffix", [".pfm", ".npy"])
def test_nan_is_refused_by_name_and_place(suffix: str, tmp_path: Path) -> None:
    path = floats(tmp_path / f"d{suffix}", [[1, 2, 3], [4, float("nan"), float("nan")]])
    with pytest.raises(ValueError, match=rf"d\{suffix} holds NaN at row 1, column 1 and 1 more pixels; write infinity"):
        read_float_disparity(path, zero_is_unknown=True)


def test_arrays_that_are_no_map(tmp_path: Path) -> None:
    np.save(tmp_path / "three.npy", np.zeros((2, 3, 3)))
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.savez(tmp_path / "many", a=np.zeros(2))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name, message in (
        ("three", r"three\.npy has shape \[2, 3, 3\]; a disparity map is \[H, W\]"),
        ("text", r"text\.npy holds <U1; expected one array"),
        ("many", r"many\.npy holds an archive; expected one array"),
        ("cut", r"cut\.npy is no array file of numpy"),
        ("objects", r"objects\.npy is no array file of numpy"),
    ):
        with pytest.raises(ValueError, match=message):
            read_float_disparity(str(tmp_path / f"{name}.npy"), zero_is_unknown=True)
    with pytest.raises(FileNotFoundError):
        read_float_disparity(str(tmp_path / "none.npy"), zero_is_unknown=True)
    np.save(tmp_path / "whole.npy", np.array([[3, 0]], np.int16))
    assert read_float_disparity(str(tmp_path / "whole.npy"), zero_is_unknown=True).disparity.tolist() == [[3, 0]]


def test_maps_are_told_apart_by_their_ending(tmp_path: Path) -> None:
    floats(tmp_path / "d.PFM", [[1.5]])
    cv2.imwrite(str(tmp_path / "d16.png"), np.array([[0, 640]], np.uint16))
    cv2.imwrite(str(tmp_path / "d8.png"), np.array([[0, 6]], np.uint8))
    assert read_disparity(str(tmp_path / "d.PFM")).disparity.tolist() == [[1.5]]
    assert read_disparity(str(tmp_path / "d16.png")).disparity.tolist() == [[0, 2.5]]
    assert read_disparity(str(tmp_path / "d16.png"), scale=100).disparity[0, 1] == np.float32(6.4)
    assert read_disparity(str(tmp_path / "d8.png"), scale=4, bits=8).disparity.tolist() == [[0, 1.5]]


def test_masks_say_what_both_images_see(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "m.png"), np.array([[0, 128, 255]], np.uint8))
    cv2.imwrite(str(tmp_path / "n.png"), np.array([[0, 0, 0]], np.uint8))
    cv2.imwrite(str(tmp_path / "k.png"), np.array([[0, 1, 500]], np.uint16))
    one, other, known = (str(tmp_path / f"{name}.png") for name in "mnk")
    assert marked([one]).tolist() == [[False, False, True]]
    assert unmarked([one]).tolist() == [[True, False, False]]
    assert unmarked([other, one]).tolist() == [[True, False, False]]
    assert known_in_png([known]).tolist() == [[False, True, True]]
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bit.png")  # 1 bit, as Scene Flow's
    assert Image.open(tmp_path / "bit.png").mode == "1"
    assert unmarked([str(tmp_path / "bit.png")]).tolist() == [[False, True]]


def test_images_of_every_kind_become_rgb(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    Image.fromarray(colours, "RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(colours[..., 0]).save(tmp_path / "grey.png")
    sixteen = colours[..., 0].astype(np.uint16) * 256 + 77
    cv2.imwrite(str(tmp_path / "grey16.png"), sixteen)
    grey = np.repeat(colours[..., :1], 3, axis=2)
    for name, expected in (("rgba", colours[..., :3]), ("grey", grey), ("grey16", grey)):
        sample = read_pair(PairFiles("x", str(tmp_path / f"{name}.png"), str(tmp_path / "rgba.png")), FLOATS)
        np.testing.assert_array_equal(sample["left"], expected, err_msg=name)
        assert sample["left"].dtype == np.uint8
        np.testing.assert_array_equal(sample["right"], colours[..., :3])


def pair(root: Path) -> PairFiles:
    """A complete pair, its number 40: disparity 10, where the first pixel is unknown."""
    write_views(root / "left.png", root / "right.png", 40)
    write_map(root / "disparity.png", 10)
    write_map(root / "right_disparity.png", 11)
    write_map(root / "noc.png", 10)
    write_image(root / "objects.png", 3, (HEIGHT, WIDTH))
    names = ("left", "right", "disparity", "right_disparity", "noc", "objects")
    left, right, disparity, right_disparity, noc, objects = (str(root / f"{name}.png") for name in names)
    return PairFiles("it", left, right, disparity, right_disparity, (noc,), objects)


KITTI = TruthFormat(read_disparity_png, known_in_png)


def test_a_complete_pair(tmp_path: Path) -> None:
    files = pair(tmp_path)
    sample = read_pair(files, KITTI)
    assert check_pair(sample) == 40
    assert set(sample) == RawSample.__required_keys__ | RawSample.__optional_keys__
    for name in ("valid", "nonoccluded"):
        assert sample[name].tolist() == [[False] + [True] * (WIDTH - 1)] + [[True] * WIDTH] * (HEIGHT - 1)
    assert sample["foreground"].all()
    assert (sample["right_disparity"][0, 0], sample["right_disparity"][0, 1]) == (0, 11)
    assert (sample["name"], sample["left_path"], sample["disparity_path"]) == ("it", files.left, files.disparity)


def test_a_pair_without_truth(tmp_path: Path) -> None:
    files = pair(tmp_path)
    sample = read_pair(PairFiles("it", files.left, files.right), KITTI)
    assert set(sample) == {"left", "right", "name", "left_path", "right_path", "disparity_path"}
    assert sample["disparity_path"] is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("right", r"left\.png is 5 x 8, .*right\.png is 4 x 8 \(height x width\)"),
        ("disparity", r"/disparity\.png is 4 x 8, .*left\.png is 5 x 8 \(height x width\); a map has the size"),
        ("right_disparity", r"right_disparity\.png is 4 x 8, .*left\.png is 5 x 8"),
        ("noc", r"noc\.png is 4 x 8, .*left\.png is 5 x 8"),
        ("objects", r"objects\.png is 4 x 8, .*left\.png is 5 x 8"),
    ],
)
def test_a_file_of_another_size_is_named(name: str, message: str, tmp_path: Path) -> None:
    files = pair(tmp_path)
    path = str(tmp_path / f"{name}.png")
    cv2.imwrite(path, np.asarray(cv2.imread(path, cv2.IMREAD_UNCHANGED))[:4])
    with pytest.raises(ValueError, match=message):
        read_pair(files, KITTI)


def test_a_truth_without_any_valid_pixel_is_named(tmp_path: Path) -> None:
    files = pair(tmp_path)
    cv2.imwrite(str(tmp_path / "disparity.png"), np.zeros((HEIGHT, WIDTH), np.uint16))
    with pytest.raises(ValueError, match=r"/disparity\.png has no valid pixel"):
        read_pair(files, KITTI)


@pytest.mark.parametrize("name", ["left", "right", "disparity", "right_disparity", "noc", "objects"])
def test_a_damaged_or_missing_file_is_named(name: str, tmp_path: Path) -> None:
    files = pair(tmp_path)
    path = tmp_path / f"{name}.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"/{name}\.png cannot be decoded"):
        read_pair(files, KITTI)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"/{name}\.png"):
        read_pair(files, KITTI)
