"""The part of a run's report that shows its last evaluation of disparities: figures, worst pairs, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visionattn.engine.report_pictures import picture_sections
from visionattn.engine.run_record import RunRecord
from visionattn.visualization.page import Html, element, section, table

_REGIONS = {"all": "all", "noc": "non-occluded", "fg": "foreground", "bg": "background"}
_POOLED = "-pixels"
_WORST = 8


def disparity_sections(record: RunRecord) -> list[Html]:
    """A section for each protocol, then the pictures; nothing for a run without disparities."""
    sections = [section(f"Disparity, protocol {one['protocol']}", *_protocol(one)) for one in record.disparity]
    return sections + (picture_sections(record, "left | truth | disparity | error") if sections else [])


def _protocol(evaluation: Mapping[str, Any]) -> list[Html]:
    figures = evaluation["figures"]
    names = list(dict.fromkeys(name.removesuffix(_POOLED) for some in figures.values() for name in some))
    names.sort(key=lambda name: (name != "EPE", name != "D1"))
    headings = ["pixels", "mean over", *("EPE, px" if name == "EPE" else f"{name}, %" for name in names)]
    rows: list[list[object]] = []
    for region, some in figures.items():
        pooled = any(name.endswith(_POOLED) for name in some)
        for unit, suffix in (("images", ""), ("pixels", _POOLED)) if pooled else (("as the protocol says", ""),):
            values = [_written(some.get(name + suffix), name) for name in names]
            rows.append([_REGIONS.get(region, region), unit, *values])
    notes = [f"Which pixels count: {evaluation['pixels']}.", f"{evaluation['images']:,} images were evaluated"]
    empty = evaluation.get("without_pixels") or []
    if empty:
        named = ", ".join(empty[:_WORST]) + (", ..." if len(empty) > _WORST else "")
        notes[1] += f"; in {len(empty)} of them no pixel counts: {named}"
    notes[1] += ". Figures under different protocols must not be compared."
    parts = [table(headings, rows, numeric=range(2, len(headings))), element("p", " ".join(notes), class_="note")]
    worst = [one for one in evaluation.get("evaluated") or [] if one.get("EPE") is not None]
    worst = sorted(worst, key=lambda one: -one["EPE"])[:_WORST]
    if len(worst) > 1:
        columns = [name for name in ("EPE", "D1", "bad-1", "bad-3") if name in worst[0]]
        listed = [[one["name"], *(_written(one[name], name) for name in columns)] for one in worst]
        shown = ["pair", *("EPE, px" if name == "EPE" else f"{name}, %" for name in columns)]
        parts += [element("h3", "The worst pairs"), table(shown, listed, numeric=range(1, len(shown)))]
    return parts


def _written(value: float | None, name: str) -> str:
    return "-" if value is None else f"{value:.3f}" if name == "EPE" else f"{value:.2f}"
