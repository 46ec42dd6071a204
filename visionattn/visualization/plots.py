"""Plots for papers and documents: a confusion matrix, precision over recall; drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_CELLS = 24  # classes whose numbers can be read
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00")


def confusion_plot(path: Path, matrix: NDArray[Any], names: Sequence[str]) -> None:
    """Writes the matrix, rows the truth, columns the prediction, in percent of each row.

    Args:
        path: of the file; its suffix is the format (.png, .svg, .pdf).
        matrix: [K, K] numbers; a row without any stays white.
        names: of the K classes; more than 24 are not written.
    """
    pyplot = _pyplot()
    true = matrix.sum(axis=1, keepdims=True)
    percent = 100 * np.divide(matrix, true, out=np.zeros(matrix.shape), where=true > 0)
    readable = len(names) <= _MOST_CELLS
    side = 2.2 + (0.46 * len(names) if readable else 5.0)
    figure, axes = pyplot.subplots(figsize=(side + 0.6, side), dpi=120, layout="constrained")
    # Small mistakes are to be seen, hence the root.
    image = axes.imshow(np.sqrt(percent), cmap="Blues", vmin=0, vmax=10)
    if readable:
        for row, column in np.ndindex(matrix.shape):
            value = percent[row, column]
            written = f"{value:.0f}" if value >= 0.5 else "" if value == 0 else "·"
            colour = "white" if value > 36 else "black"
            axes.text(column, row, written, ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
        axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set(xlabel="prediction", ylabel="truth")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, ticks=np.sqrt([0, 1, 5, 20, 50, 100]), shrink=0.7, label="% of the row")
    bar.ax.set_yticklabels(["0", "1", "5", "20", "50", "100"])
    bar.outline.set_visible(False)
    _save(figure, path)


def precision_recall_plot(path: Path, curves: Mapping[str, NDArray[Any]], title: str) -> None:
    """Writes precision over recall.

    Args:
        path: of the file; its suffix is the format.
        curves: precision at recalls spaced evenly from 0 to 1, by name, with its mean in the legend; from the seventh
            on they are dashed.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(5.2, 4.2), dpi=120, layout="constrained")
    for number, (name, values) in enumerate(curves.items()):
        style = "-" if number < len(_COLOURS) else "--"
        recalls = np.linspace(0, 1, len(values))
        label = f"{name} ({values.mean():.3f})"
        axes.plot(recalls, values, style, color=_COLOURS[number % len(_COLOURS)], lw=1.8, label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left", fontsize=9)
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    _pyplot().close(figure)
