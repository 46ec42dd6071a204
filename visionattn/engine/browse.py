"""A page of a data set's samples as the network will see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope

from visionattn.data.findings import Histogram, check_files
from visionattn.data.randomness import seeded
from visionattn.engine.config import import_scope
from visionattn.engine.data_check import build_to_look_at, leaf_datasets
from visionattn.registry import DATASETS
from visionattn.visualization.page import (
    Html,
    bar,
    card,
    details,
    element,
    figures,
    joined,
    page,
    picture,
    section,
    table,
)
from visionattn.visualization.page import swatch as colour_swatch
from visionattn.visualization.palette import complete_palette
from visionattn.visualization.sample_view import Pixels, SampleView, sample_view

_MOST_ROWS = 200  # of classes, that are open
_MOST_RANGES = 20  # of a histogram of values
_MOST_FILES = 500  # of a data set, that the histogram of its files is counted on


def browse(config: Config, split: str = "train", number: int = 24, seed: int = 0) -> str:
    """The HTML page of `number` samples of a split, evenly spread, after their augmentation.

    Args:
        split: "train", "val" or "test".
        seed: of the augmentation's random numbers; the same page for the same seed.
    Raises:
        ValueError: the config has no such split, or number is not positive.
        TypeError: no task says how such samples look.
    """
    dataset_config = (config.get(f"{split}_dataloader") or {}).get("dataset")
    if dataset_config is None:
        raise ValueError(f"{config.filename} has no {split}_dataloader; give another --split")
    if number < 1:
        raise ValueError(f"number={number} of samples must be 1 or more")
    import_scope(config)
    with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmengine")):
        dataset = DATASETS.build(dataset_config)
        total, metainfo = len(dataset), dict(getattr(dataset, "metainfo", None) or {})
        views = []
        for index in np.unique(np.linspace(0, total - 1, min(number, total)).round().astype(int)).tolist():
            with seeded((seed, index)):
                sample = dataset[index]
            if not isinstance(sample, Mapping) or "inputs" not in sample:
                raise ValueError(
                    f"a sample of {type(dataset).__name__} holds no inputs: end its transforms with the one that packs "
                    "it (mmseg.PackSegInputs, visionattn.PackStereo, visionattn.PackDetection)"
                )
            image = _pictures(sample["inputs"], bgr=_is_bgr(config))
            view = sample_view(sample["data_samples"], image, metainfo)
            shape = (next(iter(image.values())) if isinstance(image, dict) else image).shape
            views.append((index, _name(sample["data_samples"], index), shape, view))
        histogram = _files_histogram(dataset_config)
    names = list(map(str, metainfo.get("classes") or ()))
    colours = complete_palette(metainfo.get("palette"), len(names)) if names else np.zeros((0, 3), np.uint8)
    numbers = [("split", split), ("samples", f"{total:,}"), ("shown", f"{len(views)}")]
    if names:
        numbers.append(("classes", f"{len(names)}"))
    shown = [view for *_, view in views]
    return page(
        f"What the network sees: {Path(config.filename or 'config').stem}",
        f"{split} samples after loading and augmentation, before the model's preprocessor normalises them; seed {seed}",
        [
            figures(numbers),
            *_legend(names, colours, shown, histogram),
            *_values(shown),
            section("Samples", _pipeline(dataset_config), _cards(views)),
        ],
    )


def _pictures(inputs: Any, bgr: bool) -> Pixels | dict[str, Pixels]:
    """The network's input as a picture, or as several by name."""
    if isinstance(inputs, Mapping):
        return {name: _pixels(part, bgr) for name, part in inputs.items()}
    return _pixels(inputs, bgr)


def _pixels(inputs: Any, bgr: bool) -> Pixels:
    """[H, W, 3] RGB, 8 bit, of the pipeline's [3, H, W]."""
    image = np.ascontiguousarray(np.asarray(inputs).transpose(1, 2, 0))
    if image.dtype != np.uint8:  # normalised by the pipeline: shown from its darkest to its brightest
        low, high = float(image.min()), float(image.max())
        image = np.round(255 * (image - low) / max(high - low, 1e-12)).astype(np.uint8)
    return np.ascontiguousarray(image[..., ::-1]) if bgr else image


def _is_bgr(config: Config) -> bool:
    model = config.get("model") or {}
    preprocessor = model.get("data_preprocessor") or config.get("data_preprocessor") or {}
    return bool(preprocessor.get("bgr_to_rgb"))


def _name(data_sample: Any, index: int) -> str:
    name = getattr(data_sample, "name", None)
    file = getattr(data_sample, "img_path", None) or getattr(data_sample, "file", None)
    return str(name or Path(file or f"image {index}").name)


