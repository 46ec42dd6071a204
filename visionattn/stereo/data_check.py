"""Looks through stereo pairs before a training does: what is missing or broken, and what the truth holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from visionattn.data.findings import DataReport, Finding, Track, check_files, untracked
from visionattn.stereo.datasets import StereoPairs
from visionattn.stereo.inspection import BIN, BINS, Inspected, inspect_pairs
from visionattn.stereo.match_sign import matches_backwards
from visionattn.stereo.pair_check import looks_swapped
from visionattn.stereo.samples import PairFiles, read_pair

_USUAL_LIMIT = 192  # what the published protocols and most networks reach, pixels
_MATCHED = 16  # pairs of a data set that are looked at for swapped images
_MESSAGES = {
    "missing": ("is missing", "are missing", "fetch what is missing, or leave such pairs out by --skip-bad"),
    "undecodable": (
        "cannot be decoded",
        "cannot be decoded",
        "fetch these files again, or leave such pairs out by --skip-bad",
    ),
    "size": ("has images of two sizes", "have images of two sizes", "or leave such pairs out by --skip-bad"),
    "truth": (
        "has a truth that cannot be used",
        "have a truth that cannot be used",
        "or leave such pairs out by --skip-bad",
    ),
}


@dataclass
class _Seen:
    """Sums over the pairs that were looked at."""

    problems: dict[str, list[str]] = field(default_factory=dict)  # kind -> lines
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    pixels: int = 0  # of the pairs that have a truth
    largest: float = 0.0
    least_known: tuple[float, str] = (1.0, "")  # share, file
    wide: list[str] = field(default_factory=list)  # maps that point beyond the image

    def add(self, files: PairFiles, found: Inspected) -> None:
        if found.problem:
            self.problems.setdefault(found.kind, []).append(found.problem)
            return
        assert found.size is not None
        self.sizes[found.size] += 1
        if files.disparity is None:
            return
        height, width = found.size
        self.counts += found.counts
        self.pixels += height * width
        self.largest = max(self.largest, found.largest)
        self.least_known = min(self.least_known, (found.known / (height * width), files.disparity))
        if found.largest >= width:
            self.wide.append(f"{files.disparity}: {found.largest:.1f} pixels, the images are {width} wide")


@check_files.register
def _check_stereo(
    dataset: StereoPairs, *, decode: bool = False, limit: int | None = None, track: Track = untracked
) -> DataReport:
    """Files, sizes, truth and order of the views; see `check_files` for the arguments."""
    name = type(dataset).__name__
    try:
        found = dataset.find_pairs()
    except (OSError, ValueError) as error:
        kind = "missing" if isinstance(error, OSError) else "dataset"
        return DataReport(name, 0, 0, f"{name} could not be opened", [Finding("error", kind, str(error))])
    pairs = dataset.chosen(found.pairs)
    if not pairs and not found.missing:
        line = f"{name} has no pair in {dataset.data_root!r}"
        return DataReport(name, 0, 0, line, [Finding("error", "dataset", line, advice="look at data_root and split")])
    looked_at = _spread(pairs, limit)
    seen = _Seen()
    for file in found.missing:
        seen.problems.setdefault("missing", []).append(file)
    inspected = inspect_pairs(looked_at, dataset.truth, decode=decode)
    for files, one in zip(looked_at, track(inspected, len(looked_at)), strict=True):
        seen.add(files, one)
    findings = [
        *_problems(seen, "warning" if dataset.skip_bad else "error"),
        *_incomplete(found.sizes),
        *_repeated(pairs),
        *_range(seen),
        *_swapped(dataset, _spread(looked_at, _MATCHED)),
    ]
    how = "" if len(looked_at) == len(pairs) else ", evenly spaced"
    summary = f"checked the files and disparities of {len(looked_at)} of {len(pairs)} pairs{how}"
    inputs = [files.left for files in pairs]
    return DataReport(name, len(pairs), len(looked_at), summary, findings, inputs=inputs, measured=_measured(seen))


def _spread(pairs: Sequence[PairFiles], limit: int | None) -> Sequence[PairFiles]:
    if limit is None or len(pairs) <= limit:
        return pairs
    return [pairs[index] for index in np.linspace(0, len(pairs) - 1, limit).round().astype(int)]


def _problems(seen: _Seen, level: str) -> list[Finding]:
    findings = []
    for kind, (one, more, advice) in _MESSAGES.items():
        cases = tuple(dict.fromkeys(seen.problems.get(kind, ())))
        if cases:
            noun = "file" if kind in ("missing", "undecodable") else "pair"
            subject = f"1 {noun} {one}" if len(cases) == 1 else f"{len(cases):,} {noun}s {more}"
            left_out = "skip_bad leaves such pairs out" if level == "warning" else advice
            findings.append(Finding("error" if level == "error" else "warning", kind, subject, cases, left_out))
    return findings


def _incomplete(sizes: dict[str, tuple[int, int]]) -> list[Finding]:
    """A warning for each part that has not as many pairs as its makers' whole."""
    return [
        Finding(
            "warning",
            "count",
            f"{part} has {found:,} {'pair' if found == 1 else 'pairs'}, the whole of it {whole:,}",
            advice="figures are comparable with published ones on the whole only",
        )
        for part, (found, whole) in sizes.items()
        if found != whole
    ]


