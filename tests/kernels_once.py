"""Run as a program: the smallest case of every kernel once, forward and backward, for a tool that watches the kernels.

    compute-sanitizer python tests/kernels_once.py [CASE ...] [--device cpu]

Names of cases are those of `visionattn benchmark kernels --list`. It ends with an error where a kernel did not serve.
"""

from __future__ import annotations

import argparse

import torch

from visionattn.analysis.kernel_bench.equality import answers
from visionattn.analysis.kernel_bench.run import noted
from visionattn.cli.benchmark import kernel_families


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    device = torch.device(args.device)
    for name, family in kernel_families().items():
        if args.cases and name not in args.cases:
            continue
        case = family.cases(device.type)[0]
        torch.manual_seed(0)
        with noted() as why_plain:
            found = answers(case.forms(device)[0], case.inputs(1, torch.Generator(device).manual_seed(0)))
        if device.type == "cuda":
            torch.cuda.synchronize()
        assert all(t.isfinite().all() for t in found.values()), f"{case}: an answer is not finite"
        print(f"{case}: {'; '.join(why_plain) or 'done'}", flush=True)
        if device.type == "cuda" and why_plain:
            raise SystemExit(f"{case}: no kernel served")


if __name__ == "__main__":
    main()
