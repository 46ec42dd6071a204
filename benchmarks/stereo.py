"""PSMNet, ours against the published formulation on the same weights: evaluation and a training step.

    python benchmarks/stereo.py [--size 256 512] [--max-disparity 192] [--repeats 3] [--threads 1]
        [--passes eval training] [--json FILE]

Both run interleaved in one process; the answer is the median. Before anything is timed the disparities and every
gradient are compared, in float64 on a small pair and in float32 on the pair that is timed; where they differ, nothing
is.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from interleaved import machine, median_ms
from published_psmnet import PublishedPSMNet
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.analysis.memory import peak_extra_bytes
from visionattn.stereo.psmnet import PSMNet

WEIGHTS = (0.5, 0.7, 1.0)
DOUBLE_TOLERANCE = 1e-9
SINGLE_TOLERANCE = 1e-3
"""Of float32, mean over the pixels: of an untrained network some pixels hang between two peaks, and which of them the
softmax takes is a matter of rounding."""


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    torch.manual_seed(0)
    check_equal(make_networks(16, device, torch.float64), make_pair(1, (256, 512), device, torch.float64), 16)
    networks = make_networks(args.max_disparity, device, torch.float32)
    pair = make_pair(args.batch, tuple(args.size), device, torch.float32)
    settle(networks, pair)
    truth = args.max_disparity * torch.rand(args.batch, *args.size, device=device)
    rows = []
    for name in args.passes:
        make_run = PASSES[name]
        runs = {form: make_run(network, pair, truth) for form, network in networks.items()}
        extra = peaks_if_equal(runs, device, name)
        ms = median_ms(runs, device, repeats=args.repeats, budget_s=args.budget)
        rows.append({"pass": name, "ms": ms, "peak_extra_bytes": extra})
        print(summary(rows[-1]), flush=True)
    report = {"machine": machine(device), "size": args.size, "max_disparity": args.max_disparity, "rows": rows}
    show(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def make_networks(max_disparity: int, device: torch.device, dtype: torch.dtype) -> dict[str, nn.Module]:
    """Both forms on equal weights; running statistics are their own, so that steps of one do not reach the other."""
    ours = PSMNet(max_disparity).to(device, dtype)
    return {"ours": ours, "published": PublishedPSMNet(copy.deepcopy(ours))}


def settle(networks: dict[str, nn.Module], pair: tuple[Tensor, Tensor]) -> None:
    """Sets the running statistics to those of this pair: else an untrained network's logits are so far apart that most
    of the published softmax is subnormal numbers, which take a processor many times as long."""
    ours = networks["ours"].train()
    norms = [m for m in ours.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        ours(*pair)
    for norm in norms:
        norm.momentum = 0.1
    networks["published"].net.load_state_dict(ours.state_dict())


def make_pair(batch: int, size: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    left, right = torch.randn(2, batch, 3, *size, device=device, dtype=dtype)
    return left, right


def evaluation(network: nn.Module, pair: tuple[Tensor, Tensor], truth: Tensor) -> Callable[[], list[Tensor]]:
    def run() -> list[Tensor]:
        network.eval()
        with torch.inference_mode():
            return network(*pair)

    return run


def training_step(network: nn.Module, pair: tuple[Tensor, Tensor], truth: Tensor) -> Callable[[], list[Tensor]]:
    def run() -> list[Tensor]:
        network.train().zero_grad(set_to_none=True)
        disparities = network(*pair)
        loss = sum(weight * F.smooth_l1_loss(d, truth) for weight, d in zip(WEIGHTS, disparities, strict=True))
        loss.backward()
        return [d.detach() for d in disparities]

    return run


PASSES = {"eval": evaluation, "training": training_step}


def check_equal(networks: dict[str, nn.Module], pair: tuple[Tensor, Tensor], max_disparity: int) -> None:
    """Refuses to go on unless both give one disparity, in eval and training, and one gradient of every parameter."""
    truth = max_disparity * torch.rand(1, *pair[0].shape[2:], device=pair[0].device, dtype=pair[0].dtype)
    for name, make_run in PASSES.items():
        outputs = {form: make_run(network, pair, truth)() for form, network in networks.items()}
        for ours, theirs in zip(outputs["ours"], outputs["published"], strict=True):
            refuse_if_apart(largest_error(ours, theirs), DOUBLE_TOLERANCE, f"{name} in float64")
    theirs = dict(networks["published"].net.named_parameters())
    for name, parameter in networks["ours"].named_parameters():
        error = largest_error(parameter.grad, theirs[name].grad)
        refuse_if_apart(error, DOUBLE_TOLERANCE, f"the gradient of {name} in float64")


def peaks_if_equal(runs: dict[str, Callable[[], list[Tensor]]], device: torch.device, what: str) -> dict[str, int]:
    """Peak extra bytes of each form; refuses to go on unless their disparities agree."""
    outputs: dict[str, list[Tensor]] = {}

    def keep(form: str) -> None:
        outputs[form] = runs[form]()

    peaks = {form: peak_extra_bytes(partial(keep, form), device) for form in runs}
    for ours, theirs in zip(outputs["ours"], outputs["published"], strict=True):
        refuse_if_apart(float((ours - theirs).abs().mean() / theirs.abs().max()), SINGLE_TOLERANCE, what)
    return peaks


def largest_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def refuse_if_apart(error: float, tolerance: float, what: str) -> None:
    if not error <= tolerance:
        raise SystemExit(f"ours and the published form differ by {error:.1e} in {what}; nothing timed")


def summary(row: dict[str, Any]) -> str:
    ms, extra = row["ms"], row["peak_extra_bytes"]
    return (
        f"{row['pass']}: ours {ms['ours']:.0f} ms, {extra['ours'] / 1e6:.0f} MB; "
        f"published {ms['published']:.0f} ms ({ms['published'] / ms['ours']:.2f}x), "
        f"{extra['published'] / 1e6:.0f} MB (ours is {extra['ours'] / extra['published']:.2f} of it)"
    )


def show(report: dict[str, Any]) -> None:
    height, width = report["size"]
    table = Table(title=f"PSMNet, {height}x{width}, {report['max_disparity']} disparities")
    for column in ("pass", "ours, ms", "published, ms", "faster", "ours, MB", "published, MB", "memory"):
        table.add_column(column, justify="left" if column == "pass" else "right", no_wrap=True)
    for row in report["rows"]:
        ms, extra = row["ms"], row["peak_extra_bytes"]
        table.add_row(
            row["pass"],
            f"{ms['ours']:.0f}",
            f"{ms['published']:.0f}",
            f"{ms['published'] / ms['ours']:.2f}x",
            f"{extra['ours'] / 1e6:.0f}",
            f"{extra['published'] / 1e6:.0f}",
            f"{extra['ours'] / extra['published']:.2f}x",
        )
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), soft_wrap=True)
    console.print("MB: peak beyond what was held before, in torch's allocator, gradients included", soft_wrap=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    parser.add_argument("--max-disparity", type=int, default=192)
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds per form and pass (default 300)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure with its machine and commit")
    return parser.parse_args()


if __name__ == "__main__":
    main()
