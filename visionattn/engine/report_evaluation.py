"""The part of a run's report that shows its last evaluation: classes, confusions, best and worst samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.engine.run_record import RunRecord
from visionattn.visualization.page import (
    Html,
    bar,
    card,
    element,
    embedded,
    joined,
    picture,
    section,
    swatch,
    table,
)
from visionattn.visualization.palette import complete_palette

_MOST_CELLS = 24  # classes of a matrix that a person reads cell by cell
_CONFUSIONS = 12


def class_section(record: RunRecord) -> list[Html]:
    """A row for each class with its scores in percent."""
    classes = record.classes.get("classes") or []
    if not classes:
        return []
    scores = [name for name in ("IoU", "accuracy", "precision", "Dice") if name in classes[0]]
    scores = scores or [name for name, value in classes[0].items() if isinstance(value, float)]
    pixels = max(1, sum(one.get("pixels", 0) for one in classes))
    headings = ["class", *(f"{name}, %" for name in scores), "pixels, %"]
    if scores:
        headings.insert(2, "")  # the bar of the first score
    colours = _colours(classes)
    rows: list[list[object]] = []
    for one, colour in zip(classes, colours, strict=True):
        row: list[object] = [joined((swatch(colour), one["name"]))]
        row += [_percent(one.get(name)) for name in scores]
        if scores:
            row.insert(2, bar((one.get(scores[0]) or 0) / 100, colour))
        row.append(f"{100 * one.get('pixels', 0) / pixels:.2f}")
        rows.append(row)
    numeric = [index for index, heading in enumerate(headings) if index and heading]
    note = f"The last evaluation, of {record.classes.get('images', 0):,} images."
    return [section("Classes", table(headings, rows, numeric=numeric), element("p", note, class_="note"))]


def confusion_section(record: RunRecord) -> list[Html]:
    """What is taken for what: the most frequent mistakes, and the matrix."""
    matrix, classes = record.confusion, record.classes.get("classes") or []
    if matrix is None or len(classes) != len(matrix):
        return []
    names = [str(one["name"]) for one in classes]
    return [section("Confusions", *confusions(matrix, names, _colours(classes), "pixel"))]


def confusions(matrix: NDArray[Any], names: Sequence[str], colours: NDArray[Any], unit: str) -> list[Html]:
    """The most frequent mistakes, and the matrix as a table, or as a picture where there are many classes.

    Args:
        matrix: [K, K] numbers of what is counted, rows the truth, columns the prediction.
        unit: what is counted, in the singular.
    """
    true = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, true, out=np.zeros(matrix.shape), where=true > 0)
    content = [_mistakes(matrix, shares, names, colours, unit)]
    if len(names) <= _MOST_CELLS:
        content += [element("h3", "Rows the truth, columns the prediction, % of the row"), _cells(shares, true, names)]
    else:
        content += [
            element("h3", f"All {len(names)} classes: rows the truth, columns the prediction, darker is more"),
            _heat_map(shares),
        ]
    return content


def _mistakes(
    matrix: NDArray[Any], shares: NDArray[Any], names: Sequence[str], colours: NDArray[Any], unit: str
) -> Html:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    total = max(1, int(matrix.sum()))
    rows = []
    for flat in np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]:
        row, column = divmod(int(flat), len(names))
        if not wrong[row, column]:
            break
        rows.append(
            [
                joined((swatch(colours[row]), names[row])),
                joined((swatch(colours[column]), names[column])),
                f"{100 * wrong[row, column] / total:.2f}",
                f"{100 * shares[row, column]:.1f}",
            ]
        )
    if not rows:
        return element("p", f"No {unit} is wrong.")
    return table(["truth", "taken for", f"of all {unit}s, %", "of the class, %"], rows, numeric=(2, 3))


def _cells(shares: NDArray[Any], true: NDArray[Any], names: Sequence[str]) -> Html:
    def cell(row: int, column: int) -> Html:
        share = float(shares[row, column])
        if not true[row, 0]:
            return element("td", "")
        percent = round(100 * share)
        colour = "var(--good)" if row == column else "var(--bad)"
        # Small mistakes are to be seen, hence the root.
        style = f"background:color-mix(in srgb,{colour} {85 * share**0.5:.0f}%,transparent)"
        if share > 0.45:
            style += ";color:var(--paper)"
        told = f"{names[row]} taken for {names[column]}: {100 * share:.2f} %"
        return element("td", percent if percent else ("" if share == 0 else "·"), style=style, title=told)

    head = element("tr", joined(element("th", name) for name in ("", *names)))
    body = (
        element("tr", joined((element("th", name), *(cell(row, column) for column in range(len(names))))))
        for row, name in enumerate(names)
    )
    inner = joined((element("thead", head), element("tbody", joined(body, "\n"))))
    return element("div", element("table", inner, class_="matrix"), class_="scroll")


def _heat_map(shares: NDArray[Any]) -> Html:
    """A picture of several pixels a class."""
    scale = max(2, 600 // len(shares))
    grey = np.round(255 * (1 - np.sqrt(shares))).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
    done, content = cv2.imencode(".png", grey)
    assert done
    return embedded(content.tobytes(), "image/png", "confusion matrix", grey.shape[1], grey.shape[0])


def example_sections(record: RunRecord) -> list[Html]:
    """The samples that came out worst and best, without one in both."""
    number = min(record.number, (len(record.examples) + 1) // 2)
    worst = record.examples[:number]
    best = record.examples[number:][-record.number :][::-1]
    parts = [("Worst images", worst, _spread(record)), ("Best images", best, Html())]
    return [section(title, note, _cards(some)) for title, some, note in parts if some]


def _spread(record: RunRecord) -> Html:
    """How the images' own scores are spread, in a sentence."""
    scores = [image["mIoU"] for image in record.images if image.get("mIoU") is not None]
    if len(scores) < 10:
        return Html()
    low, middle = np.percentile(scores, (10, 50))
    return element(
        "p",
        f"Of {len(scores):,} images, one in ten has an mIoU below {low:.1f}, half are above {middle:.1f}.",
        class_="note",
    )


def _cards(examples: Sequence[dict[str, Any]]) -> Html:
    cards = []
    for example in examples:
        name = Path(example["path"]).name
        caption = joined((element("b", name), f"{example['measure']} {example['score']:.2f}"), " · ")
        tiles = [(title, _tile(file, f"{title} of {name}")) for title, file in example["tiles"]]
        cards.append(card(tiles, caption))
    return element("div", joined(cards, "\n"), class_="cards wide")


def _tile(file: Path, alternative: str) -> Html:
    pixels = cv2.imread(str(file))
    if pixels is None:  # cut off in the middle
        return element("p", f"{file.name} cannot be read", class_="note")
    return picture(np.asarray(pixels[..., ::-1], np.uint8), alternative)


def _colours(classes: Sequence[dict[str, Any]]) -> NDArray[Any]:
    own = [one.get("color") for one in classes]
    return complete_palette(None if None in own else own, len(classes))  # type: ignore[arg-type]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
