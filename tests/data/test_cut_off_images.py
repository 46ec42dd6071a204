"""A JPEG that ends too early is named instead of being filled up in grey."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from visionattn.data.images import read_image


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8), (9, 9), 3)
    assert cv2.imwrite(str(tmp_path / "image.jpg"), pixels)
    return tmp_path / "image.jpg"


@pytest.mark.parametrize("part", [0.7, 0.9, 0.99])
def test_a_jpeg_that_ends_too_early_is_named(part: float, jpeg: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = jpeg.read_bytes()
    jpeg.write_bytes(whole[: int(len(whole) * part)])
    assert cv2.imread(str(jpeg)) is not None  # OpenCV sees nothing wrong
    assert "remature end of JPEG" in capfd.readouterr().err  # and libjpeg tells the terminal
    with pytest.raises(ValueError, match=r"image\.jpg cannot be decoded as an image; replace the file"):
        read_image(jpeg)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("behind", [b"", b"\0\0", b"a film that the camera keeps here" * 1000])
def test_what_stands_behind_a_jpegs_end_does_no_harm(behind: bytes, jpeg: Path) -> None:
    before = read_image(jpeg)
    jpeg.write_bytes(jpeg.read_bytes() + behind)
    np.testing.assert_array_equal(read_image(jpeg), before)


def test_files_of_two_bytes_and_none_are_named(tmp_path: Path) -> None:
    for content in (b"", b"\xff", b"\xff\xd8"):
        (tmp_path / "short.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=r"short\.jpg cannot be decoded"):
            read_image(tmp_path / "short.jpg")
