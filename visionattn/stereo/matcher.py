"""A stereo network as mmengine's Runner trains it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from visionattn.registry import MODELS
from visionattn.stereo.packing import StereoSample
from visionattn.stereo.padding import Padder


@MODELS.register_module()
class StereoMatcher(BaseModel):
    """Pads a pair to what the network takes, runs it, crops its disparity back; images of any size.

    Args:
        network: a module or its config: `forward(left, right) -> list` of disparities [B, H, W], the last one the
            best, with `divisor` and `smallest` (side) of the images that it takes; 1 where it does not say.
        loss: a module or its config: `forward(disparities, truth, valid) -> Tensor`; a network that only predicts
            needs none.
        padding: side and fill, as of `Padder`.
        data_preprocessor: `StereoPreprocessor` with ImageNet's mean and deviation if None.
        init_cfg: mmengine's.
    """

    def __init__(
        self,
        network: Mapping[str, Any] | nn.Module,
        loss: Mapping[str, Any] | nn.Module | None = None,
        padding: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(_built(data_preprocessor or {"type": "visionattn.StereoPreprocessor"}), init_cfg)
        self.network = _built(network)
        self.loss_function = None if loss is None else _built(loss)
        divisor, smallest = (int(getattr(self.network, name, 1)) for name in ("divisor", "smallest"))
        self.padder = Padder(divisor, smallest, **(padding or {}))

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        data_samples: Sequence[StereoSample] | None = None,
        mode: str = "tensor",
    ) -> Any:
        """What mmengine asks of a model by `mode`.

        Args:
            inputs: left and right, [B, 3, H, W], normalised.
            data_samples: one for each pair.
        Returns:
            "tensor": the disparities [B, H, W], the last one the best.
            "loss": dict(loss_disparity=...).
            "predict": the samples with `predicted` [H, W] float32, and `seconds` for a pair in their metainfo.
        Raises:
            ValueError: another mode; a loss of samples without truth, or without a loss function.
        """
        if mode == "tensor":
            return self.match(inputs["left"], inputs["right"])
        if mode == "loss":
            return self.loss(inputs, data_samples or ())
        if mode == "predict":
            return self.predict(inputs, data_samples)
        raise ValueError(f"mode={mode!r} must be 'tensor', 'loss' or 'predict'")

    def match(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Every disparity [B, H, W] of the network, of views [B, 3, H, W] of any size."""
        height, width = left.shape[2:]
        disparities = self.network(*self.padder.pad(left, right))
        return [self.padder.crop(disparity, height, width) for disparity in disparities]

    def loss(self, inputs: Mapping[str, Tensor], data_samples: Sequence[StereoSample]) -> dict[str, Tensor]:
        """dict(loss_disparity=...)."""
        if self.loss_function is None:
            raise ValueError(
                'this StereoMatcher has no loss; give it loss=dict(type="visionattn.WeightedSmoothL1Loss")'
            )
        for sample in data_samples:
            if "disparity" not in sample:
                raise ValueError(f"{pair_name(sample)} has no true disparity to learn from")
        truth, valid = (torch.stack([sample.get(key) for sample in data_samples]) for key in ("disparity", "valid"))
        return {"loss_disparity": self.loss_function(self.match(inputs["left"], inputs["right"]), truth, valid)}

    def predict(
        self, inputs: Mapping[str, Tensor], data_samples: Sequence[StereoSample] | None = None
    ) -> list[StereoSample]:
        """The samples, new ones where there are none, with the disparity of the network."""
        left, right = inputs["left"], inputs["right"]
        began = _now(left)
        disparity = self.match(left, right)[-1].float()
        seconds = (_now(left) - began) / len(disparity)
        samples = [StereoSample() for _ in disparity] if data_samples is None else list(data_samples)
        for sample, predicted in zip(samples, disparity, strict=True):
            sample.predicted = predicted
            sample.set_metainfo({"seconds": seconds})
        return samples


def pair_name(sample: Any) -> str:
    """How an error names a sample, an object or a dict."""
    return str(sample.get("left_path") or sample.get("name") or "a stereo pair")


def _built(part: Mapping[str, Any] | nn.Module) -> nn.Module:
    built: nn.Module = part if isinstance(part, nn.Module) else MODELS.build(dict(part))
    return built


def _now(tensor: Tensor) -> float:
    """Seconds, once the tensor's device has done all that it was told."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return time.perf_counter()
