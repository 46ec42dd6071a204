"""PLY files, read back by a reader that knows nothing of the writer."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from visionattn.data.ply import write_ply

FORMATS = {"float": "f", "float32": "f", "double": "d", "uchar": "B", "uint8": "B", "int": "i"}


def read_ply(path: Path) -> list[dict[str, float]]:
    """The vertices of a binary PLY file, by the format's description: header lines, then records one after another."""
    content = path.read_bytes()
    header, found, body = content.partition(b"end_header\n")
    assert found
    lines = header.decode("ascii").splitlines()
    assert lines[0] == "ply"
    assert lines[1].split() == ["format", "binary_little_endian", "1.0"]
    count, names, form = 0, [], "<"
    for line in lines[2:]:
        words = line.split()
        if words[0] == "element":
            assert words[1] == "vertex"
            count = int(words[2])
        elif words[0] == "property":
            form += FORMATS[words[1]]
            names.append(words[2])
    assert len(body) == count * struct.calcsize(form)
    return [dict(zip(names, record, strict=True)) for record in struct.iter_unpack(form, body)]


@pytest.mark.parametrize("number", [0, 1, 7])
def test_what_is_written_is_read(number: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(number)
    points = rng.normal(0, 100, (number, 3)).astype(np.float32)
    colours = rng.integers(0, 256, (number, 3), dtype=np.uint8)
    write_ply(tmp_path / "cloud.ply", points, colours)
    vertices = read_ply(tmp_path / "cloud.ply")
    assert len(vertices) == number
    for vertex, point, colour in zip(vertices, points, colours, strict=True):
        assert [vertex["x"], vertex["y"], vertex["z"]] == point.tolist()
        assert [vertex["red"], vertex["green"], vertex["blue"]] == colour.tolist()


def test_the_header_is_as_viewers_expect_it(tmp_path: Path) -> None:
    write_ply(tmp_path / "cloud.ply", np.zeros((2, 3)), np.zeros((2, 3), np.uint8))
    assert (tmp_path / "cloud.ply").read_bytes().partition(b"end_header\n")[0].decode() == (
        "ply\nformat binary_little_endian 1.0\nelement vertex 2\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    )


def test_what_is_no_cloud_is_refused(tmp_path: Path) -> None:
    colours = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"expected points \[N, 3\] and as many uint8 colours, got \[2, 2\]"):
        write_ply(tmp_path / "a.ply", np.zeros((2, 2)), colours)
    with pytest.raises(ValueError, match=r"got \[2, 3\] and float64 \[2, 3\]"):
        write_ply(tmp_path / "a.ply", np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="a point is not finite"):
        write_ply(tmp_path / "a.ply", np.array([[0, 0, np.inf], [0, 0, 1]]), colours)
    assert not (tmp_path / "a.ply").exists()
