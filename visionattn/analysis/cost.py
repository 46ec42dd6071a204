"""Everything that a model costs on one input, as a whole and by stage and block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from visionattn.analysis.machine import describe_machine
from visionattn.analysis.macs import count_macs, published_form
from visionattn.analysis.memory import peak_extra_bytes, process_peak_bytes, saved_bytes
from visionattn.analysis.rows import Place, places_of
from visionattn.analysis.timing import Stopwatch, run_times
from visionattn.analysis.tracker import Tracker
from visionattn.attention.base import TokenMixer


@dataclass(frozen=True)
class Row:
    """One part of the model; what lies below it is included.

    Attributes:
        name: dotted path; "" is the whole model.
        kind: "model", "stage", "block" or "layer" (see `places_of`).
        depth: rows above it.
        type: the module's class.
        parameters: number of them.
        macs: multiply-accumulates of the published form.
        attention_macs: those among them inside registered mechanisms, projections included.
        saved_bytes: what autograd keeps of it for a backward; None if not asked for.
        ms: milliseconds of it in a forward of median length, eval mode; 0 if it never runs.
    """

    name: str
    kind: str
    depth: int
    type: str
    parameters: int
    macs: int
    attention_macs: int
    saved_bytes: int | None
    ms: float


@dataclass(frozen=True)
class Measured:
    """Time and memory of one kind of pass.

    Attributes:
        ms: median wall-clock milliseconds.
        fastest_ms, slowest_ms: the extremes.
        repeats: timed runs.
        peak_bytes: most that torch's allocator held beyond weights and input; outputs included.
        saved_bytes: what autograd keeps between forward and backward; None for a pass without.
    """

    ms: float
    fastest_ms: float
    slowest_ms: float
    repeats: int
    peak_bytes: int
    saved_bytes: int | None = None


@dataclass(frozen=True)
class Cost:
    """What a model costs on an input of `shape` [B, C, H, W].

    Attributes:
        parameters, trained_parameters: numbers of them.
        weight_bytes: of parameters and buffers.
        macs: multiply-accumulates of one forward in the published form, whatever the device.
        macs_here: of the forward as it ran here, where exact shortcuts may multiply less.
        attention_macs: those of `macs` inside registered mechanisms.
        uncounted: operations that may multiply and have no formula, with their calls.
        inference: forward in eval mode without gradients.
        training: forward and backward in training mode (batch norms as in eval mode); None if not asked for.
        process_peak_bytes: most memory the process ever had resident, libraries included.
        machine: where it was measured.
        rows: the parts, each after the one it belongs to.
    """

    shape: tuple[int, ...]
    parameters: int
    trained_parameters: int
    weight_bytes: int
    macs: int
    macs_here: int
    attention_macs: int
    uncounted: Mapping[str, int]
    inference: Measured
    training: Measured | None
    process_peak_bytes: int | None
    machine: Mapping[str, Any]
    rows: tuple[Row, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        return asdict(self)


def measure_cost(
    model: nn.Module, x: Tensor, *, training: bool = True, repeats: int = 11, budget_s: float = 10.0
) -> Cost:
    """What the model costs on x, by running it here; it is left as it was.

    Args:
        model: called with x alone; every tensor it returns, in lists or dicts, takes part in the backward.
        x: on the model's device.
        training: also the memory and time of forward and backward.
        repeats: timed runs of each kind,
        budget_s: or fewer once they have taken this many seconds, but three at least.
    """
    places = places_of(model)
    rows = [(place.name, place.module) for place in places]
    with _as_it_was(model, x.device):
        model.eval()  # also clears what mechanisms keep from a forward: it is counted
        forward = torch.inference_mode()(lambda: model(x))
        macs, attention, uncounted = _published_macs(model, rows, lambda: model(x))
        here = count_macs(lambda: model(x)).total
        times = run_times(forward, x.device, repeats, budget_s)
        row_ms = _row_times(rows, forward, x.device, max(3, min(5, len(times))))
        inference = _measured(times, peak_extra_bytes(forward, x.device))
        saved: Counter[str] | None = None
        trained = None
        if training:
            _train(model)
            saved = _saved(model, rows, x)
            step = _step(model, x)
            times = run_times(step, x.device, repeats, budget_s)
            trained = _measured(times, peak_extra_bytes(step, x.device), saved.total())
    parameters = list(model.parameters())
    return Cost(
        shape=tuple(x.shape),
        parameters=sum(p.numel() for p in parameters),
        trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        weight_bytes=sum(t.numel() * t.element_size() for t in (*parameters, *model.buffers())),
        macs=macs.total(),
        macs_here=here,
        attention_macs=attention.total(),
        uncounted=dict(uncounted),
        inference=inference,
        training=trained,
        process_peak_bytes=process_peak_bytes(),
        machine=describe_machine(x.device),
        rows=_rows(places, macs, attention, saved, row_ms),
    )


def _published_macs(
    model: nn.Module, rows: list[tuple[str, nn.Module]], run: Callable[[], object]
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """By innermost row: all multiply-accumulates, those inside mechanisms; and what could not be counted."""
    tracker, inside = Tracker(), Tracker()
    mixers = [(name, module) for name, module in model.named_modules() if isinstance(module, TokenMixer)]
    # Row and whether a mechanism runs, in one key: a place is a string.
    with published_form(), tracker.watching(rows), inside.watching(mixers):
        counted = count_macs(run, lambda: f"{tracker.innermost()}:{'attention' if inside.is_busy() else ''}")
    macs: Counter[str] = Counter()
    attention: Counter[str] = Counter()
    for key, number in counted.by_place.items():
        name, _, what = key.rpartition(":")
        macs[name] += number
        attention[name] += number if what else 0
    return macs, attention, counted.uncounted


def _row_times(
    rows: list[tuple[str, nn.Module]], run: Callable[[], object], device: torch.device, repeats: int
) -> dict[str, float]:
    """Milliseconds between entering and leaving each row, over all its calls, in the run of median length.

    Of one run, so that parts never take longer than what they are parts of.
    """
    watch = Stopwatch(device)
    spans: list[tuple[str, Any, Any]] = []
    entered: list[Any] = []
    tracker = Tracker(
        lambda name: entered.append(watch.mark()), lambda name: spans.append((name, entered.pop(), watch.mark()))
    )
    runs: list[Counter[str]] = []
    with tracker.watching(rows):
        for _ in range(repeats):
            spans.clear()
            run()
            times: Counter[str] = Counter()
            for name, start, stop in spans:
                times[name] += watch.milliseconds(start, stop)  # type: ignore[assignment]  # a Counter adds floats
            runs.append(times)
    return dict(sorted(runs, key=lambda times: times[""])[len(runs) // 2])


def _saved(model: nn.Module, rows: list[tuple[str, nn.Module]], x: Tensor) -> Counter[str]:
    tracker = Tracker()
    with torch.enable_grad(), tracker.watching(rows):
        return saved_bytes(lambda: model(x), (*model.parameters(), *model.buffers(), x), tracker.innermost)


def _step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    def step() -> None:
        with torch.enable_grad():
            outputs = [out for out in _tensors(model(x)) if out.requires_grad]
            if outputs:
                torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
        model.zero_grad(set_to_none=True)

    return step


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for item in output:
            yield from _tensors(item)


def _measured(times: list[float], peak: int, saved: int | None = None) -> Measured:
    return Measured(median(times), min(times), max(times), len(times), peak, saved)


def _rows(
    places: list[Place],
    macs: Counter[str],
    attention: Counter[str],
    saved: Counter[str] | None,
    ms: dict[str, float],
) -> tuple[Row, ...]:
    """Adds up what was counted in the innermost rows; a list that is never called takes as long as its parts."""
    macs, attention, ms = Counter(macs), Counter(attention), dict(ms)
    saved = None if saved is None else Counter(saved)
    for place in reversed(places):
        if place.name not in ms:
            ms[place.name] = sum(ms[part.name] for part in places if part.parent == place.name)
        if place.parent is not None:
            for counter in (macs, attention, saved):
                if counter is not None:
                    counter[place.parent] += counter[place.name]
    return tuple(
        Row(
            place.name,
            place.kind,
            place.depth,
            type(place.module).__name__,
            sum(p.numel() for p in place.module.parameters()),
            macs[place.name],
            attention[place.name],
            None if saved is None else saved[place.name],
            ms[place.name],
        )
        for place in places
    )


def _train(model: nn.Module) -> None:
    """Training mode but for batch norms: one image has no statistics at 1 x 1, and running ones are left alone."""
    for module in model.modules():
        module.training = not isinstance(module, _NormBase)


@contextmanager
def _as_it_was(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Afterwards every module's mode, the gradients and the random state are back."""
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)  # a backward would add to them in place
    with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, gradient in gradients:
                parameter.grad = gradient
