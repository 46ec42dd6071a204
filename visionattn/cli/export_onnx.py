"""`visionattn export onnx`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from visionattn.cli.options import add_allow, add_cfg_options

if TYPE_CHECKING:
    from torch import nn


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG", help="a path, a config's name, or a backbone's such as swin_tiny_window7"
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a .pth or .safetensors file, or a run's .sharded folder"
    )
    # Not required by argparse: where one of the two is left out, it is the checkpoint.
    parser.add_argument("out", metavar="OUT", nargs="?", help="the .onnx file to write")
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(3, 512, 512), metavar="N", help="channels, height, width (3 512 512)"
    )
    parser.add_argument("--dynamic", action="store_true", help="any height and width")
    parser.add_argument("--backbone", action="store_true", help="the feature maps of a config's backbone alone")
    add_allow(parser)
    add_cfg_options(parser)


def run(args: Namespace) -> int:
    if args.out is None:
        raise ValueError(f"an export needs weights: visionattn export onnx {args.config} CHECKPOINT {args.checkpoint}")
    if min(args.shape) < 1:
        raise ValueError(f"--shape {' '.join(map(str, args.shape))}: expected 1 or more")
    if not args.out.endswith(".onnx"):
        raise ValueError(f"{args.out} must end in .onnx")
    import torch

    from visionattn.cli.models import model_from
    from visionattn.cli.options import quick_collections
    from visionattn.export.onnx import export_onnx

    with quick_collections():
        model: Any = model_from(args.config, args.cfg_options)
        metadata = {"visionattn.config": args.config, **_images(model)}
        if args.backbone:
            model = getattr(model, "backbone", model)
        report = _load(model, args.checkpoint, args.allow)
        written = export_onnx(model, args.out, torch.randn(1, *args.shape), dynamic=args.dynamic, metadata=metadata)
    sizes = ", ".join(f"{height} x {width}" for height, width in written.sizes)
    print(f"weights   {report}")
    print(f"exported  {written.path}, opset {written.opset}, {written.path.stat().st_size / 1e6:.1f} MB")
    for name, shape in (*written.inputs.items(), *written.outputs.items()):
        print(f"          {name} [{', '.join(map(str, shape))}]")
    if written.multiple_of is not None:
        what = "any" if written.multiple_of == 1 else f"any multiples of {written.multiple_of}"
        print(f"sizes     {what} height and width" if written.multiple_of == 1 else f"sizes     height, width: {what}")
    print(f"checked   onnxruntime and PyTorch differ by {written.error:.1e} at most ({sizes})")
    if "mean" in metadata:
        print(f"images    normalise them first: mean {metadata['mean']}, std {metadata['std']} ({metadata['order']})")
    return 0


def _load(model: nn.Module, checkpoint: str, allow: Sequence[str]) -> Any:
    """The weights; those of a segmentor's backbone where the model is the backbone."""
    from visionattn.weights.loading import load_checkpoint
    from visionattn.weights.reading import find_state_dict, read_checkpoint

    names = [str(name) for name in find_state_dict(read_checkpoint(checkpoint))]
    whole = any(name.startswith("backbone.") for name in names) and not hasattr(model, "backbone")
    return load_checkpoint(model, checkpoint, prefix="backbone." if whole else "", allow=allow)


def _images(model: nn.Module) -> dict[str, str]:
    """What the model's preprocessor does to an image, which is no part of the file."""
    preprocessor: Any = getattr(model, "data_preprocessor", None)
    if preprocessor is None or getattr(preprocessor, "mean", None) is None:
        return {}
    numbers = {key: " ".join(f"{value:g}" for value in getattr(preprocessor, key).flatten()) for key in ("mean", "std")}
    turned = getattr(preprocessor, "_channel_conversion", False)
    return {**numbers, "order": "RGB" if turned else "channels as loaded, RGB by visionattn.LoadImage"}
