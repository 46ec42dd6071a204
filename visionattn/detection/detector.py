"""A backbone, a pyramid and a head as one model of mmengine."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from visionattn.backbones.build import create_backbone
from visionattn.detection.packing import DetectionSample
from visionattn.detection.predictions import in_original_image
from visionattn.detection.preprocessor import sample_name
from visionattn.registry import MODELS


@MODELS.register_module()
class Detector(BaseModel):
    """Faster R-CNN, Mask R-CNN, RetinaNet or FCOS, by its head, on any backbone.

        dict(type="visionattn.Detector", backbone=dict(type="visionattn.TimmBackbone", model_name="resnet50"),
             neck=dict(type="visionattn.FPN", extra_levels="LastLevelMaxPool"),
             head=dict(type="visionattn.RCNNHead", num_classes=80, mask=dict()))

    Layers, anchors, RoIAlign, suppression and losses are torchvision's; resizing belongs to the data pipeline. A neck
    that is told no channels and strides has the backbone's. Images without objects give losses with a gradient for
    every parameter that others give one.

    Args:
        backbone: as of `create_backbone`; of another kind (mmseg's) the neck's config must say channels and strides.
        neck: FPN, SimpleFeaturePyramid, or another with `out_channels` and `strides`.
        head: RCNNHead, RetinaNetHead or FCOSHead.
        loss_weights: factors by the loss's name, as dict(loss_mask=2.0); 1 for the others.
        data_preprocessor: DetectionPreprocessor with its defaults if None.
        init_cfg: mmengine's.
    Raises:
        KeyError, TypeError, ValueError: an option that does not exist or fit.
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any],
        neck: Mapping[str, Any],
        head: Mapping[str, Any],
        *,
        loss_weights: Mapping[str, float] | None = None,
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor or {"type": "visionattn.DetectionPreprocessor"}, init_cfg)
        self.backbone = create_backbone(backbone)
        _warn_of_frozen_start(backbone)
        self.neck = _build_neck(neck, self.backbone)
        strides, channels = _levels(self.neck)
        self.head: Any = MODELS.build({"in_channels": channels, "strides": strides, **head})
        self.loss_weights = dict(loss_weights or {})
        for name in self.loss_weights:
            if name not in self.head.loss_names:
                known = ", ".join(self.head.loss_names)
                raise ValueError(f"loss_weights has {name!r}; the losses of {type(self.head).__name__} are {known}")

    def forward(
        self, inputs: Tensor, data_samples: Sequence[DetectionSample] | None = None, mode: str = "tensor"
    ) -> Any:
        """What the mode asks for: "loss" the losses by name, "predict" the samples with `predicted`, in pixels of the
        images as they were read, "tensor" what the head's layers say.

        Args:
            inputs: [B, 3, H, W] from the preprocessor.
            data_samples: one an image; "tensor" does without.
        Raises:
            RuntimeError: a loss in eval mode, a prediction in training mode.
            ValueError: labels that the head does not have, or no masks for a head that needs them.
        """
        if mode not in ("loss", "predict", "tensor"):
            raise ValueError(f'mode={mode!r} must be "loss", "predict" or "tensor"')
        if mode == "loss" and not self.training:
            raise RuntimeError("torchvision's detectors have losses in training mode only; call train() before")
        if mode == "predict" and self.training:
            raise RuntimeError("torchvision's detectors predict in eval mode only; call eval() before")
        samples = data_samples or ()
        sizes = [tuple(sample.img_shape) for sample in samples] or [tuple(inputs.shape[2:])] * len(inputs)
        images = ImageList(inputs, sizes)
        targets = self._targets(samples) if mode == "loss" else []
        maps = self.neck(self.backbone(inputs))
        if mode == "tensor":
            return self.head(images, maps)
        if mode == "loss":
            losses = self.head.losses(images, maps, targets)
            return {name: self.loss_weights.get(name, 1.0) * value for name, value in losses.items()}
        for sample, found in zip(samples, self.head.detections(images, maps), strict=True):
            shape = tuple(sample.img_shape)
            sample.predicted = in_original_image(found, shape, tuple(sample.get("ori_shape", shape)))
        return list(samples)

    def _targets(self, samples: Sequence[DetectionSample]) -> list[dict[str, Tensor]]:
        """What the losses compare with; a crowd's box, which stands for many objects, is left out."""
        self._check_labels(samples)
        targets = []
        for sample in samples:
            single = ~sample.crowd if "crowd" in sample else torch.ones_like(sample.labels, dtype=torch.bool)
            target = {"boxes": sample.boxes[single], "labels": sample.labels[single]}
            if self.head.has_masks:
                if "masks" not in sample:
                    raise ValueError(
                        f"{sample_name(sample)} has no masks, and the head is trained on them; load them in the "
                        "pipeline, or leave out the head's mask"
                    )
                target["masks"] = sample.masks[single]
            targets.append(target)
        return targets

    def _check_labels(self, samples: Sequence[DetectionSample]) -> None:
        labels = torch.cat([sample.labels for sample in samples])
        if not bool(((labels < 0) | (labels >= self.head.num_classes)).any()):
            return
        for sample in samples:
            for label in sample.labels.tolist():
                if not 0 <= label < self.head.num_classes:
                    raise ValueError(
                        f"{sample_name(sample)}: label {label}, and the head's num_classes={self.head.num_classes} "
                        f"allows 0 to {self.head.num_classes - 1}"
                    )


def _warn_of_frozen_start(backbone: str | Mapping[str, Any]) -> None:
    """Logs a warning where stages are frozen that no weights are given for."""
    options = backbone if isinstance(backbone, Mapping) else {}
    if options.get("frozen_stages", -1) >= 0 and not (options.get("checkpoint") or options.get("init_cfg")):
        print_log(
            f"frozen_stages={options['frozen_stages']}, and the backbone has no checkpoint: these stages stay as they "
            "were drawn, unless load_from or a resumed run brings weights",
            logger="current",
            level=logging.WARNING,
        )


def _build_neck(cfg: Mapping[str, Any], backbone: nn.Module) -> nn.Module:
    """The neck, with the backbone's channels and strides where its config says none."""
    kind: Any = cfg.get("type")
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    channels, strides = getattr(backbone, "out_channels", None), getattr(backbone, "strides", None)
    known = inspect.signature(kind).parameters if kind is not None else {}
    given: dict[str, Any] = {}
    if channels is not None and strides is not None:
        if "in_strides" in known:
            given = {"in_channels": channels, "in_strides": strides}
        elif "in_stride" in known:
            given = {"in_channels": channels[-1], "in_stride": strides[-1]}
    return cast("nn.Module", MODELS.build({**given, **cfg}))


def _levels(neck: Any) -> tuple[tuple[int, ...], int]:
    """Strides of the neck's maps, and the channels of each."""
    channels, strides = getattr(neck, "out_channels", None), getattr(neck, "strides", None)
    if strides is None or not isinstance(channels, Sequence) or len(set(channels)) != 1:
        raise ValueError(
            f"a detector needs the strides of its neck's maps, and one number of channels; {type(neck).__name__} has "
            f"strides {strides}, out_channels {channels}; with a backbone that does not say its own, give the neck "
            "in_channels and in_strides"
        )
    return tuple(strides), channels[0]
