"""The part of a run's report that shows its last evaluation of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionattn.engine.report_evaluation import confusions
from visionattn.engine.report_pictures import picture_sections
from visionattn.engine.run_record import RunRecord
from visionattn.visualization.curves import Line, line_chart
from visionattn.visualization.page import Html, bar, details, element, joined, section, swatch, table
from visionattn.visualization.palette import class_palette, complete_palette

KINDS = {"bbox": "boxes", "segm": "masks"}
OF_SECTION = tuple(f"{kind}_{name}" for kind in KINDS for name in ("APs", "APm", "APl", "APr", "APc", "APf", "AR"))
"""How the names of figures begin that stand in this section alone."""

_FIGURES = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"),
    *("AR1", "AR10", "AR100", "AR300", "ARs", "ARm", "ARl"),
)
OVERLAPS = {0: "0.5", 5: "0.75", 8: "0.9"}
"""Places of the overlaps that curves are drawn of."""

_RECALLS = np.linspace(0, 1, 101)
_MOST_LINES = 6
_MOST_ROWS = 100


def detection_curves(record: RunRecord) -> list[Html]:
    """AP, AP50 and AP75 over iterations, of boxes and of masks."""
    charts = []
    for kind, name in KINDS.items():
        lines = []
        for figure in ("AP", "AP50", "AP75"):
            points = [
                (line["step"], value)
                for line in record.evaluations
                for key, value in line.items()
                if key.rpartition("/")[2] == f"{kind}_{figure}" and value >= 0
            ]
            if points:
                lines.append(Line(figure, [x for x, _ in points], [y for _, y in points]))
        if lines:
            charts.append(line_chart(f"Validation, {name}", lines, "iteration", "AP"))
    return charts


def detection_sections(record: RunRecord) -> list[Html]:
    """Sections for boxes and for masks, the confusions, the pictures; nothing for a run without objects."""
    sections = []
    for kind, name in KINDS.items():
        evaluation = record.detection.get(kind)
        if evaluation is not None:
            content = _kind(evaluation, record.precision.get(kind), record.detection.get("images", 0))
            sections.append(section(name.capitalize(), *content))
    if not sections:
        return []
    return [*sections, *_confusions(record), *picture_sections(record, "truth | found")]


def _kind(evaluation: Mapping[str, Any], precision: NDArray[Any] | None, images: int) -> list[Html]:
    names = [name for name in _FIGURES if name in evaluation]
    figures = table(names, [[_written(evaluation[name]) for name in names]], numeric=range(len(names)))
    note = f"From 0 to 1, of {images:,} images; - where no object is of that size (s, m, l: area to 32², to 96², above)"
    note += ", or of so rare a class (r, c, f: in 1 to 10, to 100, in more training images)." if "APr" in names else "."
    content = [figures, element("p", note, class_="note")]
    classes = evaluation.get("classes") or []
    if precision is not None:
        content.append(element("div", joined(_precision_charts(precision, classes), "\n"), class_="charts"))
    if classes:
        content.append(_class_table(classes))
    return content


def _precision_charts(precision: NDArray[Any], classes: Sequence[Mapping[str, Any]]) -> list[Html]:
    """Precision over recall: the classes' mean at three overlaps, and single classes at 0.5."""
    there = classes_with_objects(precision)
    if not there:
        return []
    known = precision[:, :, there]
    lines = [Line(f"overlap {name}", list(_RECALLS), list(known[index].mean(1))) for index, name in OVERLAPS.items()]
    charts = [line_chart("Precision, mean of the classes", lines, "recall", "precision")]
    if len(there) > 1 and len(classes) == precision.shape[2]:
        shown, title = there, "Precision at overlap 0.5"
        if len(there) > _MOST_LINES:
            by_area = sorted(there, key=lambda index: float(precision[0, :, index].mean()))
            shown = by_area[: _MOST_LINES // 2] + by_area[-_MOST_LINES // 2 :]
            title += ", worst and best"
        lines = [Line(str(classes[index]["name"]), list(_RECALLS), list(precision[0, :, index])) for index in shown]
        charts.append(line_chart(title, lines, "recall", "precision"))
    return charts


def classes_with_objects(precision: NDArray[Any]) -> list[int]:
    """Positions of the classes, of [10 overlaps, 101 recalls, classes], that have any."""
    return [index for index in range(precision.shape[2]) if (precision[:, :, index] > -1).all()]


def _class_table(classes: Sequence[Mapping[str, Any]]) -> Html:
    """A row for each class that has objects."""
    colours = complete_palette(None, len(classes))
    recall = next((name for name in classes[0] if name.startswith("AR")), "AR100")  # LVIS counts 300 of an image
    rows: list[list[object]] = []
    for one, colour in zip(classes, colours, strict=True):
        if one.get("objects"):
            name = joined((swatch(colour), one["name"]))
            scores = [_written(one.get(score)) for score in ("AP", "AP50", recall)]
            rows.append([name, scores[0], bar(one.get("AP") or 0, colour), *scores[1:], f"{one['objects']:,}"])
    shown = table(["class", "AP", "", "AP50", recall, "objects"], rows, numeric=(1, 3, 4, 5))
    if len(rows) > _MOST_ROWS:
        shown = details(f"all {len(rows):,} classes", shown)
    without = [str(one["name"]) for one in classes if not one.get("objects")]
    if not without:
        return shown
    named = ", ".join(without[:8]) + (", ..." if len(without) > 8 else "")
    return joined((shown, element("p", f"Without an object here: {named} ({len(without):,}).", class_="note")))


def _confusions(record: RunRecord) -> list[Html]:
    matrix, names = record.object_confusion, confused_names(record)
    if matrix is None or len(names) != len(matrix):
        return []
    colours = np.array([*class_palette(len(names) - 1), (128, 128, 128)], np.uint8)
    told = "Boxes with a score of 0.3 or more, at an overlap of 0.5. An object taken for nothing was missed; nothing "
    note = element("p", told + "taken for a class is a box where there is no object, or a second one on it.")
    return [section("Confusions", note, *confusions(matrix, names, colours, "object"))]


def confused_names(record: RunRecord) -> list[str]:
    """Of the rows and columns of the boxes' confusion."""
    evaluated = [record.detection[kind] for kind in KINDS if kind in record.detection]
    classes = evaluated[0].get("classes") or [] if evaluated else []
    return [*(str(one["name"]) for one in classes), "nothing"]


def _written(value: float | None) -> str:
    return "-" if value is None or value < 0 else f"{value:.3f}"
