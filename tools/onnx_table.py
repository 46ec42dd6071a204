"""Exports small networks of every backbone and mechanism to ONNX; writes docs/onnx.json and the table of docs/onnx.md.

    python tools/onnx_table.py [--only swin]

Combinations that docs/onnx.json has already are left; --only exports those whose name has this in it anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- table: tools/onnx_table.py -->", "<!-- end of table -->"
SIZE = (75, 93)  # nothing divides it
OWN = "its own"


def main() -> None:
    args = parse_args()
    path = DOCS / "onnx.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"rows": {}}
    for host, mechanism, config in combinations():
        name = f"{host} | {mechanism}"
        if name not in found["rows"] if args.only is None else args.only in name:
            result = exported(config, dynamic=True)
            if result.get("multiple_of") != 1:
                result["fixed"] = exported(config, dynamic=False)
            print(name, result, flush=True)
            found = {"versions": versions(), "size": SIZE, "rows": found["rows"] | {name: result}}
            path.write_text(json.dumps(found, indent=1) + "\n")
    page = DOCS / "onnx.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{rest.partition(END)[2]}")


def combinations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Host, mechanism, and config of each small network; the mechanism stands behind a stage or for the host's own."""
    from visionattn import list_attention

    resnet = {"type": "TimmBackbone", "model_name": "resnet18", "out_indices": (1,)}
    swin = {"type": "SwinTransformer", "embed_dim": 16, "depths": (2, 1), "num_heads": (2, 4), "out_indices": (0, 1),
            "window": (4, 4), "image_size": (64, 64)}  # fmt: skip
    vit = {"type": "VisionTransformer", "embed_dim": 16, "depth": 1, "num_heads": 2, "image_size": (64, 64)}
    yield "ResNet", OWN, resnet
    yield "ViT", OWN, vit
    yield "Swin", OWN, swin
    yield "Swin", f"{OWN} (V2)", swin | {"type": "SwinTransformerV2"}
    for name in list_attention():
        yield "ResNet", name, resnet | {"attention": {"type": name, "grid": (19, 24)}}
        yield "ViT", name, vit | {"attention": name, "class_token": False}
        yield "Swin", name, swin | {"attention": name}


def exported(config: dict[str, Any], *, dynamic: bool) -> dict[str, Any]:
    """How the export went: the largest difference, the multiple of dynamic sizes, or why there is none."""
    from visionattn import create_backbone
    from visionattn.export.onnx import export_onnx

    torch.manual_seed(0)
    start = time.process_time()
    try:
        model = create_backbone(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():  # a gain of 0 would hide its branch
                    parameter.normal_(std=0.5)
        with tempfile.TemporaryDirectory() as folder:
            written = export_onnx(model, Path(folder) / "m.onnx", torch.randn(1, 3, *SIZE), dynamic=dynamic)
    except (ValueError, TypeError) as error:
        return {"why": str(error)}
    return {"error": written.error, "multiple_of": written.multiple_of, "cpu_s": round(time.process_time() - start, 1)}


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "timm", "onnx", "onnxscript", "onnxruntime")}


def table(found: dict[str, Any]) -> str:
    """The Markdown table, a column for each host, and the reasons of what cannot be exported."""
    keys = [(host, mechanism) for host, mechanism, _ in combinations()]
    hosts, mechanisms = (list(dict.fromkeys(names)) for names in zip(*keys, strict=True))
    lines = [f"| attention | {' | '.join(hosts)} |", f"|---|{'---|' * len(hosts)}"]
    reasons: list[str] = []
    for mechanism in mechanisms:
        rows = (found["rows"].get(f"{host} | {mechanism}") for host in hosts)
        lines.append(f"| {mechanism} | {' | '.join(cell(row, reasons) for row in rows)} |")
    known = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines += ["", f"{known}; the example of each export has {SIZE[0]} x {SIZE[1]} pixels."]
    lines += ["", *(f"{index}. {why}" for index, why in enumerate(reasons, 1))] if reasons else []
    return "\n".join(lines)


def cell(row: dict[str, Any] | None, reasons: list[str]) -> str:
    """Image sizes and largest difference; the number of the reason where there are none, or only one."""
    if row is None:
        return ""
    if "why" not in row:
        sizes = "any size" if row["multiple_of"] == 1 else f"multiples of {row['multiple_of']}"
        return f"{sizes}, {row['error']:.0e}"
    fixed = row["fixed"]
    why = fixed.get("why", row["why"])
    reasons += [] if why in reasons else [why]
    number = reasons.index(why) + 1
    return f"no ({number})" if "why" in fixed else f"one size ({number}), {fixed['error']:.0e}"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TEXT", help="combinations with this in their name; the others stay")
    return parser.parse_args()


if __name__ == "__main__":
    main()
