"""Looks through images and masks before a training does, and reports everything that is wrong with them at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from mmseg.datasets import BaseSegDataset
from PIL import Image

from visionattn.data.findings import DataReport, Finding, Histogram, Track, check_files, untracked
from visionattn.data.images import image_size, read_image
from visionattn.segmentation.datasets import ImageMaskFolder
from visionattn.segmentation.labels import IGNORE, allowed_numbers, label_map_items, label_table, read_mask

_VALUES = 1 << 16


@dataclass
class _Pair:
    """What one image and its mask turned out to be; problems are (kind, line)."""

    problems: list[tuple[str, str]] = field(default_factory=list)
    values: dict[int, int] = field(default_factory=dict)  # number in the mask -> pixels
    refused: dict[int, tuple[int, int]] = field(default_factory=dict)  # number -> row and column of the first


_MESSAGES = {
    "missing": ("{} missing", "put the files there, or take the names off the list (ann_file)"),
    "undecodable": ("{} cannot be decoded", "fetch or export these files again, or take them off the list (ann_file)"),
    "size": ("{} of image and mask differ in size", "rescale the masks by the nearest pixel"),
}
_NOUNS = {"missing": "file", "undecodable": "file", "size": "pair"}


@check_files.register
def _check_segmentation(
    dataset: BaseSegDataset, *, decode: bool = False, limit: int | None = None, track: Track = untracked
) -> DataReport:
    """Files, sizes and labels of images with masks; classes that never occur. See `check_files` for the arguments."""
    name = type(dataset).__name__
    findings: list[Finding] = []
    try:
        dataset.full_init()
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    except (OSError, ValueError) as error:
        infos, problems = _complete_pairs(dataset, error)
        findings += problems
    if not infos:
        findings = findings or [Finding("error", "dataset", f"{name} has no sample", advice="look at data_root")]
        return DataReport(name, 0, 0, f"{name} has no sample", findings)
    pairs = [(info["img_path"], info["seg_map_path"]) for info in infos]
    looked_at = pairs
    if limit is not None and len(pairs) > limit:
        looked_at = [pairs[index] for index in np.linspace(0, len(pairs) - 1, limit).round().astype(int)]

    table = _table(dataset)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            found = list(track(pool.map(partial(_look_at, table=table, decode=decode), looked_at), len(looked_at)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    classes = tuple(map(str, dataset.metainfo["classes"]))
    findings += _repeated(pairs)
    findings += [*_file_findings(found), *_label_findings(found, looked_at, table)]
    histogram = _histogram(found, table, classes)
    if sum(histogram.counts) + histogram.ignored:
        all_read, holds_255 = len(looked_at) == len(pairs), any(IGNORE in pair.values for pair in found)
        findings += _absent_classes(histogram, all_read, holds_255)
    how = "" if len(looked_at) == len(pairs) else ", evenly spaced"
    summary = f"checked the labels and sizes of {len(looked_at)} of {len(pairs)} masks{how}"
    return DataReport(name, len(pairs), len(looked_at), summary, findings, histogram, [image for image, _ in pairs])


def _complete_pairs(dataset: BaseSegDataset, error: Exception) -> tuple[list[dict[str, Any]], list[Finding]]:
    """What there is of a data set whose list could not be made, and why it could not."""
    if isinstance(dataset, ImageMaskFolder):
        try:
            infos, unpaired = dataset.find_pairs()
        except (OSError, ValueError):  # the same one again
            infos, unpaired = [], {}
        if unpaired:
            return infos, [Finding("error", "missing", line, tuple(stems)) for line, stems in unpaired.items()]
    return [], [Finding("error", "missing" if isinstance(error, OSError) else "dataset", _one_line(error))]


def _table(dataset: BaseSegDataset) -> np.ndarray:
    if isinstance(dataset, ImageMaskFolder):
        return dataset.label_table()
    # mmseg's own: a label map of -1 leaves a class out, which its uint8 masks hold as 255.
    items = {number: IGNORE if label == -1 else label for number, label in (dataset.label_map or {}).items()}
    return label_table(len(dataset.metainfo["classes"]), dataset.reduce_zero_label, label_map_items(items))


def _look_at(files: tuple[str, str], table: np.ndarray, decode: bool) -> _Pair:
    image, mask_file = files
    pair = _Pair()
    size = _image_size(image, decode, pair)
    try:
        mask = read_mask(mask_file)
    except FileNotFoundError:
        pair.problems.append(("missing", f"mask {mask_file}"))
        return pair
    except (ValueError, Image.DecompressionBombError) as error:
        pair.problems.append(("undecodable", _one_line(error)))
        return pair
    if size is not None and size != mask.shape:
        size = _true_size(image, size)
        if size != mask.shape:
            line = f"{image} is {size[0]} x {size[1]}, {mask_file} {mask.shape[0]} x {mask.shape[1]} (height x width)"
            pair.problems.append(("size", line))
    numbers, counts = _count(mask)
    pair.values = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    for number in pair.values:
        if not 0 <= number < _VALUES or table[number] < 0:
            row, column = np.unravel_index((mask == number).argmax(), mask.shape)
            pair.refused[number] = (int(row), int(column))
    return pair


def _image_size(image: str, decode: bool, pair: _Pair) -> tuple[int, int] | None:
    """(height, width) as a training sees it; None, with the problem noted, if the image cannot be read."""
    try:
        if not decode:
            return image_size(image)
        with Image.open(image) as file:  # OpenCV returns the first half of a truncated JPEG, and grey below
            file.load()
        height, width = read_image(image).shape[:2]
        return height, width
    except FileNotFoundError:
        pair.problems.append(("missing", f"image {image}"))
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        line = _one_line(error)
        pair.problems.append(("undecodable", line if image in line else f"image {image} ({line})"))
    return None


def _true_size(image: str, by_header: tuple[int, int]) -> tuple[int, int]:
    """The size of the decoded image: EXIF of a PNG may turn it, which the header does not say."""
    try:
        height, width = read_image(image).shape[:2]
    except ValueError:
        return by_header
    return height, width


def _count(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if mask.dtype.kind == "u" and mask.dtype.itemsize <= 2:  # several times faster than sorting
        counts = np.bincount(mask.ravel())
        numbers = np.flatnonzero(counts)
        return numbers, counts[numbers]
    return np.unique(mask, return_counts=True)


def _repeated(pairs: Sequence[tuple[str, str]]) -> list[Finding]:
    cases = tuple(f"{image} ({times} times)" for (image, _), times in Counter(pairs).items() if times > 1)
    if not cases:
        return []
    message = f"{len(cases)} sample{' is' if len(cases) == 1 else 's are'} listed more than once"
    return [Finding("warning", "duplicate", message, cases, "take the repetitions off the list (ann_file)")]


def _file_findings(found: Sequence[_Pair]) -> list[Finding]:
    findings = []
    for kind, (message, advice) in _MESSAGES.items():
        cases = tuple(line for pair in found for problem, line in pair.problems if problem == kind)
        if cases:
            subject = f"{len(cases)} {_NOUNS[kind]}{'' if len(cases) == 1 else 's'}"
            message = message.replace("{} missing", "{} is missing" if len(cases) == 1 else "{} are missing")
            findings.append(Finding("error", kind, message.format(subject), cases, advice))
    return findings


def _label_findings(found: Sequence[_Pair], pairs: Sequence[tuple[str, str]], table: np.ndarray) -> list[Finding]:
    """One finding for each number that no class has."""
    cases: dict[int, list[str]] = {}
    pixels: dict[int, int] = {}
    for pair, (_, mask) in zip(found, pairs, strict=True):
        for number, (row, column) in pair.refused.items():
            count = pair.values[number]
            pixels[number] = pixels.get(number, 0) + count
            cases.setdefault(number, []).append(
                f"{mask}: row {row}, column {column}" + (f" and {count - 1:,} more pixels" if count > 1 else "")
            )
    findings = []
    for number in sorted(cases, key=lambda number: -pixels[number]):
        masks = f"{len(cases[number])} mask{'' if len(cases[number]) == 1 else 's'}"
        findings.append(
            Finding(
                "error",
                "label",
                f"{masks} hold{'s' if len(cases[number]) == 1 else ''} {number}, which is no class; "
                f"allowed are {allowed_numbers(table)}",
                tuple(cases[number]),
                "correct the masks, or name the class in the dataset's classes, or the number as its ignore_index",
            )
        )
    return findings


def _histogram(found: Sequence[_Pair], table: np.ndarray, classes: tuple[str, ...]) -> Histogram:
    counts = np.zeros(IGNORE + 1, np.int64)
    for pair in found:
        for number, pixels in pair.values.items():
            if number not in pair.refused:
                counts[table[number]] += pixels
    return Histogram(classes, tuple(counts[: len(classes)].tolist()), int(counts[IGNORE]))


def _absent_classes(histogram: Histogram, all_read: bool, holds_255: bool) -> list[Finding]:
    absent = [name for name, count in zip(histogram.names, histogram.counts, strict=True) if not count]
    if not absent:
        return []
    where = "" if all_read else " in the masks looked at"
    if len(absent) == len(histogram.names):
        advice = "look at ignore_index, reduce_zero_label and the label map"
        return [Finding("error", "class", f"every pixel{where} is ignored", advice=advice)]
    what = f"class {absent[0]} never occurs" if len(absent) == 1 else f"{len(absent)} classes never occur"
    cases = () if len(absent) == 1 else tuple(absent)
    advice = f"{'it' if len(absent) == 1 else 'they'} cannot be learned or scored"
    if holds_255:
        # The usual masks of 0 and 255, whose 255 was to be a class.
        advice += f"; {IGNORE} in a mask means ignored: if it is a class, say so by a label_map"
    return [Finding("warning", "class", f"{what}{where}", cases, advice)]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
