"""The benchmark of the kernels: every form of a case interleaved in one process, on rotating inputs."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from visionattn.analysis.bench.run import Instruments, instruments_of
from visionattn.analysis.interleaved import interleaved
from visionattn.analysis.kernel_bench.bandwidth import (
    cache_bytes,
    copied_bytes_per_second,
    fewest_bytes,
    rotation,
    size_of,
)
from visionattn.analysis.kernel_bench.case import Case, Family, Form
from visionattn.analysis.kernel_bench.equality import compared
from visionattn.analysis.machine import describe_timing

NAME = "visionattn benchmark kernels"
PASSES = {False: "forward", True: "forward + backward"}
COMPILED = "compiled"


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        families: names of cases.
        device: as torch names it.
        quick: the smallest case of each family alone.
        compiled: also the plain form through torch.compile.
        repeats: interleaved rounds of each row,
        budget_s: of which a form sits out the rest once it has used so many seconds, after three at least.
        minutes: of the whole; what has no time left is left out.
    """

    families: Mapping[str, Family]
    device: str = "cpu"
    quick: bool = False
    compiled: bool = False
    repeats: int = 11
    budget_s: float = 1.0
    minutes: float | None = None


def benchmark(
    plan: Plan,
    *,
    instruments: Callable[[torch.device], Instruments] = instruments_of,
    say: Callable[[str], object] = lambda line: None,
    save: Callable[[dict[str, Any]], object] = lambda report: None,
) -> dict[str, Any]:
    """All figures, ready for JSON (docs/kernels.md says what is in it).

    Args:
        instruments: those of a device.
        say: takes a line for every case.
        save: takes the report after every case, so that what was measured outlives an interruption.
    """
    device = torch.device(plan.device)
    read = instruments(device)
    started = read.now()
    report: dict[str, Any] = {
        "benchmark": NAME,
        "machine": describe_timing(device),
        "copied_bytes_per_second": copied_bytes_per_second(device, read.meter),
        "settings": {
            "cases": list(plan.families),
            "quick": plan.quick,
            "compiled": plan.compiled,
            "repeats": plan.repeats,
            "budget_s": plan.budget_s,
            "minutes": plan.minutes,
        },
        "rows": [],
        "refused": {},
        "left_out": {},
    }
    for family, case in _cases(plan, device):
        if plan.minutes is not None and read.now() - started > 60 * plan.minutes:
            report["left_out"][str(case)] = f"no time left of {plan.minutes:g} minutes"
            say(f"{case}: left out, {report['left_out'][str(case)]}")
            continue
        try:
            rows, complaints = _measured(case, family, plan, device, read, report["copied_bytes_per_second"])
        except RuntimeError as error:  # out of memory
            report["left_out"][str(case)] = _first_line(error)
            say(f"{case}: left out, {report['left_out'][str(case)]}")
            continue
        report["rows"] += rows
        if complaints:
            report["refused"][str(case)] = complaints
        say(f"{case}: refused, {'; '.join(complaints)}" if complaints else f"{case}: {_told(rows)}")
        save(report)
    return report


def _cases(plan: Plan, device: torch.device) -> Iterator[tuple[Family, Case]]:
    for family in plan.families.values():
        for case in family.cases(device.type):
            if case.smallest or not plan.quick:
                yield family, case


