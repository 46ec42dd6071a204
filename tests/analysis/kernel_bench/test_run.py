"""The benchmark of the kernels, over forms whose answers, times and memory the test decides."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from visionattn.analysis import interleaved
from visionattn.analysis.bench.run import Instruments
from visionattn.analysis.kernel_bench.case import Case, Family, Form, Function, normal
from visionattn.analysis.kernel_bench.run import Plan, benchmark

FIGURES = {"ms", "fastest_ms", "slowest_ms", "repeats", "peak_bytes", "same", "share", "error"}
ROW = {
    *("case", "size", "batch", "dtype", "pass", "fewest_bytes", "sets", "why_plain", "forms", "left_out"),
}


class Clock:
    """Milliseconds that forms spend as they say."""

    def __init__(self) -> None:
        self.now_ms = 0.0

    def spends(self, ms: float, function: Callable[..., Tensor]) -> nn.Module:
        def run(*inputs: Tensor) -> Tensor:
            self.now_ms += ms
            return function(*inputs)

        return Function(run)

    def instruments(self, device: torch.device) -> Instruments:
        def meter(run: Callable[[], object], times: int) -> float:
            before = self.now_ms
            for _ in range(times):
                run()
            spent = self.now_ms - before
            return spent / times if spent else 2.0  # the copy that the device's rate is taken from

        return Instruments(meter, lambda run: 7, lambda: self.now_ms / 1e3)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(interleaved, "BURST_MS", 0.0)
    monkeypatch.setattr("visionattn.analysis.kernel_bench.bandwidth._COPIED", {"cpu": 4000})
    return Clock()


def family(forms: Sequence[Form], **peers: Any) -> Family:
    def inputs(images: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(normal(images, 3, 5, generator=generator, dtype=torch.float32) for _ in range(2))

    def cases(kind: str) -> list[Case]:
        return [
            Case("product", size, 2, torch.float32, inputs, lambda device: forms, smallest=size == "small")
            for size in ("small", "large")
        ]

    return Family("elementwise", cases, peers)


def product(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def test_known_costs_come_out(clock: Clock) -> None:
    ours = Form("ours", clock.spends(2.0, product), own=True)
    other = Form("other", clock.spends(6.0, lambda a, b: (b.double() * a).float()))
    question = Form("question", clock.spends(1.0, torch.add), same=False)
    saved: list[str] = []
    report = benchmark(
        Plan({"product": family([ours, other, question])}, repeats=4),
        instruments=clock.instruments,
        save=lambda report: saved.append(json.dumps(report)),
    )
    assert json.loads(saved[-1]) == json.loads(json.dumps(report))
    assert {"device", "cpu", "threads", "torch", "python", "clock", "commit", "visionattn"} == set(report["machine"])
    assert report["copied_bytes_per_second"] == pytest.approx(2 * 4000 / 2e-3)
    assert [(row["size"], row["pass"]) for row in report["rows"]] == [
        (size, way) for size in ("small", "large") for way in ("forward", "forward + backward")
    ]
    one = 2 * 3 * 5 * 4  # bytes of a tensor; forward reads two and writes one, backward reads three and writes two
    for row, tensors in zip(report["rows"], (3, 8, 3, 8), strict=True):
        assert set(row) == ROW
        assert row["fewest_bytes"] == tensors * one
        assert row["left_out"] == {}
        assert {name: form["ms"] for name, form in row["forms"].items()} == {"ours": 2, "other": 6, "question": 1}
        for form in row["forms"].values():
            assert set(form) == FIGURES
            assert form["peak_bytes"] == 7
            moved = report["copied_bytes_per_second"] * form["ms"] / 1e3
            assert form["share"] == pytest.approx(tensors * one / moved)
        assert row["forms"]["question"]["same"] is False
        assert row["forms"]["question"]["error"] is None
        assert row["forms"]["other"]["error"] < 1e-6
    assert report["refused"] == {}


def wrong_answer(a: Tensor, b: Tensor) -> Tensor:
    return a * b * (1 + 1e-3)


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return grad * b, grad * a * 1.001


@pytest.mark.parametrize(
    ("planted", "own", "complaint"),
    [
        (wrong_answer, False, "wrong errs by 1.0e-03 in the answer"),
        (WrongGradient.apply, False, "wrong errs by 1.0e-03 in the gradient of input 1"),
        (lambda a, b: (a * b)[:, :2], False, "wrong errs by inf in the answer"),
        (lambda a, b: a * b * float("nan"), False, "wrong errs by nan in the answer"),
        (lambda a, b: a * b * (1 + 1e-5), True, "wrong errs by 1.0e-05 in the answer"),
    ],
)
def test_what_is_not_equal_is_refused(clock: Clock, planted: Callable[..., Tensor], own: bool, complaint: str) -> None:
    wrong = Form("wrong", Function(planted), own=own)
    lines: list[str] = []
    report = benchmark(
        Plan({"product": family([Form("ours", Function(product), own=True), wrong])}, quick=True),
        instruments=clock.instruments,
        say=lines.append,
    )
    assert report["rows"] == []
    ((case, complaints),) = report["refused"].items()
    assert case == "product, small, float32"
    assert complaint in "; ".join(complaints)
    assert len(lines) == 1
    assert lines[0].startswith("product, small, float32: refused, wrong errs by")


class Rounded(torch.nn.Module):
    """The product with half of bfloat16's digits; of float32 with all."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b if a.dtype == torch.float32 else a * b + 0.2 * a.detach().abs()


