"""mmengine's checkpoint readers, replaced: nothing that is read may execute.

mmengine's `_safe_torch_load` falls back to an unrestricted unpickler, allows `getattr`, and its downloads are unpickled
without restriction. Runner, `init_cfg=dict(type="Pretrained")` and mmseg's backbones all end in these readers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.runner import CheckpointLoader, checkpoint

from visionattn.weights.reading import read_checkpoint


def load_from_local(filename: str | Path, map_location: object = None) -> dict[str, Any]:
    """What a local file holds, always on the CPU: loading into a model or an optimiser moves it where it belongs."""
    return read_checkpoint(filename)


def load_from_http(url: str, map_location: object = None) -> dict[str, Any]:
    """What the file at the URL holds, downloaded once into torch's cache.

    Raises:
        ValueError: as `read_checkpoint`.
        RuntimeError: the file does not have the hash that its name gives ("resnet50-0676ba61.pth").
    """
    name = Path(urlparse(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if get_rank() == 0 and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        named_hash = re.search(r"-([a-f0-9]{8,})\.", name)
        torch.hub.download_url_to_file(url, str(path), named_hash[1] if named_hash else None)
    barrier()
    return read_checkpoint(path)


def make_mmengine_read_safely() -> None:
    """Puts our readers where mmengine has its own, for every path and URL scheme that it knows.

    Raises:
        RuntimeError: this mmengine has its readers elsewhere, and would read unsafely.
    """
    for name in ("_safe_torch_load", "load_from_local", "load_from_http"):
        if not hasattr(checkpoint, name):
            raise RuntimeError(f"mmengine.runner.checkpoint has no {name}: visionattn needs onedl-mmengine 0.10.12")
    # torchvision://, open-mmlab:// and mmcls:// end in load_from_http, cloud storage in _safe_torch_load.
    checkpoint._safe_torch_load = load_from_local
    checkpoint.load_from_local = load_from_local
    checkpoint.load_from_http = load_from_http
    CheckpointLoader.register_scheme("", load_from_local, force=True)
    CheckpointLoader.register_scheme(("http://", "https://"), load_from_http, force=True)
