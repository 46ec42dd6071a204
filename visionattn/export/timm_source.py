"""What is exported to timm: a config or the name of a backbone, and a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import timm
from mmengine.config import Config
from torch import Tensor

from visionattn.backbones.named import named_backbones
from visionattn.engine.config import config_roots, find_config, import_scope, load_config
from visionattn.export.timm import GENERIC, timm_name
from visionattn.export.timm_build import Foreign
from visionattn.export.timm_config import channels_of, portable
from visionattn.export.timm_model import TimmModel
from visionattn.registry import SCOPE
from visionattn.weights.loading import load_checkpoint
from visionattn.weights.reading import find_state_dict, read_checkpoint
from visionattn.weights.report import LoadReport

_OUTPUT_NORM = re.compile(r"norm\d+\.weight")
_PREFIX = re.compile(r"backbone\.|network\.\w+\.body\.")  # of a segmentor's backbone; of a stereo network's features


@dataclass(frozen=True)
class Source:
    """A model that timm can build again from `architecture` and `arguments`, with its weights.

    Attributes:
        name: of the config or backbone.
        architecture: the name in timm.
        arguments: what `timm.create_model` needs beside it.
        model: the timm model.
        report: how the checkpoint met it.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    model: TimmModel
    report: LoadReport


def read_source(
    config: str | Path | Config,
    checkpoint: str | Path,
    options: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
) -> Source:
    """The backbone that a config or a name stands for, with the weights of a checkpoint.

    Args:
        config: a path, the name of a config or of a backbone of ours ("swin_tiny_window7"), or a Config.
        checkpoint: the whole model's, or the backbone's alone; Swins and ViTs in any dialect that is known.
        options: values over the config's, by dotted key.
        allow: patterns such as "head.*" of the backbone's names that may be left over, in the file or the model.
    Raises:
        FileNotFoundError: neither a config nor a backbone is called so; there is no such checkpoint.
        ValueError: the config has no backbone, or one that config.json cannot describe; the checkpoint belongs to
            another model.
    """
    found = config if isinstance(config, Config) else _config_or_name(config, options)
    state = find_state_dict(read_checkpoint(checkpoint))
    prefix = next((match[0] for name in state if (match := _PREFIX.match(str(name)))), "")
    overlay: dict[str, Any] = {}
    if isinstance(found, str):
        name, architecture, arguments, classes = _named(found, state, prefix)
    else:
        import_scope(found)
        name, architecture, arguments, classes = _name(found), GENERIC, {"backbone": _backbone(found)}, 0
        overlay = _input_of(found, arguments["backbone"])
    model = _create(architecture, arguments, {**overlay, "num_classes": classes})
    body = model.backbone if isinstance(model, Foreign) else model
    # A model that hands out raw maps has a norm before the head that no segmentor trains.
    spare = ("norm.*",) if arguments.get("backbone", {}).get("out_norms") is False else ()
    report = load_checkpoint(body, checkpoint, prefix=prefix, allow=(*spare, *allow))
    return Source(name, architecture, arguments, model, report)


def _config_or_name(config: str | Path, options: Mapping[str, Any] | None) -> Config | str:
    name = str(config).removeprefix(f"{SCOPE}.")
    try:
        path = find_config(config)
    except FileNotFoundError as error:
        if name not in named_backbones():
            near = get_close_matches(name, named_backbones(), n=3)
            if not near:
                raise
            raise FileNotFoundError(
                f"no config is called {name!r}; of our backbones, did you mean {' or '.join(near)}?"
            ) from error
    else:
        return load_config(path, options)
    if options:
        raise ValueError(f"--cfg-options change a config; {name} is the name of a backbone")
    return name


def _named(name: str, state: Mapping[str, Any], prefix: str) -> tuple[str, str, dict[str, Any], int]:
    """Name, architecture, arguments and number of classes of a backbone of ours, as the weights have it."""
    names = [str(key).removeprefix(prefix) for key in state]
    if any(_OUTPUT_NORM.fullmatch(key) for key in names):  # each map has its norm, and no norm is left for the head
        return name, GENERIC, {"backbone": portable(named_backbones()[name], SCOPE)}, 0
    head = next((state[prefix + key] for key in ("head.fc.weight", "head.weight") if key in names), None)
    return name, timm_name(name), {}, len(head) if isinstance(head, Tensor) else 0


def _name(config: Config) -> str:
    """The name by which the config is found, or else that of its file."""
    path = Path(config.filename or "config").resolve()
    root = next((root for root in config_roots() if path.is_relative_to(root.resolve())), path.parent)
    return path.relative_to(root.resolve()).with_suffix("").as_posix()


def _backbone(config: Config) -> dict[str, Any]:
    model = config.get("model") or {}
    network = model.get("network") or {}  # a stereo model's, whose `create_backbone` takes a bare name for ours
    places = ((model, "backbone"), (network, "backbone"), (network, "features"))
    backbone = next((part[key] for part, key in places if isinstance(part.get(key), Mapping)), None)
    if backbone is None:
        raise ValueError(
            f"{config.filename} has no model.backbone: there is nothing to export to timm; a stereo network's is "
            "model.network.backbone or model.network.features"
        )
    plain = backbone.to_dict() if hasattr(backbone, "to_dict") else dict(backbone)
    return portable(plain, SCOPE if network else config.get("default_scope") or SCOPE)


def _input_of(config: Config, backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Mean, deviation and size of the images that the model was trained on, in timm's units."""
    preprocessor = config.model.get("data_preprocessor") or {}
    size = preprocessor.get("size") or config.get("crop_size")
    found: dict[str, Any] = {}
    for key in ("mean", "std"):
        if preprocessor.get(key):
            found[key] = tuple(round(value / 255, 6) for value in preprocessor[key])
    if size:
        found["input_size"] = (channels_of(backbone), *size)
    return found


def _create(architecture: str, arguments: Mapping[str, Any], overlay: Mapping[str, Any]) -> TimmModel:
    """The timm model, which knows where its first convolution is: timm adapts that one to images of other channels."""
    model: Any = timm.create_model(architecture, pretrained_cfg_overlay=dict(overlay), **arguments)
    known = {"first_conv": model.first_convolution(), "classifier": model.classifier_name}
    if any(model.pretrained_cfg[key] != value for key, value in known.items()):
        model = timm.create_model(architecture, pretrained_cfg_overlay={**overlay, **known}, **arguments)
    return cast("TimmModel", model)
