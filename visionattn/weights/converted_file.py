"""A weights file in another code base's names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from visionattn.weights.conversion import Conversion, check_target, convert
from visionattn.weights.dialects.dialect import State
from visionattn.weights.durable import read_manifest, write_unlisted
from visionattn.weights.reading import read_checkpoint

_TORCH = (".pth", ".pt")
_SUFFIXES = (".safetensors", *_TORCH)


def convert_file(
    path: str | Path,
    out: str | Path,
    to: str,
    *,
    prefix: str = "",
    window: Sequence[int] | None = None,
    allow: Sequence[str] = (),
) -> Conversion:
    """Writes the weights of one file to another under the names of `to`, whole or not at all.

    Args:
        path: .safetensors, or a torch checkpoint, which may hold more than weights.
        out: .safetensors, .pth or .pt. In the latter two the weights lie where `to` looks for them: for microsoft under
            "model", else bare.
        to, prefix, window, allow: as of `convert_weights`.
    Raises:
        FileNotFoundError: no such file.
        OSError: `out` cannot be written; what was there is as it was.
        ValueError: as of `convert_weights`; `out` is the file itself, a run's checkpoint, or of no known kind.
    """
    path, out = Path(path).expanduser(), Path(out).expanduser()
    check_target(to)
    _check_out(path, out)
    checkpoint = read_checkpoint(path)
    try:
        conversion = convert(checkpoint, to, prefix=prefix, window=window, allow=allow)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix in _TORCH:
        wrapper = conversion.target.wrapper
        content = conversion.state if wrapper is None else {wrapper: conversion.state}
        write_unlisted(lambda file: torch.save(content, file), out)
    else:
        data = _as_safetensors(conversion.state)
        write_unlisted(lambda file: file.write(data), out)
    return conversion


def _check_out(path: Path, out: Path) -> None:
    """Raises ValueError before any work if `out` is not to be written."""
    if out.suffix not in _SUFFIXES:
        raise ValueError(f"{out} must end in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}")
    if out.is_dir():
        raise ValueError(f"{out} is a folder; give a file")
    if path.exists() and out.exists() and out.samefile(path):
        raise ValueError(f"{out} is the file to convert, which is not written over; give another name")
    if out.name in read_manifest(out.parent):
        raise ValueError(f"{out} is a run's checkpoint, which is not written over; give another name")


def _as_safetensors(state: State) -> bytes:
    from safetensors.torch import save

    own = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}  # nothing shared
    return save(own, metadata={"format": "pt"})
