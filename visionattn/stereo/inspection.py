"""A look at the files of pairs before they are used: whether they can be read, and what the truth holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image

from visionattn.data.images import image_size, read_image
from visionattn.stereo.samples import PairFiles, check_views, read_maps
from visionattn.stereo.truth import TruthFormat

BIN = 0.25
"""Width of a count's bin, pixels."""
BINS = 4096  # the last one has all from 1,024 pixels on


@dataclass
class Inspected:
    """What a pair turned out to be.

    Attributes:
        kind: "missing", "undecodable", "size" or "truth", what is wrong; "" if the pair can be used.
        problem: one line about it that names the file.
        size: height and width of the images, None if they cannot be read.
        known: pixels whose disparity is known.
        largest: of the known disparities, pixels.
        counts: int64 [BINS], known pixels by disparity.
    """

    kind: str = ""
    problem: str = ""
    size: tuple[int, int] | None = None
    known: int = 0
    largest: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))


def inspect_pairs(pairs: Sequence[PairFiles], truth: TruthFormat, *, decode: bool) -> Iterator[Inspected]:
    """`inspect_pair` of each, in their order, several at a time."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            yield from pool.map(partial(inspect_pair, truth=truth, decode=decode), pairs)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def inspect_pair(files: PairFiles, truth: TruthFormat, *, decode: bool) -> Inspected:
    """What is known of the pair is read whole, its images with `decode`, or else only their headers."""
    found = Inspected()
    stage = "undecodable"
    try:
        left, right = (read_image(path).shape[:2] if decode else image_size(path) for path in (files.left, files.right))
        stage = "size"
        check_views(files, left, right)
        found.size = (left[0], left[1])
        stage = "truth"
        maps = read_maps(files, truth, found.size)
    except FileNotFoundError as error:
        found.kind, found.problem = "missing", _one_line(error)
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        line = _one_line(error)
        named = stage == "truth" or any(path in line for path in files.all_files())
        found.kind, found.problem = stage, line if named else f"{files.left}: {line}"
    else:
        if "disparity" in maps:
            known = maps["disparity"][maps["valid"]]
            found.known, found.largest = known.size, float(known.max())
            found.counts = np.bincount(np.minimum(known / BIN, BINS - 1).astype(np.int64), minlength=BINS)
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
