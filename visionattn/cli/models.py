"""The model that a command's CONFIG argument names, and the device it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def model_from(name: str, cfg_options: Sequence[str] = ()) -> nn.Module:
    """The model of a config, by path or name, or a backbone by name; with its random weights.

    Args:
        name: "quickstart/segmentation", a path, or a name as `create_backbone` takes it.
        cfg_options: KEY=VALUE pairs over the config's.
    Raises:
        FileNotFoundError: neither a config nor a backbone is called so.
        ValueError: the config has no model, or options came with a backbone's name.
    """
    from mmengine.registry import DefaultScope

    from visionattn.backbones.build import create_backbone
    from visionattn.engine.config import find_config, import_scope, load_config, parse_options
    from visionattn.registry import MODELS

    try:
        path = find_config(name)
    except FileNotFoundError as no_config:
        try:
            backbone = create_backbone(name)
        except KeyError as error:
            near = str(no_config).partition("; ")[2]
            configs = f" (of the configs: {near})" if near.startswith("did you mean") else ""
            raise FileNotFoundError(f"no config is called {name!r}{configs}, and {error.args[0]}") from None
        if cfg_options:
            raise ValueError(f"--cfg-options change a config; {name} is the name of a backbone") from None
        return backbone
    config = load_config(path, parse_options(cfg_options))
    if "model" not in config:
        raise ValueError(f"{path} has no model")
    import_scope(config)
    with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmengine")):
        model: nn.Module = MODELS.build(config.model)
    return model


def device_from(name: str | None) -> torch.device:
    """The device called so; the accelerator if None and there is one, else the CPU.

    Raises:
        ValueError: torch knows no such device, or it is not there.
    """
    import torch
    from mmengine.device import get_device

    try:
        device = torch.device(get_device() if name is None else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name}: {reason}; cpu is always there") from error
    return device
