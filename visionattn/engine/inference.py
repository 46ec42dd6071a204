"""A trained model on images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose

from visionattn.data.images import IMAGE_SUFFIXES
from visionattn.engine.config import import_scope, load_config
from visionattn.engine.evaluated_dataset import evaluated_dataset, prediction_pipeline
from visionattn.engine.object_inference import ObjectPredictor
from visionattn.engine.pair_inference import Pair, PairPredictor, expand_pairs
from visionattn.engine.trained_model import TrainedModel
from visionattn.registry import DATASETS, MODELS

Image = str | Path | np.ndarray


def predict(
    config: str | Path | Config,
    checkpoint: str | Path,
    inputs: Image | Sequence[Image] | Pair | Sequence[Pair],
    device: str | torch.device | None = None,
) -> list[Any]:
    """The model's predictions, on the CPU, in the order of the inputs.

        samples = visionattn.predict("quickstart/segmentation", "iter_1000.pth", "street.jpg")
        labels = samples[0].pred_sem_seg.data[0]  # [H, W] of the image itself

        samples = visionattn.predict("quickstart/stereo", "iter_1000.pth", ("left.png", "right.png"))
        disparity = samples[0].predicted  # [H, W], pixels of the left image

        samples = visionattn.predict("quickstart/detection", "iter_400.pth", "street.jpg")
        boxes = samples[0].predicted.boxes  # [N, 4], left, top, right, bottom in pixels of the image

    Args:
        config: a path, a config's name, or a Config.
        checkpoint: read with the allow-list of `visionattn.weights`.
        inputs: one or several of: image file, folder, glob pattern, RGB array [H, W, 3] uint8. Of a stereo model: a
            pair (left, right), or a list of pairs, of files, arrays or folders with files of equal names.
        device: the accelerator if there is one, else the CPU.
    Returns:
        One data sample an image or pair, as the model's `predict` mode gives it (mmseg's SegDataSample, StereoSample,
        DetectionSample), without logits: those of a thousand images fill any memory. `Predictor` has them.
    Raises:
        FileNotFoundError: config, checkpoint or image.
        ValueError: the checkpoint is another model's; there is no image; the images of a pair differ in size.
    """
    config = config if isinstance(config, Config) else load_config(config)
    if takes_pairs(config):
        pairs = expand_pairs(inputs)
        match = PairPredictor(config, checkpoint, device)
        return [match(left, right).cpu() for left, right in pairs]
    if finds_objects(config):
        find = ObjectPredictor(config, checkpoint, device)
        return [find(image).cpu() for image in expand_inputs(inputs)]  # type: ignore[arg-type]
    predictor = Predictor(config, checkpoint, device)
    samples = []
    for image in expand_inputs(inputs):  # type: ignore[arg-type]
        sample = predictor(image).cpu()
        if "seg_logits" in sample:
            del sample.seg_logits
        samples.append(sample)
    return samples


def takes_pairs(config: Config) -> bool:
    """Whether the config's model predicts on pairs of images."""
    from visionattn.stereo.matcher import StereoMatcher

    return _model_is(config, StereoMatcher)


def finds_objects(config: Config) -> bool:
    """Whether the config's model is a detector."""
    from visionattn.detection.detector import Detector

    return _model_is(config, Detector)


def _model_is(config: Config, base: type) -> bool:
    import_scope(config)
    kind = (config.get("model") or {}).get("type")
    model = MODELS.get(kind) if isinstance(kind, str) else kind
    return isinstance(model, type) and issubclass(model, base)


class Predictor:
    """A model from a config and a checkpoint, called on one image at a time.

    Args:
        config, checkpoint, device: as of `predict`.
    Attributes:
        classes, palette: names and RGB triples of the labels, by the checkpoint or else the config's dataset; None
            where neither knows.
    """

    def __init__(
        self, config: str | Path | Config, checkpoint: str | Path, device: str | torch.device | None = None
    ) -> None:
        self._trained = TrainedModel(config, checkpoint, device)
        self.model, self.device = self._trained.model, self._trained.device
        with self._trained.scope():
            steps = prediction_pipeline(self._trained.config)
            self._loader, self._pipeline = Compose(steps[:1]), Compose(steps[1:])
            metainfo = self._trained.dataset_meta or _dataset_metainfo(self._trained.config)
        self.classes: Sequence[str] | None = metainfo.get("classes")
        self.palette: Sequence[Sequence[int]] | None = metainfo.get("palette")

    def __call__(self, image: Image) -> Any:
        """The data sample of one image file or RGB array [H, W, 3] uint8, on the model's device."""
        with self._trained.scope():
            packed = self._pipeline(self._loaded(image))
        return self._trained(packed)

    def _loaded(self, image: Image) -> dict[str, Any]:
        if not isinstance(image, np.ndarray):
            if not Path(image).is_file():
                raise FileNotFoundError(f"no image {image}")
            loaded: dict[str, Any] = self._loader({"img_path": str(image)})
            return loaded
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected an RGB array [H, W, 3] uint8, got {image.dtype} {list(image.shape)}")
        # mmcv's loader hands out BGR, ours RGB: an array enters behind it in the same order.
        bgr = type(self._loader.transforms[0]).__module__.startswith("mmcv.")
        pixels = np.ascontiguousarray(image[..., ::-1] if bgr else image)
        return {"img": pixels, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}


def expand_inputs(inputs: Image | Sequence[Image]) -> list[Image]:
    """Image files and arrays, with folders (and those below) and glob patterns replaced by their images in order.

    Raises:
        FileNotFoundError: no such file, or no image in a folder or pattern.
    """
    if isinstance(inputs, str | Path | np.ndarray):
        inputs = [inputs]
    images: list[Image] = []
    for entry in inputs:
        images.extend([entry] if isinstance(entry, np.ndarray) else _files(Path(entry).expanduser()))
    return images


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        candidates = path.rglob("*")
    elif any(character in str(path) for character in "*?["):
        candidates = Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))
    else:
        raise FileNotFoundError(f"no image {path}")
    found = sorted(file for file in candidates if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not found:
        raise FileNotFoundError(f"no image in {path}; looked for {', '.join(IMAGE_SUFFIXES)}")
    return found


def _dataset_metainfo(config: Config) -> dict[str, Any]:
    dataset = evaluated_dataset(config)
    known = dict(getattr(DATASETS.get(dataset["type"]), "METAINFO", None) or {}) if "type" in dataset else {}
    given = {key: dataset[key] for key in ("classes", "palette") if dataset.get(key)}
    return {**known, **(dataset.get("metainfo") or {}), **given}
