"""mmseg's segmentors with inference that fits any image: whole, or by windows in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmseg.models import CascadeEncoderDecoder as MMSegCascadeEncoderDecoder
from mmseg.models import EncoderDecoder as MMSegEncoderDecoder
from torch import Tensor

from visionattn.registry import MODELS
from visionattn.segmentation.sliding import SlidingWindow


class WindowInference:
    """Inference of an mmseg segmentor by its test_cfg.

    dict(mode="whole"), the default: the image as it is.
    dict(mode="slide", crop_size=(h, w), stride=(h, w), window_batch=4, edge_weight=1.0): see `SlidingWindow`.
    mmseg's own runs one window at a time, and an image smaller than the window in its own size.
    """

    window: SlidingWindow | None
    encode_decode: Callable[[Tensor, list[dict[str, Any]]], Tensor]

    def inference(self, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """Logits [B, K, H, W] of images [B, C, H, W]."""
        return self._predict(inputs) if self.window is None else self.window(inputs, self._predict)

    def _predict(self, images: Tensor) -> Tensor:
        # mmseg's heads resize their logits to the first sample's img_shape.
        return self.encode_decode(images, [{"img_shape": images.shape[2:]}] * len(images))


@MODELS.register_module()
class EncoderDecoder(WindowInference, MMSegEncoderDecoder):
    """mmseg.EncoderDecoder whose test_cfg is `WindowInference`'s; its weights and configs are the same.

    Args:
        test_cfg: see `WindowInference`.
        The others: as of mmseg.EncoderDecoder.
    Raises:
        ValueError: test_cfg makes no sense.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        decode_head: dict[str, Any],
        neck: dict[str, Any] | None = None,
        auxiliary_head: dict[str, Any] | Sequence[dict[str, Any]] | None = None,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        pretrained: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        window = _window(test_cfg)
        super().__init__(
            backbone=backbone,
            decode_head=decode_head,
            neck=neck,
            auxiliary_head=auxiliary_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            data_preprocessor=data_preprocessor,
            pretrained=pretrained,
            init_cfg=init_cfg,
        )
        self.window = window


@MODELS.register_module()
class CascadeEncoderDecoder(WindowInference, MMSegCascadeEncoderDecoder):
    """mmseg.CascadeEncoderDecoder (OCR) whose test_cfg is `WindowInference`'s.

    Args:
        num_stages: number of heads; decode_head lists as many.
        The others: as of `EncoderDecoder`.
    Raises:
        ValueError: test_cfg makes no sense.
    """

    def __init__(
        self,
        num_stages: int,
        backbone: dict[str, Any],
        decode_head: Sequence[dict[str, Any]],
        neck: dict[str, Any] | None = None,
        auxiliary_head: dict[str, Any] | Sequence[dict[str, Any]] | None = None,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        pretrained: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        window = _window(test_cfg)
        super().__init__(
            num_stages=num_stages,
            backbone=backbone,
            decode_head=decode_head,
            neck=neck,
            auxiliary_head=auxiliary_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            data_preprocessor=data_preprocessor,
            pretrained=pretrained,
            init_cfg=init_cfg,
        )
        self.window = window


def _window(test_cfg: Mapping[str, Any] | None) -> SlidingWindow | None:
    mode = (test_cfg or {}).get("mode", "whole")
    if mode not in ("whole", "slide"):
        raise ValueError(f'test_cfg: mode={mode!r} must be "whole" or "slide"')
    return SlidingWindow.of(test_cfg or {}) if mode == "slide" else None