def _repeated(pairs: Sequence[PairFiles]) -> list[Finding]:
    times = Counter((files.left, files.right) for files in pairs)
    cases = tuple(f"{left} ({number} times)" for (left, _), number in times.items() if number > 1)
    if not cases:
        return []
    message = "1 pair is listed more than once" if len(cases) == 1 else f"{len(cases)} pairs are listed more than once"
    return [Finding("warning", "duplicate", message, cases, "take the repetitions off the list")]


def _range(seen: _Seen) -> list[Finding]:
    findings = []
    if seen.wide:
        maps = "1 disparity map points" if len(seen.wide) == 1 else f"{len(seen.wide):,} disparity maps point"
        advice = "is the number of steps per pixel right (png_scale), and the size that of the images?"
        findings.append(Finding("warning", "range", f"{maps} beyond the image", tuple(seen.wide), advice))
    known = int(seen.counts.sum())
    if known and seen.counts[: round(1 / BIN)].sum() == known:
        message = f"no disparity reaches 1 pixel, the largest is {seen.largest:.3f}"
        advice = "is the number of steps per pixel right (png_scale)?"
        findings.append(Finding("warning", "range", message, advice=advice))
    return findings


def _swapped(dataset: StereoPairs, pairs: Sequence[PairFiles]) -> list[Finding]:
    """A warning about pairs whose images match the other way round."""
    cases, read = [], 0
    for files in pairs:
        try:
            sample = read_pair(files, dataset.truth)
        except (OSError, ValueError):
            continue  # found already, or by --decode
        read += 1
        backwards = matches_backwards(sample)
        if "disparity" not in sample:
            backwards = looks_swapped(sample["left"], sample["right"])
        if backwards:
            cases.append(f"{files.left}, {files.right}")
    if not cases:
        return []
    message = f"{len(cases)} of {read} pairs looked at match{'es' if len(cases) == 1 else ''} the other way round"
    return [Finding("warning", "swapped", message, tuple(cases), "are the left and the right image swapped?")]


def _measured(seen: _Seen) -> dict[str, str]:
    """What a reader wants to know of the truth before choosing max_disparity and a protocol."""
    if not seen.sizes:
        return {}
    smallest, largest = min(seen.sizes), max(seen.sizes)
    size = _size(smallest) if len(seen.sizes) == 1 else f"{_size(smallest)} to {_size(largest)}"
    known = int(seen.counts.sum())
    if not known:
        return {"height x width": size, "pixels with a disparity": "no truth"}
    shares = np.cumsum(seen.counts) / known
    middle, most = ((int(np.searchsorted(shares, share)) + 0.5) * BIN for share in (0.5, 0.99))
    beyond = float(seen.counts[round(_USUAL_LIMIT / BIN) :].sum()) / known
    return {
        "height x width": size,
        "pixels with a disparity": f"{known / seen.pixels:.1%}, at least {seen.least_known[0]:.1%} of every pair",
        "median disparity": f"{middle:.1f}",
        "99 % lie below": f"{most:.1f}",
        "largest disparity": f"{seen.largest:.1f}",
        f"{_USUAL_LIMIT} and more": f"{beyond:.2%} of the pixels" if beyond else "none",
    }


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
