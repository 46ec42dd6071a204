"""What a backbone's maps are, in timm's words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from visionattn.backbones.probe import outputs_of
from visionattn.backbones.timm_body import body_path


def described(backbone: nn.Module, in_channels: int) -> list[dict[str, Any]]:
    """Of each map that the backbone hands out, dict(num_chs, reduction, module); a backbone that does not say is run.

    Raises:
        ValueError: the backbone hands out no maps.
    """
    channels, strides = getattr(backbone, "out_channels", None), getattr(backbone, "strides", None)
    if channels is None or strides is None:
        channels, strides = _measured(backbone, in_channels)
    names = _module_names(backbone, len(channels))
    return [{"num_chs": c, "reduction": s, "module": n} for c, s, n in zip(channels, strides, names, strict=True)]


def taken(stages: int, indices: int | Sequence[int] | None) -> list[int]:
    """The rising places among `stages` that timm's `indices` means: the last n for a number, all if None.

    Raises:
        ValueError: there are none such.
    """
    if indices is None:
        indices = stages
    wanted = list(range(-indices, 0)) if isinstance(indices, int) else list(indices)
    if not wanted or any(not -stages <= place < stages for place in wanted):
        raise ValueError(f"indices={indices}: there are the stages 0 to {stages - 1}")
    return sorted({place % stages for place in wanted})


def group_patterns(names: Sequence[str], feature_info: Sequence[dict[str, Any]], coarse: bool) -> dict[str, Any]:
    """Patterns of parameter names by depth: block by block where the names tell, else stage by stage."""
    embedding = r"^(?:patch_embed|absolute_pos_embed|pos_embed|cls_token|reg_token|dist_token)"
    if any(name.startswith("layers.0.blocks.") for name in names):
        fine: list[tuple[str, Any]] = [
            (r"^layers\.(\d+)\.downsample", (0,)),
            (r"^layers\.(\d+)\.\w+\.(\d+)", None),
            (r"^norm", (99999,)),
        ]
        return {"stem": embedding, "blocks": r"^layers\.(\d+)" if coarse else fine}
    if any(name.startswith("blocks.0.") for name in names):
        return {"stem": embedding, "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}
    modules = [re.escape(info["module"]) for info in feature_info if info["module"]]
    later = "|".join([*modules, "head", "norm"])
    stages = [(rf"^{module}\.", (place,)) for place, module in enumerate(modules)]
    return {"stem": rf"^(?!(?:{later})\.)", **({"blocks": stages} if stages else {})}


def _measured(backbone: nn.Module, in_channels: int) -> tuple[list[int], list[int]]:
    """Channels and strides of the maps of an image of 224 x 224."""
    like = next(backbone.parameters())
    image = torch.zeros(1, in_channels, 224, 224, device=like.device, dtype=like.dtype)
    (maps,) = outputs_of(backbone, [backbone], [image])[backbone]
    if not isinstance(maps, list | tuple) or any(not torch.is_tensor(m) or m.dim() != 4 for m in maps):
        raise ValueError(f"{type(backbone).__name__} hands out {type(maps).__name__}, expected a list of NCHW maps")
    return [m.shape[1] for m in maps], [max(1, round(224 / m.shape[2])) for m in maps]


def _module_names(backbone: nn.Module, number: int) -> list[str]:
    """The modules that the maps come from, "" where the backbone does not say."""
    body: Any = getattr(backbone, "body", backbone)
    info, stages = getattr(body, "feature_info", None), getattr(backbone, "out_indices", None)
    if info is None or stages is None or len(stages) != number:
        return [""] * number
    paths = [body_path(body, info[stage]["module"]) or "" for stage in stages]
    return paths if body is backbone else [f"body.{path}" if path else "" for path in paths]
