"""`visionattn benchmark`."""

from __future__ import annotations

import difflib
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from visionattn.analysis.kernel_bench.case import Family, Form, Peer

_LONGEST_NON_LOCAL = {"cuda": 128 * 128, "cpu": 64 * 64}
"""Tokens: beyond, its N x N maps take gigabytes."""


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    kernels = actions.add_parser(
        "kernels",
        help="time, memory and bytes per second of the kernels and exact forms beside their peers",
        description="Measures the kernels and exact forms against plain PyTorch, the published form, fused softmax "
        "attention, timm, mmseg and mmcv, interleaved in one process: forward, and forward and backward. A case whose "
        "forms do not give one answer is refused.",
    )
    kernels.add_argument("--cases", nargs="+", metavar="CASE", help="all if not given; --list names them")
    kernels.add_argument("--list", action="store_true", help="show the cases and measure nothing")
    kernels.add_argument("--device", metavar="NAME", default="cpu", help="cpu, cuda, cuda:1 ... (cpu)")
    kernels.add_argument("--quick", action="store_true", help="the smallest size of each case alone")
    kernels.add_argument("--compile", action="store_true", help="also the plain form through torch.compile; slow")
    kernels.add_argument("--threads", type=int, metavar="N", help="threads of the CPU; torch's default if not given")
    kernels.add_argument(
        "--repeats", type=int, default=11, metavar="N", help="interleaved rounds, the median counts (11)"
    )
    kernels.add_argument(
        "--budget",
        type=float,
        default=1.0,
        metavar="S",
        help="seconds after which a form sits out the remaining rounds of a row, after three at least (1)",
    )
    kernels.add_argument("--minutes", type=float, metavar="M", help="of the whole; what has no time left is left out")
    kernels.add_argument("--json", metavar="FILE", help="write every figure, with device, versions and commit")
    kernels.add_argument("--plot", metavar="FILE", help="write a picture of the ratios")
    kernels.add_argument(
        "--docs", metavar="DIR", help="write both into this folder, as kernel_benchmark_DEVICE.json and .png"
    )
    kernels.add_argument("--redraw", metavar="FILE", help="measure nothing; show and draw this JSON again")
    kernels.set_defaults(action_run=_kernels)


def run(args: Namespace) -> int:
    code: int = args.action_run(args)
    return code


def _kernels(args: Namespace) -> int:
    from visionattn.analysis.kernel_bench.report import draw, read_report
    from visionattn.cli.benchmark_table import print_benchmark

    if args.list:
        families = kernel_families()
        for name, family in families.items():
            print(f"{name:<{max(map(len, families))}}  {family.about}")
        return 0
    report = read_report(Path(args.redraw)) if args.redraw is not None else _measured(args)
    json_file, plot_file = _targets(args, report)
    if json_file is not None and args.redraw is None:
        _write(json_file, report)
    print_benchmark(report)
    if plot_file is not None and report["rows"]:
        draw(report, plot_file)
    for kind, file in (("figures", json_file), ("picture", plot_file)):
        if file is not None and file.exists():
            print(f"{kind} {file}")
    for case, complaints in report["refused"].items():
        print(f"refused, nothing is reported of {case}: {'; '.join(complaints)}", file=sys.stderr)
    return 1 if report["refused"] else 0


def _measured(args: Namespace) -> dict[str, Any]:
    import torch

    from visionattn.analysis.kernel_bench.run import Plan, benchmark
    from visionattn.cli.models import device_from

    for name in ("repeats", "budget", "minutes", "threads"):
        number = getattr(args, name)
        if number is not None and not number > 0:
            raise ValueError(f"--{name} {number:g}: expected a number above 0")
    families = _chosen(args.cases)
    device = device_from(args.device)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {args.device}: the sizes are chosen for cpu and cuda")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    plan = Plan(families, str(device), args.quick, args.compile, args.repeats, args.budget, args.minutes)

    def save(report: dict[str, Any]) -> None:
        file, _ = _targets(args, report)
        if file is not None:
            _write(file, report)

    return benchmark(plan, say=lambda line: print(line, flush=True), save=save)


def _chosen(names: Iterable[str] | None) -> dict[str, Family]:
    """The families of these names, all if None.

    Raises:
        ValueError: there is no such case.
    """
    families = kernel_families()
    for name in names or ():
        if name not in families:
            near = difflib.get_close_matches(name, families, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"--cases {name}: there is no such case; {meant}there are {', '.join(families)}")
    return families if names is None else {name: families[name] for name in names}


def kernel_families() -> dict[str, Family]:
    """All cases by name, each with what other packages have for it."""
    from dataclasses import replace

    from visionattn.analysis.kernel_bench.attention_cases import attention_families
    from visionattn.stereo.kernel_cases import stereo_families

    families = {**attention_families(), **stereo_families()}
    peers: dict[str, dict[str, Peer]] = {
        "efficient-block": {"non-local": _non_local},
        "window-attention": {"timm": _timm_window, "mmseg": _mmseg_window},
    }
    return families | {name: replace(families[name], peers=of) for name, of in peers.items()}


def _non_local(ours: nn.Module, shape: torch.Size) -> Form | None:
    from visionattn.analysis.kernel_bench.case import Form
    from visionattn.segmentation.kernel_peers import non_local

    device = next(ours.parameters()).device
    if shape[2:].numel() > _LONGEST_NON_LOCAL[device.type]:
        return None
    return Form("non-local", non_local(shape[1]), same=False)


def _timm_window(ours: nn.Module, shape: torch.Size) -> Form:
    import copy

    from visionattn.analysis.kernel_bench.case import Form
    from visionattn.attention.window import WindowAttention
    from visionattn.backbones.timm_window import TimmWindowAttention

    assert isinstance(ours, WindowAttention)
    truth = copy.deepcopy(ours)
    truth.shift_before_padding = True  # timm's order, which shows where there is padding
    return Form("timm", TimmWindowAttention(ours, (shape[1], shape[2])), truth=truth)


def _mmseg_window(ours: nn.Module, shape: torch.Size) -> Form:
    from visionattn.analysis.kernel_bench.case import Form
    from visionattn.attention.window import WindowAttention
    from visionattn.segmentation.kernel_peers import MmsegWindowAttention

    assert isinstance(ours, WindowAttention)
    return Form("mmseg", MmsegWindowAttention(ours))


def _targets(args: Namespace, report: dict[str, Any]) -> tuple[Path | None, Path | None]:
    """Where figures and picture go."""
    files = [None if name is None else Path(name) for name in (args.json, args.plot)]
    if args.docs is not None:
        kind = "cpu" if report["machine"]["device"] == "cpu" else "cuda"
        folder = Path(args.docs)
        files = [
            file or folder / f"kernel_benchmark_{kind}{end}" for file, end in zip(files, (".json", ".png"), strict=True)
        ]
    return files[0], files[1]


def _write(file: Path, report: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n")
