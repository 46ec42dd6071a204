"""`visionattn export`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from importlib import import_module

_FORMATS = {
    "timm": "a folder with config.json, model.safetensors and a model card, for timm.create_model",
    "onnx": "an .onnx file that onnxruntime was seen to compute alike",
}


def add_arguments(parser: ArgumentParser) -> None:
    formats = parser.add_subparsers(dest="format", metavar="FORMAT", required=True)
    for name, summary in _FORMATS.items():
        chosen = formats.add_parser(name, help=summary)
        module = import_module(f"visionattn.cli.export_{name}")
        module.add_arguments(chosen)
        chosen.set_defaults(export_run=module.run)


def run(args: Namespace) -> int:
    code: int = args.export_run(args)
    return code
