"""A network as an ONNX file that is kept only if onnxruntime computes with it what PyTorch does."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionattn.export.program import Maps, export_program, reason

TOLERANCE = 1e-4
"""Largest difference, relative to the largest value of a map that exceeds 1."""

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_SYMBOL = re.compile(r"s\d+")


@dataclass(frozen=True)
class OnnxFile:
    """What was written and how it was checked.

    Attributes:
        path: of the file.
        inputs, outputs: name and shape of each; open extents are names or expressions.
        multiple_of: height and width may be any multiples of it; None where they are fixed.
        sizes: heights and widths at which onnxruntime and PyTorch agreed.
        error: largest difference there, relative to the largest value of a map that exceeds 1.
        opset: version of ONNX's operators.
    """

    path: Path
    inputs: Mapping[str, tuple[int | str, ...]]
    outputs: Mapping[str, tuple[int | str, ...]]
    multiple_of: int | None
    sizes: tuple[tuple[int, int], ...]
    error: float
    opset: int


def export_onnx(
    model: nn.Module,
    path: str | Path,
    image: Tensor,
    *,
    dynamic: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> OnnxFile:
    """Writes the model's eval forward to an ONNX file, after onnxruntime has agreed with PyTorch to `TOLERANCE`.

    Args:
        model: on the CPU; called with an image alone.
        path: of the file; an existing one is replaced once the new one has been checked.
        image: an example [B, C, H, W]; B and C are fixed.
        dynamic: any height and width, or any multiples of a number if the model's code asks for that; checked at other
            sizes than the example's.
        metadata: what the file says of itself.
    Raises:
        ImportError: a package of the extra "export" is missing.
        ValueError: the model cannot be exported, or the exported one answers otherwise; nothing is written then.
    """
    _require()
    path = Path(path)
    proto = _converted(model, image, dynamic)
    for key, value in (metadata or {}).items():
        proto.metadata_props.add(key=key, value=value)
    _name_extents(proto)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
        import onnx

        written = Path(folder) / "model.onnx"
        onnx.save(proto, str(written))
        session = _session(written)
        multiple: int | None
        if dynamic:
            multiple, sizes, error = _check_sizes(session, model, image)
        else:
            height, width = image.shape[2:]
            multiple, sizes, error = None, ((height, width),), _difference(session, model, image)
            if not error <= TOLERANCE:
                raise ValueError(f"onnxruntime and PyTorch differ by {error:.1e}, more than {TOLERANCE:.0e}")
        os.replace(written, path)
    return OnnxFile(
        path,
        {entry.name: tuple(entry.shape) for entry in session.get_inputs()},
        {entry.name: tuple(entry.shape) for entry in session.get_outputs()},
        multiple,
        sizes,
        error,
        max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")),
    )


def _require() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(f'ONNX export needs {" and ".join(missing)}: pip install "visionattn[export]"')


def _converted(model: nn.Module, image: Tensor, dynamic: bool) -> Any:
    """The model as an onnx.ModelProto."""
    program = export_program(model, image, dynamic=dynamic)
    number = len(program.graph_signature.user_outputs)
    names = ["output"] if number == 1 else [f"output_{index}" for index in range(number)]
    try:
        with _quiet(), torch.no_grad():
            converted = torch.onnx.export(program, dynamo=True, input_names=["image"], output_names=names)
    except Exception as error:  # whatever its passes and functions raise
        raise ValueError(f"torch.onnx cannot convert this model: {reason(error)}") from error
    assert converted is not None
    return converted.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress on the terminal."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _name_extents(proto: Any) -> None:
    """Calls the symbols of the input's open extents height and width, wherever they appear."""
    extents = proto.graph.input[0].type.tensor_type.shape.dim
    names = {extents[axis].dim_param: name for axis, name in ((2, "height"), (3, "width")) if extents[axis].dim_param}
    for entry in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for extent in entry.type.tensor_type.shape.dim:
            if extent.dim_param:
                extent.dim_param = _SYMBOL.sub(lambda found: names.get(found[0], found[0]), extent.dim_param)


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a size that a file does not take is found by trying
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes
        raise ValueError(f"onnxruntime cannot load the exported model: {reason(error)}") from error


def _check_sizes(session: Any, model: nn.Module, image: Tensor) -> tuple[int, tuple[tuple[int, int], ...], float]:
    """The smallest number whose multiples the file takes, the sizes that were tried, and the largest difference."""
    tried = "nothing was tried"
    for multiple in _MULTIPLES:
        sizes = _sizes(image, multiple)
        errors = []
        for size in sizes:
            try:
                errors.append(_difference(session, model, image.new_empty(*image.shape[:2], *size).normal_()))
            except Exception as error:  # the model's own, or onnxruntime's
                tried = f"{size[0]} x {size[1]} fails: {reason(error)}"
                break
            if not errors[-1] <= TOLERANCE:
                tried = f"at {size[0]} x {size[1]} onnxruntime and PyTorch differ by {errors[-1]:.1e}"
                break
        else:
            return multiple, tuple(sizes), max(errors)
    raise ValueError(
        f"the exported model serves the example's size alone ({tried}); leave out --dynamic, or export a size at a time"
    )


def _sizes(image: Tensor, multiple: int) -> list[tuple[int, int]]:
    """The example's size rounded, one of about half of it and one a little larger: odd multiples, of two shapes."""
    height, width = image.shape[2:]

    def odd(number: int) -> int:
        return multiple * (number // multiple | 1)

    example = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    return [example, (odd(height // 2), odd(width // 2 + 2 * multiple)), (odd(height + multiple), odd(width))]


def _difference(session: Any, model: nn.Module, image: Tensor) -> float:
    answers = session.run(None, {"image": image.numpy()})
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            wanted = Maps(model)(image)
    finally:
        for module, mode in modes:
            module.training = mode
    largest = 0.0
    for answer, map_ in zip(answers, wanted, strict=True):
        got = torch.from_numpy(answer)
        if got.shape != map_.shape:
            raise ValueError(f"a map of {list(got.shape)} for one of {list(map_.shape)}")
        scale = max(1.0, float(map_.abs().max()))
        error = float((got - map_).abs().max()) / scale
        largest = error if error > largest or error != error else largest
    return largest
