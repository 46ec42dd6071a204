"""What a work dir tells of the run in it: nothing in it is executed, and any part may be missing."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionattn.engine.checkpoint import saved_checkpoints

_SHOWN_PACKAGES = (
    "visionattn", "torch", "torchvision", "onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "timm",
    "albumentations", "opencv-python", "numpy",
)  # fmt: skip
_NOT_METRICS = {"step", "iter", "epoch", "time", "data_time", "memory"}


@dataclass
class RunRecord:
    """A run as its files have it.

    Attributes:
        facts: of run.json: config, iterations, device, environment, when it began and ended, the seconds of all
            its runs whose end is known and how many others there are ("unended"); {} if there is none.
        train: a dict for each logged training step, ascending in "step".
        evaluations: a dict of metrics for each evaluation, ascending in "step".
        config: the last config's text; "" if there is none.
        classes: of evaluation/classes.json; {} if there is none.
        confusion: [K, K] pixels, rows the truth; None if there is none.
        images: of evaluation/images.json, a dict of scores an image.
        disparity: of evaluation/disparity_*.json, one for each protocol.
        detection: of evaluation/coco.json; {} if there is none.
        precision: by "bbox" and "segm", [10 overlaps, 101 recalls, classes].
        object_confusion: [K + 1, K + 1] boxes, rows the truth, the last row and column nothing; None if there is none.
        pictures: of the folder pictures.
        examples: (what, score, tiles) of evaluated samples, worst first; a tile is its title and file.
        number: how many of the best and worst examples a reader should see.
        checkpoints: names with their sizes in bytes.
    """

    facts: dict[str, Any]
    train: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    config: str = ""
    classes: dict[str, Any] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None
    images: list[dict[str, Any]] = field(default_factory=list)
    disparity: list[dict[str, Any]] = field(default_factory=list)
    detection: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    object_confusion: NDArray[np.int64] | None = None
    pictures: list[Path] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    number: int = 4
    checkpoints: list[tuple[str, int]] = field(default_factory=list)


def read_run(work_dir: str | Path) -> RunRecord:
    """What lies in the work dir.

    Raises:
        FileNotFoundError: there is no such folder, or no run has logged anything in it.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise FileNotFoundError(f"no folder {work_dir}; give a training's work dir")
    logs = sorted(path.parent.parent for path in work_dir.glob("*/vis_data/scalars.json"))
    evaluation = work_dir / "evaluation"
    if not logs and not evaluation.is_dir():
        raise FileNotFoundError(f"{work_dir} has no */vis_data/scalars.json and no evaluation: no run wrote here")
    record = RunRecord(_facts(logs))
    for log in logs:
        _add_scalars(record, log / "vis_data" / "scalars.json")
    configs = [path for log in reversed(logs) if (path := log / "vis_data" / "config.py").is_file()]
    record.config = configs[0].read_text(encoding="utf-8") if configs else ""
    record.classes = _json(evaluation / "classes.json", {})
    record.images = _json(evaluation / "images.json", [])
    found = (_json(path, {}) for path in sorted(evaluation.glob("disparity_*.json")))
    record.disparity = [content for content in found if "figures" in content]
    record.pictures = sorted((work_dir / "pictures").glob("*.png"))
    record.confusion = _array(evaluation / "confusion_matrix.npy")
    record.detection = _json(evaluation / "coco.json", {})
    arrays = ((kind, _array(evaluation / f"precision_{kind}.npy")) for kind in ("bbox", "segm"))
    record.precision = {kind: array for kind, array in arrays if array is not None}
    record.object_confusion = _array(evaluation / "confusion_boxes.npy")
    _add_examples(record, evaluation / "examples")
    record.checkpoints = [(path.name, _size(path)) for path in saved_checkpoints(work_dir)]
    return record


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def environment() -> dict[str, str]:
    """Versions and machine, as a report shows them."""
    import torch

    shown = {"python": platform.python_version()}
    for name in _SHOWN_PACKAGES:
        try:
            shown[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    shown["system"] = platform.platform(terse=True)
    shown["processors"] = str(os.cpu_count())
    if torch.cuda.is_available():
        shown["accelerator"] = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        shown["CUDA"] = str(torch.version.cuda)
    return shown


def _facts(logs: list[Path]) -> dict[str, Any]:
    """Those of the last run; begun when the first was, and the seconds of all whose end is known."""
    facts = [found for log in logs if (found := _json(log / "run.json", {}))]
    anew = [number for number, found in enumerate(facts) if found.get("begun_at") == 0]
    facts = facts[anew[-1] if anew else 0 :]
    if not facts:
        return {}
    ended = [found for found in facts if found.get("begun") and found.get("ended")]
    seconds = sum(found["ended"] - found["begun"] for found in ended)
    return {**facts[-1], "begun": facts[0].get("begun"), "seconds": seconds, "unended": len(facts) - len(ended)}


def _add_scalars(record: RunRecord, path: Path) -> None:
    """Adds a run's log; what an earlier run logged from its first step on is what this one did over again."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # cut off in the middle, by a kill
            continue
    lines = [line for line in lines if isinstance(line, Mapping) and isinstance(line.get("step"), int | float)]
    train = [dict(line) for line in lines if "lr" in line or any("loss" in name for name in line)]
    evaluations = [dict(line) for line in lines if not ("lr" in line or any("loss" in name for name in line))]
    evaluations = [line for line in evaluations if metrics_of(line)]
    if not lines:
        return
    first = min(line["step"] for line in lines)
    record.train = [line for line in record.train if line["step"] < first] + train
    record.evaluations = [line for line in record.evaluations if line["step"] < first] + evaluations


def metrics_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an evaluation's line, without counters and times."""
    return {name: float(value) for name, value in line.items() if name not in _NOT_METRICS and _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _add_examples(record: RunRecord, folder: Path) -> None:
    """Puts together what each process has kept."""
    first = _json(folder / "0.json", {})
    examples: dict[str, dict[str, Any]] = {}
    for rank in range(int(first.get("processes", 0))):
        for example in _json(folder / f"{rank}.json", {}).get("examples", []):
            tiles = [(tile["title"], folder / tile["file"]) for tile in example["tiles"]]
            if all(file.is_file() for _, file in tiles):
                examples[example["path"]] = {**example, "tiles": tiles}
    record.examples = sorted(examples.values(), key=lambda example: example["score"])
    record.number = int(first.get("number", record.number))


def _json(path: Path, missing: Any) -> Any:
    """The file's content; `missing` if there is none, or it was cut off in the middle."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return missing


def _array(path: Path) -> NDArray[Any] | None:
    """The file's content; None if there is none."""
    return np.load(path, allow_pickle=False) if path.is_file() else None
