"""Looks through images and their objects before a training does, and reports everything that is wrong at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from visionattn.data.findings import DataReport, Finding, Histogram, Track, check_files, untracked
from visionattn.detection.coco import CocoDetection
from visionattn.detection.coco_json import CocoJson, box_line, inside, lies_outside
from visionattn.detection.inspection import problems_of

_BEYOND = 2.0  # pixels that a box may reach over the border before anybody is told
_KINDS = {
    "category": ("names a category that the json does not have", "add the category, or correct the annotation"),
    "image": ("names an image that the json does not have", "add the image, or take the annotation out"),
    "box": ("has a bbox that is not [x, y, width, height]", "correct these annotations"),
    "duplicate": ("stands in the json twice", "give every image and annotation an id of its own"),
    "federated": ("names a category that the json does not have", "correct neg_ and not_exhaustive_category_ids"),
}
_FILES = {
    "missing": ("is missing", "put the images there, or take them out of the json; look at image_dir"),
    "undecodable": ("cannot be decoded", "fetch these images again, or take them out of the json"),
    "size": ("has another size than the json says", "its boxes belong to another version of the image"),
    "mask": ("has a mask that cannot be used", "correct these segmentations, or train without masks"),
}


@check_files.register
def _check_detection(
    dataset: CocoDetection, *, decode: bool = False, limit: int | None = None, track: Track = untracked
) -> DataReport:
    """Ids, boxes, masks and files of images with objects; classes without one. See `check_files` for the arguments."""
    name = type(dataset).__name__
    try:
        found = dataset.annotations()
    except (OSError, ValueError) as error:
        return _nothing(name, error)
    findings = _json_findings(found)
    if dataset.skip_bad:  # images with the others are left out
        findings = [finding for finding in findings if finding.level == "warning"]
    if dataset.skip_bad or not found.problems:  # else the data set refuses the file too
        try:
            dataset.full_init()
        except (OSError, ValueError) as error:
            report = _nothing(name, error)
            report.findings += findings
            return report
        findings += _left_out(dataset)
    else:
        return DataReport(name, len(found.images), 0, f"{found.path} does not explain all of its ids", findings)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    looked_at = infos
    if limit is not None and len(infos) > limit:
        looked_at = [infos[index] for index in np.linspace(0, len(infos) - 1, limit).round().astype(int)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            problems = list(track(pool.map(partial(problems_of, decode=decode), looked_at), len(looked_at)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    cases: dict[str, list[str]] = {}
    for kind, line in (problem for some in problems for problem in some):
        cases.setdefault(kind, []).append(line)
    findings += [_finding(kind, cases[kind], "image", *_FILES[kind]) for kind in _FILES if kind in cases]
    paths = [info["img_path"] for info in infos]
    repeated = [f"{path} ({times} times)" for path, times in Counter(paths).items() if times > 1]
    if repeated:
        message = f"{_number(repeated, 'file')} stand{'s' if len(repeated) == 1 else ''} in the json more than once"
        findings.append(Finding("warning", "duplicate", message, tuple(repeated), "one image has one entry"))
    histogram = _histogram(infos, tuple(map(str, dataset.metainfo["classes"])))
    findings += _absent_classes(histogram)
    summary = f"checked {sum(map(len, found.annotations.values())):,} objects and the files of {len(looked_at):,} of "
    summary += f"{len(infos):,} images"
    return DataReport(name, len(infos), len(looked_at), summary, findings, histogram, paths)


def _nothing(name: str, error: Exception) -> DataReport:
    kind = "missing" if isinstance(error, OSError) else "dataset"
    return DataReport(name, 0, 0, f"{name} has no sample", [Finding("error", kind, " ".join(str(error).split()))])


def _left_out(dataset: CocoDetection) -> list[Finding]:
    """What skip_bad has left out."""
    lines = tuple(dataset.skipped)
    if not lines:
        return []
    message = f"{dataset.left_out:,} image{' is' if dataset.left_out == 1 else 's are'} left out by skip_bad"
    return [Finding("warning", "skipped", message, lines, "correct them, or take them out of the json")]


def _json_findings(found: CocoJson) -> list[Finding]:
    """What is wrong in the annotation file by itself."""
    cases: dict[str, list[str]] = {}
    for kind, line in found.problems:
        cases.setdefault(kind, []).append(line)
    findings = [
        _finding(kind, lines, "list" if kind == "federated" else "annotation", *_KINDS[kind])
        for kind, lines in cases.items()
    ]
    if found.contradictions:
        message = _number(found.contradictions, "class")
        message += f" {'is' if len(found.contradictions) == 1 else 'are'} said not to be in an image that shows it"
        findings.append(
            Finding("warning", "federated", message, tuple(found.contradictions), "correct neg_category_ids")
        )
    flat: list[str] = []
    outside: list[str] = []
    beyond: list[str] = []
    for image_id, some in found.annotations.items():
        image = found.images[image_id]
        for one in some:
            x, y, width, height = one["bbox"]
            if lies_outside(one, image):
                outside.append(box_line(one, image))
            elif not inside(one, image):
                flat.append(box_line(one, image))
            elif max(-x, -y, x + width - image["width"], y + height - image["height"]) > _BEYOND:
                beyond.append(box_line(one, image))
    if outside:
        advice = "look whether the boxes are [x, y, width, height] in pixels of this image"
        findings.append(_finding("box", outside, "box", "lies outside its image", advice))
    if flat:
        message = _number(flat, "box") + f" {'has' if len(flat) == 1 else 'have'} no area and will be left out"
        findings.append(Finding("warning", "box", message, tuple(flat), "take them out of the json"))
    if beyond:
        message = _number(beyond, "box") + f" {'reaches' if len(beyond) == 1 else 'reach'} over the border"
        findings.append(Finding("warning", "box", message, tuple(beyond), "they will be cut off there"))
    return findings


def _finding(kind: str, cases: Sequence[str], noun: str, message: str, advice: str) -> Finding:
    verb, _, rest = message.partition(" ")
    plural = {"is": "are", "has": "have", "names": "name", "stands": "stand", "lies": "lie", "cannot": "cannot"}[verb]
    text = f"{_number(cases, noun)} {verb if len(cases) == 1 else plural} {rest}"
    return Finding("error", kind, text, tuple(cases), advice)


def _number(cases: Sequence[str], noun: str) -> str:
    many = {"box": "boxes", "class": "classes"}.get(noun, f"{noun}s")
    return f"{len(cases):,} {noun if len(cases) == 1 else many}"


def _histogram(infos: Sequence[dict[str, Any]], classes: tuple[str, ...]) -> Histogram:
    """Single objects of each class; crowds are ignored."""
    counts = np.zeros(len(classes), np.int64)
    for info in infos:
        counts += np.bincount(info["labels"][~info["crowd"]], minlength=len(classes))
    crowds = sum(int(info["crowd"].sum()) for info in infos)
    return Histogram(classes, tuple(counts.tolist()), crowds, "boxes")


def _absent_classes(histogram: Histogram) -> list[Finding]:
    absent = [name for name, count in zip(histogram.names, histogram.counts, strict=True) if not count]
    if not absent:
        return []
    if len(absent) == len(histogram.names):
        return [Finding("error", "class", "there is not a single object", advice="look at classes and the json")]
    what = f"class {absent[0]} has no object" if len(absent) == 1 else f"{len(absent)} classes have no object"
    advice = f"{'it' if len(absent) == 1 else 'they'} cannot be learned or scored"
    return [Finding("warning", "class", what, () if len(absent) == 1 else tuple(absent), advice)]
