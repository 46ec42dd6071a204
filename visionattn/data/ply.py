"""PLY: point clouds with colours, as every viewer reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_AXES, _CHANNELS = ("x", "y", "z"), ("red", "green", "blue")
_VERTEX = np.dtype([*((name, "<f4") for name in _AXES), *((name, "u1") for name in _CHANNELS)])


def write_ply(path: str | Path, points: np.ndarray, colours: np.ndarray) -> None:
    """Writes a binary little-endian PLY: x, y, z (float) and red, green, blue (uchar) of every vertex.

    Args:
        path: the file.
        points: [N, 3], x, y, z.
        colours: uint8 [N, 3], R, G, B.
    Raises:
        ValueError: other shapes, or a point that is not finite.
    """
    if points.ndim != 2 or points.shape[1] != 3 or colours.shape != points.shape or colours.dtype != np.uint8:
        raise ValueError(
            f"expected points [N, 3] and as many uint8 colours, got {list(points.shape)} and {colours.dtype} "
            f"{list(colours.shape)}"
        )
    if not np.isfinite(points).all():
        raise ValueError("a point is not finite; leave out the pixels without depth")
    vertices = np.empty(len(points), _VERTEX)
    for names, values in ((_AXES, points), (_CHANNELS, colours)):
        for column, name in enumerate(names):
            vertices[name] = values[:, column]
    properties = [*(f"property float {name}" for name in _AXES), *(f"property uchar {name}" for name in _CHANNELS)]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header"]
    with Path(path).open("wb") as file:
        file.write("".join(f"{line}\n" for line in lines).encode("ascii"))
        file.write(vertices.tobytes())
