"""PFM files, against bytes written by hand and OpenCV's reader."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionattn.data.pfm import read_pfm, write_pfm

ROWS = [[1.0, -2.5, 3.25], [4.0, float("inf"), 6.0]]  # the top row first


def file_of(path: Path, header: bytes, order: str = "<") -> Path:
    """The rows by hand: the lowest first."""
    path.write_bytes(header + b"".join(struct.pack(order + "3f", *row) for row in reversed(ROWS)))
    return path


@pytest.mark.parametrize(
    ("header", "order"),
    [
        (b"Pf\n3 2\n-1.0\n", "<"),
        (b"Pf\n3 2\n1.0\n", ">"),
        (b"Pf\n3 2\n-0.003922\n", "<"),  # Middlebury: the size of the scale is no factor
        (b"Pf\n3  2\n-1\n", "<"),
        (b"Pf 3\n2\n\n-1.000000 ", "<"),
        (b"Pf\r\n3 2\r\n-1.0\r\n", "<"),
    ],
)
def test_headers_of_every_kind(header: bytes, order: str, tmp_path: Path) -> None:
    read = read_pfm(file_of(tmp_path / "a.pfm", header, order))
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, np.array(ROWS, np.float32))


def test_values_that_look_like_white_space_are_values(tmp_path: Path) -> None:
    path = tmp_path / "a.pfm"
    path.write_bytes(b"Pf\n1 1\n-1\n" + b"\n \t\n")
    assert read_pfm(path)[0, 0] == struct.unpack("<f", b"\n \t\n")[0]


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3)])
def test_what_is_written_is_read_here_and_by_opencv(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write_pfm(tmp_path / "a.pfm", values)
    np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), values)
    by_opencv = cv2.imread(str(tmp_path / "a.pfm"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(by_opencv if values.ndim == 2 else by_opencv[..., ::-1], values)


def test_a_crop_is_that_part_of_the_map(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(9, 11)).astype(np.float32)
    write_pfm(tmp_path / "a.pfm", values)
    np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm", slice(2, 5), slice(3, 11)), values[2:5, 3:11])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6\n3 2\n255\n", "is no PFM: it begins with b'P6'"),
        (b"", "is no PFM"),
        (b"Pf\n3 x\n-1\n", "has no PFM header"),
        (b"Pf\n3 0\n-1\n", "has no PFM header"),
        (b"Pf\n-3 2\n-1\n", "has no PFM header"),
        (b"Pf\n3 2\nnan\n" + bytes(24), "has no PFM header"),
        (b"Pf\n3 2\n0\n" + bytes(24), "has no PFM header.*scale that is not 0"),
        (b"Pf\n3 2\n-1\n" + bytes(23), "is cut short.*24 bytes, 23 follow"),
        (b"Pf\n3 2\n-1\n" + bytes(28), "is too long"),
    ],
)
def test_damaged_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.pfm").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.pfm {message}"):
        read_pfm(tmp_path / "bad.pfm")


def test_shapes_that_no_pfm_holds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[H, W\] or \[H, W, 3\], got \[2, 3, 4\]"):
        write_pfm(tmp_path / "a.pfm", np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"got \[0, 3\]"):
        write_pfm(tmp_path / "a.pfm", np.zeros((0, 3)))
