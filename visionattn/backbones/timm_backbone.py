"""Any timm model as a backbone: feature maps as a list, attention inserted at its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from visionattn.backbones.convolution import replace_convolution
from visionattn.backbones.insertion import Inserted, insert_attention
from visionattn.backbones.timm_body import body_path, create_body, load_timm_checkpoint
from visionattn.registry import MODELS
from visionattn.typing import AttentionConfig, Feature

Config = TypeVar("Config")

Place: TypeAlias = int | str
"""A stage, as timm's feature index, or the path of a module as in timm's model ("layer3.5")."""

PlacedAttention: TypeAlias = Inserted | Mapping[Place, Inserted] | Sequence[Inserted | None]

_OURS = ("pretrained", "features_only", "out_indices", "in_chans", "output_stride")


@MODELS.register_module()
class TimmBackbone(nn.Module):
    """timm's `features_only` form of a model, with attention in the network: later stages see it.

    Nothing is downloaded. Models that timm binds to one input size take any size where timm has an option for it.

    Args:
        model_name: as in `timm.list_models()`.
        attention: one config for every output; or place -> config; or a list with a config or None for each output.
            A place is a stage, counted as in out_indices, or the path of a module in timm's model, as "layer3.5" for
            the sixth block of a ResNet's third stage. Each config as for `insert_attention`.
        conv_attention: place -> config of a mechanism that takes the place of the 3x3 convolution in that residual
            block, or in every block of that stage: see `replace_convolution`.
        out_indices: stages to return, rising; the last four if None (strides 4, 8, 16, 32 in most families).
        in_channels: channels of the image.
        checkpoint: local .safetensors or .pth of the timm model.
        frozen_stages: stages up to this one, and all before it, are not trained and stay in eval mode; -1 freezes
            nothing. Attention put there is trained.
        norm_eval: batch norms keep their running statistics while training.
        grad_checkpointing: trades time for memory while training.
        output_stride: 8 or 16 dilates the last stages of families that can.
        timm_options: further arguments of the timm model, as dict(img_size=512, drop_path_rate=0.2).
    Attributes:
        out_channels, strides: of the maps returned.
        out_indices: stages they come from.
    Raises:
        KeyError: timm has no such model.
        ValueError: timm cannot build it so, a stage that it does not have, or attention where it hands on no maps.
    """

    def __init__(
        self,
        model_name: str,
        *,
        attention: PlacedAttention | None = None,
        conv_attention: Mapping[Place, AttentionConfig] | None = None,
        out_indices: Sequence[int] | None = None,
        in_channels: int = 3,
        checkpoint: str | Path | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        grad_checkpointing: bool = False,
        output_stride: int | None = None,
        timm_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        options = dict(timm_options or {})
        ours = [name for name in options if name in _OURS]
        if ours:
            raise ValueError(f"timm_options may not hold {', '.join(ours)}: TimmBackbone gives it to timm")
        options["in_chans"] = in_channels
        if output_stride is not None:
            options["output_stride"] = output_stride
        self.body: Any = create_body(model_name, out_indices, options)
        self.model_name = model_name
        self.norm_eval = norm_eval
        info = self.body.feature_info
        stages = [index % len(info) for index in info.out_indices]
        if stages != sorted(set(stages)):
            raise ValueError(f"out_indices={out_indices} must rise, as the stages do")
        self.out_indices = tuple(stages if out_indices is not None else stages[-4:])
        self.out_channels: tuple[int, ...] = tuple(info.channels(self.out_indices))
        self.strides: tuple[int, ...] = tuple(info.reduction(self.out_indices))
        declared = getattr(self.body, "output_fmt", "NCHW")
        self._channels_last = getattr(declared, "value", declared) == "NHWC"

        if checkpoint is not None:
            load_timm_checkpoint(self.body, checkpoint)
        self._frozen = self._freeze(frozen_stages)  # before any attention comes: what comes is trained
        in_convolutions = self._by_path(conv_attention or {})
        inserted = {} if attention is None else self._by_path(self._by_place(attention))
        if in_convolutions or inserted:
            size = options.get("img_size") or self.body.pretrained_cfg["input_size"][-2:]
            height, width = (size, size) if isinstance(size, int) else size
            example = torch.zeros(1, in_channels, height, width)
            try:
                if in_convolutions:
                    replace_convolution(self.body, in_convolutions, example_input=example)
                if inserted:
                    insert_attention(self.body, inserted, example_input=example)
            except ValueError as error:
                raise ValueError(f"no attention in {model_name}: {error}") from error
        if grad_checkpointing:
            self.set_grad_checkpointing()
        self.train()

    def forward(self, x: Tensor) -> list[Feature]:
        """Feature maps [B, out_channels[i], H / strides[i], W / strides[i]] of an image [B, in_channels, H, W]."""
        maps = list(self.body(x))[-len(self.out_indices) :]
        return [m.permute(0, 3, 1, 2) for m in maps] if self._channels_last else maps

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode)
        if mode:
            for module in self._frozen:
                module.training = False
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.training = False
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory while training.

        Raises:
            ValueError: timm's model cannot.
        """
        owner: Any = self.body if hasattr(self.body, "set_grad_checkpointing") else getattr(self.body, "model", None)
        try:
            owner.set_grad_checkpointing(enable)
        except (AttributeError, AssertionError) as error:
            raise ValueError(f"timm has no gradient checkpointing for {self.model_name}") from error

    def _by_place(self, attention: PlacedAttention) -> Mapping[Place, Inserted]:
        if isinstance(attention, list | tuple):
            if len(attention) != len(self.out_indices):
                raise ValueError(
                    f"attention lists {len(attention)} stages, {self.model_name} returns {len(self.out_indices)} "
                    f"(stages {', '.join(map(str, self.out_indices))}); write None where there is none"
                )
            return {stage: cfg for stage, cfg in zip(self.out_indices, attention, strict=True) if cfg is not None}
        if not isinstance(attention, Mapping) or "type" in attention:
            return dict.fromkeys(self.out_indices, cast("Inserted", attention))
        return cast("Mapping[Place, Inserted]", attention)

    def _by_path(self, placed: Mapping[Place, Config]) -> dict[str, Config]:
        """The same configs by paths in the body."""
        paths: dict[str, Config] = {}
        for place, cfg in placed.items():
            path = self._path(place)
            if path in paths:
                raise ValueError(f"attention names {place!r} twice, as a stage and as a module; name it once")
            paths[path] = cfg
        return paths

    def _path(self, place: Place) -> str:
        if isinstance(place, str) and place.isdecimal():  # JSON and the command line have no other keys than text
            place = int(place)
        if isinstance(place, str):
            return body_path(self.body, place) or place  # what it lacks is named by whoever looks for it there
        last = self.out_indices[-1]
        if place not in range(last + 1):
            raise ValueError(
                f"attention at stage {place!r}: {self.model_name} runs the stages 0 to {last} and returns "
                f"{', '.join(map(str, self.out_indices))}"
            )
        return self._stage_path(place)

    def _stage_path(self, stage: int) -> str:
        path = body_path(self.body, self.body.feature_info[stage]["module"])
        if path is None:
            raise ValueError(
                f"timm names no module for stage {stage} of {self.model_name}; insert_attention takes the path of any"
            )
        return path

    def _freeze(self, frozen_stages: int) -> list[nn.Module]:
        """Switches off the gradients up to a stage; the modules that stay in eval mode.

        timm registers modules in the order it runs them, which is what its own feature extractors rely on.
        """
        if frozen_stages == -1:
            return []
        if frozen_stages not in range(len(self.body.feature_info)):
            raise ValueError(
                f"frozen_stages={frozen_stages}: {self.model_name} has the stages 0 to "
                f"{len(self.body.feature_info) - 1}; -1 freezes nothing"
            )
        path = self._stage_path(frozen_stages)
        frozen = []
        inside = False
        for name, module in self.body.named_modules():
            below = name == path or name.startswith(f"{path}.")
            if inside and not below:
                break
            inside = below
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad = False
            if below or (name and not path.startswith(f"{name}.")):
                frozen.append(module)
        return frozen
