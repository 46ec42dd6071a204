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
    disparity = np.array([[0.0, 1.001, 200.5], [np.inf, -1.0, 3.0]], np.float32)
    write_disparity_png(tmp_path / "d.png", disparity)
    steps = cv2.imread(str(tmp_path / "d.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(steps, [[1, 256, 51328], [0, 0, 768]])
    write_disparity_png(tmp_path / "d.png", disparity, np.array([[False, True, True], [False, False, True]]))
    np.testing.assert_array_equal(read_disparity_png(tmp_path / "d.png").valid, [[0, 1, 1], [0, 0, 1]])


def test_what_sixteen_bits_do_not_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"from 0 to 255\.996, got 1\.0 to 300\.0; write a PFM"):
        write_disparity_png(tmp_path / "d.png", np.array([[1.0, 300.0]]))
    with pytest.raises(ValueError, match="one shape"):
        write_disparity_png(tmp_path / "d.png", np.zeros((2, 2)), np.ones((2, 3), bool))
    assert not (tmp_path / "d.png").exists()


def test_sintels_three_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "d.png"), np.array([[[128, 32, 5]]], np.uint8))  # blue, green, red
    assert read_sintel_disparity(tmp_path / "d.png").disparity[0, 0] == 20.5078125
    write_disparity_png(tmp_path / "k.png", np.ones((1, 1)))
    with pytest.raises(ValueError, match="expected three channels of 8 bits, got 1 of 16 bits"):
        read_sintel_disparity(tmp_path / "k.png")


def test_files_that_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no disparity map"):
        read_disparity_png(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_disparity_png(tmp_path / "text.png")
