"""A folder that timm opens: config.json, model.safetensors and a model card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from mmengine.config import Config
from safetensors import SafetensorError
from timm.models import save_for_hf

from visionattn.export.timm_card import model_card
from visionattn.export.timm_source import Source, read_source


def export_timm(
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path,
    options: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
) -> Source:
    """Writes the folder and returns what was exported; `timm.create_model("local-dir:OUT", pretrained=True)` reads it.

    The folder is there whole or not at all, and only after timm has built from it the model that was exported.

    Args:
        config, checkpoint, options, allow: as of `read_source`.
        out: a folder that does not exist yet, or is empty.
    Raises:
        FileExistsError: `out` holds something.
        FileNotFoundError, ValueError: as of `read_source`.
        OSError: the disk is full or read-only; nothing was written.
    """
    out = Path(out)
    _check_free(out)
    source = read_source(config, checkpoint, options, allow)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        save_for_hf(source.model, str(temporary), model_args=source.arguments, safe_serialization=True)
        card = model_card(source, Path(checkpoint).name, out.name)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        _check_same(source, temporary)
        _put_in_place(temporary, out)
    except SafetensorError as error:
        raise OSError(f"{out} was not written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return source


def _check_free(out: Path) -> None:
    if out.is_dir():
        held = sorted(path.name for path in out.iterdir())
        if held:
            raise FileExistsError(f"{out} already holds {', '.join(held[:3])}; give a folder that is new or empty")
    elif out.exists():
        raise FileExistsError(f"{out} is a file; give a folder that is new or empty")


def _check_same(source: Source, folder: Path) -> None:
    """Raises ValueError unless timm builds from the folder what was exported."""
    again: Any = timm.create_model(f"local-dir:{folder}", pretrained=True)
    state, expected = again.state_dict(), source.model.state_dict()
    other = [name for name in expected if name not in state or not torch.equal(state[name], expected[name])]
    if other or len(state) != len(expected):
        raise ValueError(
            f"timm would build another model from {folder.name}: {other or sorted(set(state) - set(expected))}"
        )
    channels, height, width = source.model.pretrained_cfg["input_size"]
    random = torch.Generator().manual_seed(0)
    image = torch.rand(1, channels, min(height, 64), min(width, 96), generator=random)
    pairs = (model.eval().forward_intermediates(image, intermediates_only=True) for model in (source.model, again))
    with torch.no_grad():
        same = all(torch.equal(one, two) for one, two in zip(*pairs, strict=True))
    if not same:
        raise ValueError(f"timm builds from {folder.name} a model with the same weights and other maps")


def _put_in_place(temporary: Path, out: Path) -> None:
    """All of the folder to the disk itself, then its name."""
    for path in (*temporary.iterdir(), temporary):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    os.replace(temporary, out)
    descriptor = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
