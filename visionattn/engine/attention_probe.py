"""What the attention modules of a trained model are given on one image or pair, whatever the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor

from visionattn.analysis.attention_record import Recorded, first_picture, recording
from visionattn.data.images import read_image
from visionattn.engine.config import load_config
from visionattn.engine.evaluated_dataset import prediction_pipeline
from visionattn.engine.inference import takes_pairs
from visionattn.engine.trained_model import TrainedModel


@dataclass(frozen=True)
class Probe:
    """A forward pass.

    Attributes:
        calls: of the mechanisms, in order.
        pictures: what the network sees, [3, H, W] as normalised: one, or left and right.
        size: height and width of the image file.
        scale: (x, y) factors from the image file to what the network sees.
        corner: (x, y) where the image begins in what the network sees.
    """

    calls: list[Recorded]
    pictures: list[Tensor]
    size: tuple[int, int]
    scale: tuple[float, float]
    corner: tuple[float, float]

    def share(self, x: float, y: float) -> tuple[float, float]:
        """A point of the image file, in pixels, as shares of what the network sees."""
        height, width = self.pictures[0].shape[-2:]
        places = (
            (at + 0.5) * scale + corner for at, scale, corner in zip((x, y), self.scale, self.corner, strict=True)
        )
        return tuple(place / side for place, side in zip(places, (width, height), strict=True))  # type: ignore[return-value]


def probe_attention(
    config: str | Path | Config,
    checkpoint: str | Path,
    images: Sequence[str | Path],
    device: str | torch.device | None = None,
) -> Probe:
    """Runs a model on an image file, or on the two of a pair, and notes what its attention is given.

    Of a model that runs on parts of an image, one after another, the first part is looked at.

    Args:
        config, checkpoint, device: as of `visionattn.predict`.
        images: one file; of a stereo model left and right.
    Raises:
        FileNotFoundError: config, checkpoint or image.
        ValueError: not as many images as the model takes, or no attention of this package in it.
    """
    config = config if isinstance(config, Config) else load_config(config)
    pair = takes_pairs(config)
    if len(images) != 1 + pair:
        what = "a pair of images, LEFT RIGHT" if pair else "one image"
        raise ValueError(f"this model looks at {what}; got {len(images)} files")
    views = [read_image(image) for image in images]
    trained = TrainedModel(config, checkpoint, device)
    packed = _packed_pair(views) if pair else _packed(trained, config, images[0], views[0])
    with recording(trained.model) as calls, first_picture(trained.model) as pictures:
        sample = trained(packed)
    if not calls:
        raise ValueError(f"{config.filename}: none of this package's attention mechanisms ran in the model")
    height, width = views[0].shape[:2]
    seen_height, seen_width = sample.get("img_shape", (height, width))[:2]
    corner = _corner(trained.model, height, width, pictures[0]) if pair else (0.0, 0.0)
    shown = [picture for batch in pictures for picture in batch][: len(images)]
    return Probe(calls, shown, (height, width), (seen_width / width, seen_height / height), corner)


def _packed(trained: TrainedModel, config: Config, file: str | Path, image: Any) -> dict[str, Any]:
    """The image after the test pipeline; tasks name it differently."""
    with trained.scope():
        raw = {"img_path": str(file), "image": image, "file": str(file), "ori_shape": image.shape[:2]}
        packed: dict[str, Any] = Compose(prediction_pipeline(config))(raw)
    return packed


def _packed_pair(views: Sequence[Any]) -> dict[str, Any]:
    from visionattn.stereo.packing import PackStereo

    return PackStereo()({"left": views[0], "right": views[1]})


def _corner(model: Any, height: int, width: int, seen: Tensor) -> tuple[float, float]:
    """Where a padded view begins: what the matcher would crop."""
    padded_height, padded_width = seen.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(padded_height), torch.arange(padded_width), indexing="ij")
    return tuple(float(model.padder.crop(place, height, width)[0, 0]) for place in (columns, rows))  # type: ignore[return-value]