@pytest.mark.parametrize("own", [False, True])
def test_others_may_keep_fewer_digits_in_half_precision(clock: Clock, own: bool) -> None:
    def inputs(images: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(normal(images, 3, 5, generator=generator, dtype=torch.bfloat16) for _ in range(2))

    forms = [Form("ours", Function(product), own=True), Form("rounded", Rounded(), own=own)]
    case = Case("product", "half", 2, torch.bfloat16, inputs, lambda device: forms, smallest=True)
    report = benchmark(Plan({"product": Family("", lambda kind: [case])}), instruments=clock.instruments)
    assert bool(report["refused"]) == own
    assert len(report["rows"]) == (0 if own else 2)


def test_a_peer_that_does_not_run_is_left_out(clock: Clock) -> None:
    def fails(a: Tensor, b: Tensor) -> Tensor:
        raise RuntimeError("expected scalar type Float but found BFloat16\nmore")

    forms = [Form("ours", clock.spends(1.0, product), own=True), Form("typed", Function(fails))]
    report = benchmark(Plan({"product": family(forms)}, quick=True), instruments=clock.instruments)
    assert report["refused"] == {}
    for row in report["rows"]:
        assert list(row["forms"]) == ["ours"]
        assert row["left_out"] == {"typed": "expected scalar type Float but found BFloat16"}


def test_our_form_alone_is_switched_on(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[str | None]] = {"ours": set(), "eager": set()}

    def watched(name: str) -> nn.Module:
        def run(a: Tensor, b: Tensor) -> Tensor:
            if a.dtype == torch.float32:
                seen[name].add(os.environ.get("VISIONATTN_KERNELS"))
            return a * b

        return Function(run)

    monkeypatch.delenv("VISIONATTN_KERNELS", raising=False)
    forms = [Form("ours", watched("ours"), own=True), Form("eager", watched("eager"))]
    benchmark(Plan({"product": family(forms)}, quick=True), instruments=clock.instruments)
    assert seen == {"ours": {None, "off"}, "eager": {"off"}}  # "off" in ours: what its error is judged against
    assert "VISIONATTN_KERNELS" not in os.environ


def test_peers_are_asked_for_and_missing_ones_named(clock: Clock) -> None:
    ours = Form("ours", clock.spends(1.0, product), own=True)
    asked: list[torch.Size] = []

    def there(module: nn.Module, shape: torch.Size) -> Form:
        asked.append(shape)
        assert module is ours.module
        return Form("there", clock.spends(3.0, product))

    def absent(module: nn.Module, shape: torch.Size) -> Form:
        raise ImportError("No module named 'elsewhere'")

    def small(module: nn.Module, shape: torch.Size) -> None:
        return None

    peers = {"there": there, "absent": absent, "small": small}
    report = benchmark(Plan({"product": family([ours], **peers)}, quick=True), instruments=clock.instruments)
    assert asked == [torch.Size([2, 3, 5])]
    for row in report["rows"]:
        assert list(row["forms"]) == ["ours", "there"]
        assert row["left_out"] == {"absent": "not installed: No module named 'elsewhere'", "small": "too large for it"}


def test_what_fails_in_time_or_memory_is_said(clock: Clock) -> None:
    def fails(a: Tensor, b: Tensor) -> Tensor:
        if len(a) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        return a * b

    forms = [Form("ours", clock.spends(40_000.0, product), own=True), Form("large", Function(fails))]
    report = benchmark(Plan({"product": family(forms)}, minutes=0.5), instruments=clock.instruments)
    assert [(row["size"], list(row["forms"])) for row in report["rows"]] == [("small", ["ours"])] * 2
    assert report["rows"][0]["left_out"] == {"large": "CUDA out of memory. Tried to allocate 2 GiB"}
    assert report["left_out"] == {"product, large, float32": "no time left of 0.5 minutes"}


def test_why_the_plain_form_served_is_kept(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("visionattn.kernels")

    def told(a: Tensor, b: Tensor) -> Tensor:
        logger.debug("product: the plain form, because the test says so")
        return a * b

    before = logger.level, logger.propagate, list(logger.handlers)
    report = benchmark(
        Plan({"product": family([Form("ours", Function(told), own=True)])}, quick=True), instruments=clock.instruments
    )
    assert report["rows"][0]["why_plain"] == ["product: the plain form, because the test says so"]
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_inputs_rotate(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionattn.analysis.kernel_bench.run.cache_bytes", lambda device: 400)
    seen: set[int] = set()

    def run(a: Tensor, b: Tensor) -> Tensor:
        if len(a) == 2:
            seen.add(a.data_ptr())
        return a * b

    report = benchmark(
        Plan({"product": family([Form("ours", Function(run), own=True)])}, quick=True), instruments=clock.instruments
    )
    assert report["rows"][0]["sets"] == 4  # of 240 bytes each, twice 400 bytes
    assert len(seen) >= 4
