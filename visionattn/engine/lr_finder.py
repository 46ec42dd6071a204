"""The learning-rate range test: the loss while the rate rises exponentially, and where it falls fastest.

After "Cyclical Learning Rates for Training Neural Networks" (Smith, WACV 2017), section 3.3.
Differs: the loss is smoothed symmetrically, not by a moving average, which would shift the suggestion to higher rates.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from visionattn.engine.borrowed_run import borrow_run, endless_batches
from visionattn.engine.runner import Runner

_SMOOTHING = 0.03  # standard deviation, as a share of the sweep
_DIVERGED = 4.0


@dataclass(frozen=True)
class Sweep:
    """A range test's course.

    Attributes:
        rates: the optimiser's learning rate at each step; groups with a rate of their own keep their ratio to it.
        losses, smoothed: the loss before each step, as it is and smoothed.
        suggestion: the rate at which the smoothed loss falls fastest; None where it does not fall.
        stopped: why the sweep ended before the highest rate; "" where it did not.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None
    stopped: str


def find_lr(config: Config, *, lowest: float = 1e-7, highest: float = 1.0, steps: int = 100) -> Sweep:
    """Trains `steps` steps with a rising rate and forgets what it trained.

    Raises:
        ValueError: the range is none, there are too few steps, or the optimiser has no learning rate.
    """
    if not 0 < lowest < highest:
        raise ValueError(f"expected 0 < lowest < highest, got lowest={lowest:g} and highest={highest:g}")
    if steps < 10:
        raise ValueError(f"steps={steps} are too few for a slope; use 50 to 200")
    base = ((config.get("optim_wrapper") or {}).get("optimizer") or {}).get("lr")
    if not base:
        raise ValueError("the config has no optim_wrapper.optimizer.lr for the others to keep their ratio to; set one")
    rates = np.geomspace(lowest, highest, steps).tolist()
    losses, stopped = borrow_run(config, lambda runner: _losses(runner, rates, base))
    return make_sweep(rates, losses, stopped)


def make_sweep(rates: list[float], losses: list[float], stopped: str = "") -> Sweep:
    """The sweep of these losses; `rates` may go on where the losses end."""
    rates = rates[: len(losses)]
    smoothed = _smooth(np.array(losses), _SMOOTHING * len(losses))
    return Sweep(rates, losses, smoothed.tolist(), _steepest(np.array(rates), smoothed), stopped)


def write_sweep(sweep: Sweep, folder: str | Path, title: str) -> tuple[Path, Path]:
    """Writes lr_find.json and the plot lr_find.png; their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    numbers, plot = folder / "lr_find.json", folder / "lr_find.png"
    numbers.write_text(json.dumps(asdict(sweep), indent=1) + "\n")
    _plot(sweep, title, plot)
    return numbers, plot


def suggested_options(config: Config, rate: float) -> list[str]:
    """KEY=VALUE that make `rate` the run's: of the optimiser, or of the schedules that set rates of their own."""
    schedules = config.get("param_scheduler") or []
    schedules = [schedules] if isinstance(schedules, dict) else schedules
    prefix = "param_scheduler" if isinstance(config.get("param_scheduler"), dict) else "param_scheduler.{}"
    own = [i for i, schedule in enumerate(schedules) if str(schedule.get("type")).endswith("OneCycleLR")]
    keys = [f"{prefix.format(i)}.eta_max" for i in own] or ["optim_wrapper.optimizer.lr"]
    return [f"{key}={rate:.2g}" for key in keys]


def _losses(runner: Runner, rates: list[float], base: float) -> tuple[list[float], str]:
    wrapper, batches = runner.optim_wrapper, endless_batches(runner)
    losses: list[float] = []
    for rate in rates:
        for group in wrapper.param_groups:
            group["lr"] = rate * group["configured_lr"] / base
        parts = []
        for _ in range(wrapper._accumulative_counts):
            log: dict[str, Any] = runner.model.train_step(next(batches), optim_wrapper=wrapper)
            parts.append(float(log["loss"].detach()))
        loss = sum(parts) / len(parts)
        if not math.isfinite(loss):
            return losses, f"the loss was {loss} at lr {rate:.2g}"
        losses.append(loss)
        recent = sum(losses[-5:]) / len(losses[-5:])
        if len(losses) > 10 and recent > _DIVERGED * min(losses):
            return losses, f"the loss had grown to {_DIVERGED:g} times its least at lr {rate:.2g}"
    return losses, ""


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian means; at the ends over what is there."""
    distance = np.arange(len(values))[:, None] - np.arange(len(values))[None]
    weights = np.exp(-0.5 * (distance / max(sigma, 1e-3)) ** 2)
    return weights @ values / weights.sum(1)


def _steepest(rates: np.ndarray, smoothed: np.ndarray) -> float | None:
    """Between the sweep's first tenth, which warms up, and the least loss."""
    first, least = len(rates) // 10, int(np.argmin(smoothed)) if len(rates) else 0
    if least <= first + 1:
        return None
    slope = np.gradient(smoothed, np.log10(rates))
    return float(rates[first + int(np.argmin(slope[first : least + 1]))])


def _plot(sweep: Sweep, title: str, path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 10}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(sweep.rates, sweep.losses, color="0.55", linewidth=1, label="loss of each step", zorder=3)
        axes.plot(sweep.rates, sweep.smoothed, color="tab:blue", linewidth=2, label="smoothed")
        if sweep.suggestion is not None:
            label = f"falls fastest: lr {sweep.suggestion:.1e}"
            axes.axvline(sweep.suggestion, color="tab:red", linestyle="--", linewidth=1.2, label=label)
        low, high = min(sweep.smoothed), max(sweep.smoothed[: max(len(sweep.smoothed) // 2, 1)])
        axes.set_ylim(low - 0.15 * (high - low or 1), high + 0.35 * (high - low or 1))
        axes.set(xscale="log", xlabel="learning rate", ylabel="training loss", title=title)
        axes.grid(True, which="major", color="0.9")
        axes.legend(frameon=False)
        figure.savefig(path, dpi=120)
