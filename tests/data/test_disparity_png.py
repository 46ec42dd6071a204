"""Disparity maps in PNG files, against values written by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from visionattn.data.disparity_png import read_disparity_png, read_sintel_disparity, write_disparity_png


def test_kittis_steps(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "d.png"), np.array([[0, 256, 65535], [1, 128, 2560]], np.uint16))
    disparity, valid = read_disparity_png(tmp_path / "d.png")
    assert disparity.dtype == np.float32
    np.testing.assert_array_equal(disparity, np.array([[0, 1, 255.99609375], [0.00390625, 0.5, 10]], np.float32))
    np.testing.assert_array_equal(valid, [[False, True, True], [True, True, True]])


def test_other_scales_and_depths(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "d.png"), np.array([[0, 10, 255]], np.uint8))
    np.testing.assert_array_equal(read_disparity_png(tmp_path / "d.png", 4, bits=8).disparity, [[0, 2.5, 63.75]])
    with pytest.raises(ValueError, match=r"d\.png: expected one channel of 16 bits, got 1 of 8 bits"):
        read_disparity_png(tmp_path / "d.png")
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="got 3 of 8 bits"):
        read_disparity_png(tmp_path / "c.png", bits=8)


def test_writing_rounds_to_steps_and_keeps_what_is_known(tmp_path: Path) -> None:
    disparity = np.array([[0.0, 1.003, 200.5], [np.inf, -1.0, 3.0]], np.float32)
    write_disparity_png(tmp_path / "d.png", disparity)
    steps = cv2.imread(str(tmp_path / "d.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(steps, [[1, 257, 51328], [0, 0, 768]])
    write_disparity_png(tmp_path / "d.png", disparity, np.array([[False, True, True], [False, False, True]]))
    np.testing.assert_array_equal(read_disparity_png(tmp_path / "d.png").valid, [[0, 1, 1], [0, 0, 1]])


def test_what_sixteen_bits_do_not_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"from 0 to 255\.996, got 1\.0 to 300\.0; write a PFM"):
        write_disparity_png(tmp_path / "d.png", np.array([[1.0, 300.0]]))
    for refused in (256.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"hold disparities from 0 to 255\.996"):
            write_disparity_png(tmp_path / "d.png", np.array([[1.0, refused]]), np.ones((1, 2), bool))
    with pytest.raises(ValueError, match="one shape"):
        write_disparity_png(tmp_path / "d.png", np.zeros((2, 2)), np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="one shape"):
        write_disparity_png(tmp_path / "d.png", np.zeros((2, 2, 3)))
    assert not (tmp_path / "d.png").exists()


def test_the_largest_step_and_a_map_of_which_nothing_is_known(tmp_path: Path) -> None:
    write_disparity_png(tmp_path / "d.png", np.array([[65535 / 256, np.inf]]))
    assert read_disparity_png(tmp_path / "d.png").disparity.tolist() == [[65535 / 256, 0]]
    write_disparity_png(tmp_path / "n.png", np.full((2, 3), np.inf))
    disparity, valid = read_disparity_png(tmp_path / "n.png")
    assert disparity.shape == (2, 3)
    assert not valid.any()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"d\.png cannot be written; does its folder exist"):
        write_disparity_png(tmp_path / "none" / "d.png", np.ones((1, 1)))


def test_sintels_three_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "d.png"), np.array([[[128, 32, 5], [0, 0, 0]]], np.uint8))  # blue, green, red
    disparity, valid = read_sintel_disparity(tmp_path / "d.png")
    assert disparity.tolist() == [[20.5078125, 0]]
    assert valid.all()
    write_disparity_png(tmp_path / "k.png", np.ones((1, 1)))
    with pytest.raises(ValueError, match="expected three channels of 8 bits, got 1 of 16 bits"):
        read_sintel_disparity(tmp_path / "k.png")
    cv2.imwrite(str(tmp_path / "g.png"), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="got 1 of 8 bits"):
        read_sintel_disparity(tmp_path / "g.png")
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((2, 2, 3), np.uint16))
    with pytest.raises(ValueError, match="got 3 of 16 bits"):
        read_sintel_disparity(tmp_path / "c.png")


def test_files_that_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no disparity map"):
        read_disparity_png(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_disparity_png(tmp_path / "text.png")
