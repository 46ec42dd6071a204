"""The report of a run: one HTML file that a person reads, written when a training ends, however it ends."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from visionattn.engine.report_detection import OF_SECTION, detection_curves, detection_sections
from visionattn.engine.report_disparity import disparity_sections
from visionattn.engine.report_evaluation import class_section, confusion_section, example_sections
from visionattn.engine.run_record import RunRecord, environment, metrics_of, read_run
from visionattn.registry import HOOKS
from visionattn.visualization.curves import Line, line_chart
from visionattn.visualization.page import Html, details, element, figures, joined, page, section, table

_MOST_LINES = 6
_MOST_ROWS = 12
_SHARES = ("mIoU", "mAcc", "aAcc", "mDice", "accuracy", "IoU", "Dice", "Acc")
_HIGHER_IS_BETTER = (*_SHARES, "mAP", "AP")
_ERROR_SHARES = ("D1", "bad-")
_LOWER_IS_BETTER = ("EPE", *_ERROR_SHARES)
_PERCENT = (*_SHARES, *_ERROR_SHARES)
_POOLED = "-pixels"  # ends the names of a disparity's figures that the evaluation's own section has


@HOOKS.register_module()
class ReportHook(Hook):
    """Notes what runs where when a training begins, and writes work_dir/report.html when it ends or is stopped.

    A report that cannot be written is a warning in the log: no training fails by it.
    """

    priority = "LOWEST"  # the last evaluation is written by then

    def before_train(self, runner: Any) -> None:
        facts = {
            "config": str(runner.cfg.filename or runner.experiment_name),
            "iterations": runner.max_iters,
            "seed": runner.seed,
            "processes": runner.world_size,
            "device": _device(runner),
            "parameters": sum(p.numel() for p in runner.model.parameters()),
            "begun": time.time(),
            "begun_at": runner.iter,
            "environment": environment(),
        }
        self._note(runner, facts)

    def when_training_ends(self, runner: Any) -> None:
        """Called by the Runner however its training ends."""
        if not is_main_process() or not _facts_file(runner).is_file():  # it ended before it began
            return
        try:
            facts = json.loads(_facts_file(runner).read_text(encoding="utf-8"))
            done = {"done": runner.iter, "finished": runner.iter >= runner.max_iters}
            self._note(runner, {**facts, "ended": time.time(), **done})
            write_report(runner.work_dir)
        except Exception as error:  # the training is worth more than its report
            runner.logger.warning(f"no report was written: {type(error).__name__}: {error}")

    def _note(self, runner: Any, facts: Mapping[str, Any]) -> None:
        if is_main_process():
            _facts_file(runner).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def write_report(work_dir: str | Path, out: str | Path | None = None) -> Path:
    """Writes the report of the run in a work dir and returns its path.

    Args:
        out: the HTML file; work_dir/report.html if None.
    Raises:
        FileNotFoundError: no run has written there.
    """
    path = Path(out) if out is not None else Path(work_dir) / "report.html"
    content = report(read_run(work_dir), Path(work_dir).resolve().name)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)
    return path


def report(record: RunRecord, name: str) -> str:
    """The HTML page of a run."""
    sections = [
        figures(_headline(record)),
        *_curves(record),
        *_evaluations(record),
        *disparity_sections(record),
        *detection_sections(record),
        *class_section(record),
        *confusion_section(record),
        *example_sections(record),
        *_config(record),
        *_environment(record),
    ]
    config = Path(str(record.facts.get("config") or name)).stem
    return page(f"Run: {config}", _subtitle(record), sections)


def _subtitle(record: RunRecord) -> str:
    facts = record.facts
    parts = [str(facts["config"])] if facts.get("config") else []
    if facts.get("begun"):
        parts.append("begun " + time.strftime("%Y-%m-%d %H:%M", time.localtime(facts["begun"])))
    parts.append(_state(record))
    return " · ".join(parts)


def _state(record: RunRecord) -> str:
    done, planned = _iterations(record), record.facts.get("iterations")
    if record.facts.get("finished"):
        return "finished"
    if "ended" in record.facts:
        return f"stopped after {done:,} of {planned:,} iterations"
    return f"not ended: {done:,} of {planned:,} iterations are logged" if planned else f"{done:,} iterations logged"


def _iterations(record: RunRecord) -> int:
    """Those done: as the run counted them when it ended, else those of the logs, which have not every step."""
    logged = [int(line["step"]) for lines in (record.train, record.evaluations) for line in lines[-1:]]
    counted = record.facts.get("iterations") if record.facts.get("finished") else 0
    return int(record.facts.get("done") or max([counted or 0, *logged]))


def _headline(record: RunRecord) -> list[tuple[str, str]]:
    numbers = []
    if record.evaluations:
        main = next(iter(metrics_of(record.evaluations[-1])))
        numbers.append((f"{main}, last", _number(metrics_of(record.evaluations[-1])[main], main)))
        if _sign(main) and len(record.evaluations) > 1:
            best = max(record.evaluations, key=lambda line: _finite(metrics_of(line).get(main), main))
            numbers.append((f"{main}, best (at {best['step']:,})", _number(best[main], main)))
    if record.train:
        done, planned = _iterations(record), record.facts.get("iterations")
        numbers.append(("iterations", f"{done:,}" if planned in (None, done) else f"{done:,} of {planned:,}"))
        if "loss" in record.train[-1]:
            numbers.append(("loss, last", f"{record.train[-1]['loss']:.4g}"))
    facts = record.facts
    if facts.get("seconds"):
        unknown = "over " if facts.get("unended") else ""
        numbers.append(("duration", unknown + _duration(facts["seconds"])))
    if facts.get("parameters"):
        numbers.append(("parameters", f"{facts['parameters'] / 1e6:.2f} M"))
    if facts.get("device"):
        numbers.append(("device", str(facts["device"])))
    return numbers


def _curves(record: RunRecord) -> list[Html]:
    charts = []
    losses = _named(record.train, lambda name: "loss" in name and name != "loss")
    total = _line(record.train, "loss")
    # A single part is the total itself.
    lines = ([total] if total else []) + ([_line(record.train, name) for name in losses] if len(losses) > 1 else [])
    charts.append(_chart("Loss", [line for line in lines if line], "loss", positive=True))
    charts.append(_chart("Learning rate", [_line(record.train, "lr")], "learning rate"))
    metrics = list(dict.fromkeys(name for line in record.evaluations for name in metrics_of(line)))
    metrics = [name for name in metrics if not _of_a_section(name)]
    if len(record.evaluations) > 1:
        of_objects = detection_curves(record)
        charts += of_objects
        metrics = [name for name in metrics if not (of_objects and "/" in name and "_AP" in name)]
        percents = [name for name in metrics if _is_percent(name)]
        charts.append(_chart("Validation", [_line(record.evaluations, name) for name in percents], "%"))
        charts += [
            _chart(name, [_line(record.evaluations, name)], name.rpartition("/")[2])
            for name in metrics
            if name not in percents
        ][:_MOST_LINES]
    charts.append(
        _chart(
            "Time of an iteration",
            [_line(record.train, "time", "all"), _line(record.train, "data_time", "waiting for data")],
            "seconds",
        )
    )
    rates = _named(record.train, lambda name: "images" in name)
    charts.append(_chart("Throughput", [_line(record.train, name) for name in rates], "images/s"))
    shown = [chart for chart in charts if chart]
    return [section("Training", element("div", joined(shown, "\n"), class_="charts"))] if shown else []


def _chart(title: str, lines: Sequence[Line | None], y_label: str, *, positive: bool = False) -> Html | None:
    drawn = [line for line in lines if line is not None][:_MOST_LINES]
    values = [y for line in drawn for y in line.y if math.isfinite(y)]
    if not values:
        return None
    # A loss that falls by orders of magnitude shows nothing but its beginning otherwise.
    logarithmic = positive and min(values) > 0 and max(values) > 100 * min(values)
    return line_chart(title, drawn, "iteration", y_label, logarithmic=logarithmic)


def _line(lines: Sequence[Mapping[str, float]], name: str, shown: str | None = None) -> Line | None:
    points = [(line["step"], float(line[name])) for line in lines if name in line]
    return Line(shown or name, [x for x, _ in points], [y for _, y in points]) if points else None


def _named(lines: Sequence[Mapping[str, float]], wanted: Any) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line if wanted(name)))


def _evaluations(record: RunRecord) -> list[Html]:
    if not record.evaluations:
        return []
    names = list(dict.fromkeys(name for line in record.evaluations for name in metrics_of(line)))
    names = [name for name in names if not _of_a_section(name)]
    best = {
        name: max(_finite(line.get(name), name) for line in record.evaluations)
        for name in names
        if _sign(name) and len(record.evaluations) > 1
    }

    def cell(line: Mapping[str, float], name: str) -> object:
        if name not in line:
            return ""
        written = _number(line[name], name)
        return element("b", written) if name in best and _finite(line[name], name) == best[name] else written

    rows = [[f"{int(line['step']):,}", *(cell(line, name) for name in names)] for line in record.evaluations]
    headings = ["iteration", *(f"{name}, %" if _is_percent(name) else name for name in names)]
    numeric = range(len(headings))
    shown: object = table(headings, rows[-_MOST_ROWS:], numeric=numeric)
    if len(rows) > _MOST_ROWS:
        earlier = details(
            f"{len(rows) - _MOST_ROWS} earlier ones", table(headings, rows[:-_MOST_ROWS], numeric=numeric)
        )
        shown = joined((earlier, shown))
    return [section("Evaluations", shown)]


def _config(record: RunRecord) -> list[Html]:
    if not record.config:
        return []
    return [section("Config", details("as it ran, all of it", element("pre", record.config)))]


def _environment(record: RunRecord) -> list[Html]:
    rows: list[Sequence[object]] = []
    for name in ("device", "processes", "seed"):
        if record.facts.get(name) is not None:
            rows.append((name, record.facts[name]))
    rows += list(record.facts.get("environment", {}).items())
    rows += [("checkpoint", f"{name}, {size / 1e6:.1f} MB") for name, size in record.checkpoints]
    return [section("Environment and files", table((), rows))] if rows else []


def _device(runner: Any) -> str:
    import torch

    device = next((p.device for p in runner.model.parameters()), torch.device("cpu"))
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else device.type


def _facts_file(runner: Any) -> Path:
    return Path(runner.log_dir) / "run.json"


def _of_a_section(name: str) -> bool:
    """Whether the evaluation's own section has the figure."""
    return name.endswith(_POOLED) or name.rpartition("/")[2].startswith(OF_SECTION)


def _is_percent(name: str) -> bool:
    return name.rpartition("/")[2].startswith(_PERCENT)


def _sign(name: str) -> int:
    """1 where a higher value is better, -1 where a lower one is, 0 where that is not known."""
    last = name.rpartition("/")[2]
    if last.startswith(_LOWER_IS_BETTER):
        return -1
    return int(last.startswith(_HIGHER_IS_BETTER) or "mAP" in last or last.startswith(("bbox_AP", "segm_AP")))


def _finite(value: float | None, name: str) -> float:
    """The higher, the better; -inf for what is no number."""
    return _sign(name) * value if value is not None and math.isfinite(value) else -math.inf


def _number(value: float, name: str) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.2f}" if _is_percent(name) else f"{value:.4g}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
