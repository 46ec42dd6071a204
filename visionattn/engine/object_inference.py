"""A trained detector on images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose

from visionattn.data.images import read_image
from visionattn.engine.evaluated_dataset import evaluated_dataset
from visionattn.engine.trained_model import TrainedModel

Image = str | Path | np.ndarray


class ObjectPredictor:
    """A detector from a config and a checkpoint, called on one image at a time.

    Args:
        config, checkpoint, device: as of `visionattn.predict`.
    Attributes:
        classes: names of the labels, by the checkpoint or else the config's data set; else the labels' numbers.
    Raises:
        ValueError: the config has no pipeline for test images; fewer names than the head has classes.
    """

    def __init__(
        self, config: str | Path | Config, checkpoint: str | Path, device: str | torch.device | None = None
    ) -> None:
        self._trained = TrainedModel(config, checkpoint, device)
        self.model, self.device = self._trained.model, self._trained.device
        dataset = evaluated_dataset(self._trained.config)
        if not dataset.get("pipeline"):
            raise ValueError("the config has no test_dataloader.dataset.pipeline, which makes an image ready")
        with self._trained.scope():
            self._pipeline = Compose(dataset["pipeline"])
        named = self._trained.dataset_meta.get("classes") or dataset.get("classes")
        count = self.model.head.num_classes
        self.classes: Sequence[str] = tuple(map(str, named or range(count)))
        if len(self.classes) < count:
            where = "the checkpoint's dataset_meta" if self._trained.dataset_meta.get("classes") else "the config"
            raise ValueError(
                f"{where} names {len(self.classes)} classes, and the head has num_classes={count}; give the config the "
                "num_classes that the checkpoint was trained with, or a name for each"
            )

    def __call__(self, image: Image) -> Any:
        """The DetectionSample of one image file or RGB array [H, W, 3] uint8, on the model's device.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it cannot be read, or is no such array.
        """
        pixels = image if isinstance(image, np.ndarray) else read_image(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"expected an RGB array [H, W, 3] uint8, got {pixels.dtype} {list(pixels.shape)}")
        raw: dict[str, Any] = {"image": pixels, "ori_shape": pixels.shape[:2]}
        if not isinstance(image, np.ndarray):
            raw["file"] = str(image)
        with self._trained.scope():
            packed = self._pipeline(raw)
        return self._trained(packed)
