"""COCO's figures of a detector, over all processes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather, broadcast, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from visionattn.data.dealing import all_lists
from visionattn.detection.coco_report import class_table, figures_line, replace_file
from visionattn.detection.coco_results import category_ids, result_rows, run_lengths
from visionattn.detection.coco_scores import FIGURES, CocoScores, IoUType, Tool, coco_scores
from visionattn.detection.confusion import confusion_counts
from visionattn.detection.truth_masks import with_run_lengths
from visionattn.registry import METRICS


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """COCO's AP and AR of boxes and masks, 0 to 1, and a table of the classes; -1 where the truth has no such object.

    "coco/bbox_AP", "coco/bbox_AP50", ..., "coco/segm_ARl": the twelve of `FIGURES` for each kind. An image counts once,
    however many processes saw it. Nothing found at all is 0, with a warning. A truth without annotations (COCO's test
    sets) gives no figures, only the files of results.

    Files in `out`, written anew by each evaluation:

        detections_bbox_results.json   as COCO's server takes it: [{"image_id", "category_id", "bbox": [left, top,
                                       width, height], "score"}, ...]
        detections_segm_results.json   the same with "segmentation": {"size", "counts"} (RLE) and no "bbox"
        coco.json                      {"images": number, "bbox": {"AP", ..., "classes": [{"name", "AP", "AP50",
                                       "AR100": 0 to 1 or null, "objects": number}, ...]}, "segm": ...}
        precision_bbox.npy             [10 overlaps, 101 recalls, classes] float64; -1 for classes without objects
        confusion_boxes.npy            int64 [classes + 1, classes + 1], see `confusion_counts`

    Args:
        ann_file: COCO's json with the truth; None takes the data set's metainfo: "ann_file", or "coco", such a dict.
        iou_types: "bbox", "segm" or both.
        class_agnostic: an object counts as found whatever its class is said to be.
        tool: "faster_coco_eval", or "pycocotools", the reference, several times slower.
        out: folder for the files; None writes none, except in a run of visionattn's Runner: work_dir/evaluation.
        prefix: goes before the names.
    Attributes:
        scores: the last evaluation's, by kind; empty before, and in other processes than the first.
    Raises:
        ValueError: an iou_type that COCO does not have.
    """

    scores: dict[IoUType, CocoScores]
    figure_names: tuple[str, ...] = FIGURES

    def __init__(
        self,
        ann_file: str | Path | None = None,
        *,
        iou_types: Sequence[IoUType] = ("bbox",),
        class_agnostic: bool = False,
        tool: Tool = "faster_coco_eval",
        out: str | Path | None = None,
        prefix: str = "coco",
    ) -> None:
        super().__init__(prefix=prefix)
        for kind in iou_types:
            if kind not in ("bbox", "segm"):
                raise ValueError(f"iou_types={tuple(iou_types)}: {kind!r} must be 'bbox' or 'segm'")
        self.ann_file = ann_file
        self.iou_types: tuple[IoUType, ...] = tuple(iou_types)
        self.class_agnostic = class_agnostic
        self.tool: Tool = tool
        self.out = out  # a Runner puts its own folder where there is None
        self.scores = {}
        self._known: tuple[Any, Mapping[str, Any]] | None = None
        self.printed = tuple(f"{kind}_{name}" for kind in self.iou_types for name in self.figure_names[2:])

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keeps each image's results, masks as RLE.

        Args:
            data_samples: dicts of `DetectionSample`'s fields, with `predicted` and `image_id`.
        Raises:
            KeyError: no image_id.
            ValueError: masks are evaluated and the model has none.
        """
        for sample in data_samples:
            found = sample["predicted"]
            boxes, scores = _numbers(found["boxes"]), _numbers(found["scores"])
            boxes[:, 2:] -= boxes[:, :2]
            kept: dict[str, Any] = {"image_id": int(sample["image_id"]), "labels": found["labels"].tolist()}
            kept |= {"bbox": boxes.tolist(), "score": scores.tolist()}
            if "segm" in self.iou_types:
                if "masks" not in found:
                    raise ValueError('iou_types has "segm", and the model gives no masks; evaluate iou_types=("bbox",)')
                kept["segm"] = run_lengths(found["masks"])
            self.results.append(kept)

    def evaluate(self, size: int) -> dict[str, float]:
        """The figures over all processes, and a fresh start.

        Args:
            size: images in the data set.
        Raises:
            ValueError: not every image was seen; classes that the truth does not have.
        """
        lists = all_lists(self.results, all_gather)
        self.results.clear()
        by_image = {result["image_id"]: result for some in lists for result in some}  # samplers repeat the last ones
        if len(by_image) != size:
            raise ValueError(
                f"{len(by_image)} images were evaluated of a data set of {size}; evaluate each once, by its own "
                'image_id: sampler=dict(type="DefaultSampler", shuffle=False)'
            )
        names = [f"{kind}_{name}" for kind in self.iou_types for name in self.figure_names]
        values = torch.full((len(names),), float("nan"), dtype=torch.float64)
        if is_main_process():
            figures = self.compute_metrics([by_image[image_id] for image_id in sorted(by_image)])
            values = torch.tensor([figures.get(name, float("nan")) for name in names], dtype=torch.float64)
        broadcast(values)
        known = {name: value for name, value in zip(names, values.tolist(), strict=True) if not isnan(value)}
        return {f"{self.prefix}/{name}" if self.prefix else name: value for name, value in known.items()}

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The figures of all images' results; in the first process alone. mmengine's name."""
        truth = self._truth()
        categories = category_ids(self.dataset_meta or {}, truth)
        names = {kind["id"]: str(kind["name"]) for kind in truth["categories"]}
        rows = {kind: result_rows(results, kind, categories) for kind in self.iou_types}
        self.scores = {}
        if "annotations" in truth:
            for kind in (kind for kind, some in rows.items() if not some):
                nothing = f"nothing was found in {len(results):,} images: every {kind} figure is 0"
                print_log(nothing, logger="current", level=logging.WARNING)
            image_ids = [result["image_id"] for result in results]
            self.scores = {kind: self._scored(truth, some, kind, image_ids, categories) for kind, some in rows.items()}
        else:
            print_log("the truth has no annotations: results are written, and no figure", logger="current")
        for kind, scores in self.scores.items():
            if scores.classes:
                print_log(f"{kind} by class\n{class_table(scores, names)}", logger="current")
            print_log(figures_line(kind, scores), logger="current")
        if self.out is not None:
            self._write(Path(self.out), rows, len(results), names)
            confusions = self._confusions(truth, results, categories) if self.scores else None
            if confusions is not None:
                np.save(Path(self.out) / "confusion_boxes.npy", confusions)
        by_kind = self.scores.items()
        return {f"{kind}_{name}": value for kind, scores in by_kind for name, value in scores.figures.items()}

    def _scored(
        self,
        truth: Mapping[str, Any],
        rows: list[dict[str, Any]],
        kind: IoUType,
        image_ids: list[int],
        categories: list[int],
    ) -> CocoScores:
        return coco_scores(
            truth,
            rows,
            kind,
            image_ids=image_ids,
            category_ids=categories,
            class_agnostic=self.class_agnostic,
            tool=self.tool,
        )

    def _confusions(
        self, truth: Mapping[str, Any], results: list[dict[str, Any]], categories: list[int]
    ) -> np.ndarray | None:
        return confusion_counts(truth, results, categories)

    def _truth(self) -> Mapping[str, Any]:
        """The truth, masks as run lengths where they are evaluated; read and drawn once for the same file or dict."""
        meta = self.dataset_meta or {}
        path = self.ann_file or meta.get("ann_file")
        if path is None and "coco" not in meta:
            raise ValueError("CocoMetric has no truth: give it ann_file, COCO's json of the images it evaluates")
        source: Any = meta["coco"] if path is None else _edition(Path(path))
        known = self._known
        if known is None or not (known[0] is source or (path is not None and known[0] == source)):
            truth = source if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
            masks = "segm" in self.iou_types and "annotations" in truth
            known = self._known = (source, with_run_lengths(truth) if masks else truth)
        return known[1]

    def _write(
        self, out: Path, rows: Mapping[IoUType, list[dict[str, Any]]], images: int, names: Mapping[int, str]
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        report: dict[str, Any] = {"images": images}
        for kind, some in rows.items():
            replace_file(out / f"detections_{kind}_results.json", json.dumps(some))
        for kind, scores in self.scores.items():
            by_class = [
                {"name": names[number]} | {name: None if isnan(value) else value for name, value in values.items()}
                for number, values in scores.classes.items()
            ]
            report[kind] = {**scores.figures, "classes": by_class}
            np.save(out / f"precision_{kind}.npy", scores.precision)
        replace_file(out / "coco.json", json.dumps(report, indent=1, ensure_ascii=False))


def _numbers(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy().astype(np.float64)


def _edition(path: Path) -> tuple[str, int, int, int]:
    """What changes when a file is written anew."""
    state = path.stat()
    return str(path), state.st_ino, state.st_size, state.st_mtime_ns