def _files_histogram(dataset_config: Mapping[str, Any]) -> Histogram | None:
    """Of the files themselves, before augmentation; None where there are several data sets, or no classes."""
    leaves = list(leaf_datasets(dataset_config))
    return check_files(build_to_look_at(leaves[0]), limit=_MOST_FILES).histogram if len(leaves) == 1 else None


def _legend(names: Sequence[str], colours: Any, views: Sequence[SampleView], histogram: Histogram | None) -> list[Html]:
    """The classes with their colours and how often they occur; nothing for a task without classes."""
    counts: Counter[str] = Counter()
    for view in views:
        counts.update(view.counts)
    if not names or not any(view.counts for view in views):
        return []
    of_shown = [counts[name] for name in names]
    of_files = (
        [dict(zip(histogram.names, histogram.counts, strict=True)).get(name, 0) for name in names]
        if (histogram)
        else None
    )
    unit = views[0].unit
    largest = max([*_shares(of_shown), *(_shares(of_files) if of_files else ())])
    headings = ["class", "shown, %", ""]
    rows: list[list[object]] = []
    for index, name in enumerate(names):
        share = _shares(of_shown)[index]
        row: list[object] = [
            joined((colour_swatch(colours[index]), name)),
            _percent(share),
            bar(share / largest, colours[index]),
        ]
        if of_files is not None:
            share = _shares(of_files)[index]
            row += [_percent(share), bar(share / largest, colours[index])]
        rows.append(row)
    if of_files is not None:
        headings += ["files, %", ""]
    ignored = sum(view.ignored for view in views)
    lines = [f"Shares of the {unit} that have a class, in the samples shown here and in the files as they lie."]
    if ignored or (histogram is not None and histogram.ignored):
        lines.append(f"{_percent(ignored / max(1, ignored + sum(of_shown)))} % of what is shown is ignored (hatched)")
        if histogram is not None and of_files is not None:
            lines[-1] += f", of the files {_percent(histogram.ignored / max(1, histogram.ignored + sum(of_files)))} %"
        lines[-1] += "."
    shown = table(headings, rows, numeric=(1, 3))
    return [
        section(
            "Classes",
            details(f"all {len(rows):,} classes", shown) if len(rows) > _MOST_ROWS else shown,
            element("p", " ".join(lines), class_="note"),
        )
    ]


def _values(views: Sequence[SampleView]) -> list[Html]:
    """How often each range of values occurs in what is shown; nothing for a task without values."""
    known = [view.values for view in views if view.values is not None and len(view.values)]
    if not known:
        return []
    values = np.concatenate(known)
    edges = _round_edges(float(values.min()), float(values.max()))
    counts, _ = np.histogram(values, edges)
    shares = _shares(counts.tolist())
    rows = [
        [f"{low:g} to {high:g}", _percent(share), bar(share / max(shares))]
        for low, high, share in zip(edges, edges[1:], shares, strict=False)
    ]
    unit = next(view.unit for view in views if view.values is not None)
    note = element("p", "Share of the places where it is known, in the samples shown here.", class_="note")
    return [section(unit.partition(",")[0].capitalize(), table([unit, "shown, %", ""], rows, numeric=(1,)), note)]


def _round_edges(low: float, high: float) -> list[float]:
    """Edges of at most so many equal ranges, at round numbers, from low or less to high or more."""
    rough = max((high - low) / _MOST_RANGES, 1e-6)
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = np.floor(low / step), np.floor(high / step) + 1
    return [float(f"{number * step:.6g}") for number in np.arange(first, last + 1).tolist()]


def _shares(counts: Sequence[int]) -> list[float]:
    return [count / max(1, sum(counts)) for count in counts]


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _pipeline(dataset_config: Mapping[str, Any]) -> Html:
    leaves = list(leaf_datasets(dataset_config))
    listed = leaves[0].get("pipeline") or leaves[0].get("transforms") or ()
    steps = "\n".join(str(dict(step)) for step in listed)
    return details("the pipeline that made them", element("pre", steps)) if steps else Html()


def _cards(views: Sequence[tuple[int, str, tuple[int, ...], SampleView]]) -> Html:
    cards = []
    for index, name, shape, view in views:
        caption = joined((element("b", name), f"sample {index}, height {shape[0]}, width {shape[1]}", view.note), " · ")
        tiles = [(title, picture(tile, f"{title} of {name}")) for title, tile in view.tiles]
        cards.append(card(tiles, caption))
    wide = any(view.written or len(view.tiles) > 2 for *_, view in views)
    return element("div", joined(cards, "\n"), class_="cards wide" if wide else "cards")