def _measured(
    case: Case, family: Family, plan: Plan, device: torch.device, read: Instruments, rate: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Both passes of a case; or no row, and why it is refused."""
    torch.manual_seed(0)
    forms = list(case.forms(device))
    missing = _add_peers(forms, case, family, device)
    if plan.compiled:
        torch.compiler.reset()
        forms.append(Form(COMPILED, torch.compile(forms[0].module, dynamic=False)))  # type: ignore[arg-type]
    with noted() as why_plain:
        verdict = compared(case, forms, device)
    if verdict.complaints:
        return [], verdict.complaints
    missing |= verdict.failed
    forms = [form for form in forms if form.name not in verdict.failed]
    generator = torch.Generator(device).manual_seed(1)
    first = case.inputs(case.batch, generator)
    count = rotation(size_of(first), cache_bytes(device))
    sets = [first, *(case.inputs(case.batch, generator) for _ in range(count - 1))]
    with torch.no_grad():
        out = forms[0](*first)
    grad = torch.randn(out.shape, generator=generator, device=device).to(out.dtype)
    rows = []
    for training in PASSES:
        floor = fewest_bytes(first, forms[0].learned(), out, training=training)
        figures, failed = _timed(forms, sets, grad, plan, read, training=training)
        for name, figure in figures.items():
            figure["share"] = floor / rate / (figure["ms"] / 1e3)
            figure["error"] = verdict.errors.get(name)
        rows.append(
            {
                "case": case.family,
                "size": case.size,
                "batch": case.batch,
                "dtype": str(case.dtype).removeprefix("torch."),
                "pass": PASSES[training],
                "fewest_bytes": floor,
                "sets": count,
                "why_plain": why_plain,
                "forms": figures,
                "left_out": missing | failed,
            }
        )
    return rows, []


def _add_peers(forms: list[Form], case: Case, family: Family, device: torch.device) -> dict[str, str]:
    """Appends the forms of other packages; what is not installed, with the reason."""
    missing = {}
    shape = case.inputs(case.batch, torch.Generator(device).manual_seed(0))[0].shape
    for name, make in family.peers.items():
        try:
            peer = make(forms[0].module, shape)
        except ImportError as error:
            missing[name] = f"not installed: {_first_line(error)}"
            continue
        if peer is None:
            missing[name] = "too large for it"
            continue
        peer.module.to(device, case.dtype)
        forms.append(peer)
    return missing


def _timed(
    forms: Sequence[Form],
    sets: Sequence[tuple[Tensor, ...]],
    grad: Tensor,
    plan: Plan,
    read: Instruments,
    *,
    training: bool,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Time and peak memory of each form; what failed, with the reason."""
    runs: dict[str, Callable[[], object]] = {}
    peaks, failed = {}, {}
    for form in forms:
        form.module.train(training)
        own = [tuple(t.detach().requires_grad_(training) for t in inputs) for inputs in sets]
        run = partial(_step, form, itertools.cycle(own), grad, training=training)
        try:
            run()
            peaks[form.name] = read.peak_bytes(run)
        except RuntimeError as error:  # out of memory
            failed[form.name] = _first_line(error)
            continue
        runs[form.name] = run
    timed = interleaved(runs, read.meter, repeats=plan.repeats, budget_s=plan.budget_s)
    same = {form.name: form.same for form in forms}
    return {
        name: {**asdict(times), "peak_bytes": peaks[name], "same": same[name]} for name, times in timed.items()
    }, failed


def _step(form: Form, sets: Iterator[tuple[Tensor, ...]], grad: Tensor, *, training: bool) -> object:
    inputs = next(sets)
    if not training:
        with torch.no_grad():
            return form(*inputs)
    out = form(*inputs)
    return out, torch.autograd.grad(out, [*inputs, *form.learned()], grad.expand(out.shape))


@contextmanager
def noted() -> Iterator[list[str]]:
    """What the dispatch of the kernels says inside, each line once: why the plain form served a case."""
    lines: list[str] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = record.getMessage()
            if line not in lines and "VISIONATTN_KERNELS=off" not in line and "float64" not in line:
                lines.append(line)

    logger, notes = logging.getLogger("visionattn.kernels"), Notes()
    level, spreads = logger.level, logger.propagate
    logger.addHandler(notes)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(notes)
        logger.setLevel(level)
        logger.propagate = spreads


def _told(rows: Sequence[Mapping[str, Any]]) -> str:
    told = []
    for row in rows:
        times = ", ".join(f"{name} {figure['ms']:.3g} ms" for name, figure in row["forms"].items())
        told.append(f"{row['pass']}: {times}")
    return "; ".join(told)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
