"""Measures backbones with several mechanisms; writes docs/backbones.json and the table of docs/backbones.md.

    python tools/backbone_table.py [--only swin]

What `visionattn cost` measures, forward only, at 3 x 512 x 512 on one thread. Networks that docs/backbones.json has
already are left; --only measures those whose name has this in it anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- table: tools/backbone_table.py -->", "<!-- end of table -->"
SHAPE = (1, 3, 512, 512)
EFFICIENT = "EfficientAttention"


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    path = DOCS / "backbones.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for backbone, attention, config in networks():
        name = f"{backbone} | {attention}"
        if name not in found if args.only is None else args.only in name:
            found[name] = measured(config)
            path.write_text(json.dumps(found, indent=1) + "\n")
            print(name, f"{found[name]['inference']['ms']:.0f} ms", flush=True)
    page = DOCS / "backbones.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{rest.partition(END)[2]}")


def networks() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Backbone, attention, and their config."""
    from visionattn.backbones.named import named_backbones

    ours = named_backbones()
    resnet = {"type": "TimmBackbone", "model_name": "resnet50"}
    sites = {3: "layer3", 4: "layer4"}
    yield "resnet50 (timm)", "none", resnet
    for mechanism in (EFFICIENT, "NonLocal", "SoftmaxAttention"):
        yield (
            "resnet50 (timm)",
            f"{mechanism} behind layer3 and layer4",
            resnet | {"attention": dict.fromkeys(sites, mechanism)},
        )
    for name in ("swin_tiny_window7", "swin_small_window7", "swinv2_tiny_window8"):
        yield name, "shifted windows", ours[name]
    yield "swin_tiny_window7", EFFICIENT, ours["swin_tiny_window7"] | {"attention": EFFICIENT}
    vit = ours["vit_small_patch16"]
    yield "vit_small_patch16", "SoftmaxAttention", vit
    yield "vit_small_patch16", EFFICIENT, vit | {"attention": EFFICIENT}
    yield "vitdet_small_patch16", "windows of 14, every third global", ours["vitdet_small_patch16"]


def measured(config: dict[str, Any]) -> dict[str, Any]:
    """The cost without its rows, and the commit."""
    from visionattn import create_backbone
    from visionattn.analysis import measure_cost

    torch.manual_seed(0)
    cost = measure_cost(create_backbone(config), torch.randn(SHAPE), training=False, repeats=3).as_dict()
    del cost["rows"]
    cost["machine"]["commit"] = commit()
    return cost


def commit() -> str:
    """The commit of this checkout, with "+" if files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, cwd=DOCS, capture_output=True, text=True, check=True).stdout.strip()


def table(found: dict[str, Any]) -> str:
    """The Markdown table, with the machine under it."""
    from visionattn.cli.cost_table import megabytes, short

    lines = [
        "| backbone | attention | parameters | MACs | in attention | forward, ms | peak, MB |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    rows = [(backbone, attention, found.get(f"{backbone} | {attention}")) for backbone, attention, _ in networks()]
    for backbone, attention, cost in rows:
        if cost is not None:
            inference = cost["inference"]
            share = f"{100 * cost['attention_macs'] / cost['macs']:.0f} %" if cost["attention_macs"] else ""
            times = f"{inference['ms']:.0f} ({inference['fastest_ms']:.0f} to {inference['slowest_ms']:.0f})"
            cells = (short(cost["parameters"]), short(cost["macs"]), share, times)
            lines.append(f"| {backbone} | {attention} | {' | '.join(cells)} | {megabytes(inference['peak_bytes'])} |")
    measured_on = {
        f"{cost['machine']['cpu']}, {cost['machine']['threads']} thread, torch {cost['machine']['torch']}"
        for cost in found.values()
    }
    commits = ", ".join(sorted({cost["machine"]["commit"] for cost in found.values()}))
    repeats = sorted({cost["inference"]["repeats"] for cost in found.values()})
    runs = " or ".join(map(str, repeats))
    about = f"{' x '.join(map(str, SHAPE))}, float32, eval, median of {runs} runs; {'; '.join(sorted(measured_on))}"
    return "\n".join([*lines, "", f"{about}; commits {commits}."])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TEXT", help="networks with this in their name; the others stay")
    return parser.parse_args()


if __name__ == "__main__":
    main()
