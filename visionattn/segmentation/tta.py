"""Test-time augmentation: an image in several sizes and mirrored, the predictions averaged."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from torch import Tensor

from visionattn.registry import MODELS

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""mmseg's, of the size that the test pipeline gives the image."""


@MODELS.register_module()
class SegTTAModel(BaseTTAModel):
    """Averages probabilities over the augmentations, as mmseg's model of this name does.

    Differs: the average is summed up as predictions come (mmseg's holds the logits of all); `seg_logits` are the
    logarithms of the averaged probabilities (mmseg's are the last augmentation's logits); a single channel is a
    probability already (mmseg takes its sigmoid twice).
    """

    def test_step(self, data: Any) -> list[Any]:
        """The merged data samples of a batch, {"inputs": [augmentation][image], "data_samples": likewise}."""
        number = len(data["inputs"])
        batches = ({key: value[index] for key, value in data.items()} for index in range(number))
        samples = self.module.test_step(next(batches))
        totals = [self._probabilities(sample) for sample in samples]
        for batch in batches:
            for total, sample in zip(totals, self.module.test_step(batch), strict=True):
                total += self._probabilities(sample)
        return [self._merged(sample, total / number) for sample, total in zip(samples, totals, strict=True)]

    def merge_preds(self, data_samples_list: Sequence[Sequence[Any]]) -> list[Any]:
        """mmengine's interface: the samples of each image's augmentations, merged."""
        return [
            self._merged(samples[0], torch.stack([self._probabilities(sample) for sample in samples]).mean(0))
            for samples in data_samples_list
        ]

    def _probabilities(self, sample: Any) -> Tensor:
        """[K, H, W], of the image's own size and direction: mmseg's segmentors bring them back."""
        logits: Tensor = sample.seg_logits.data
        return logits.softmax(0) if len(logits) > 1 else logits.clone()

    def _merged(self, sample: Any, probabilities: Tensor) -> Any:
        if len(probabilities) > 1:
            logits, labels = probabilities.log(), probabilities.argmax(0, keepdim=True)
        else:
            threshold = self.module.decode_head.threshold
            logits, labels = probabilities, (probabilities > threshold).to(probabilities)
        sample.set_data({"seg_logits": PixelData(data=logits), "pred_sem_seg": PixelData(data=labels)})
        return sample


def with_tta(config: Config) -> Config:
    """A config whose test is augmented: mirrored, and in the sizes of `SCALES`.

    A `tta_pipeline` and a `tta_model` in the config are used instead, as mmseg's configs have them.

    Raises:
        ValueError: the test pipeline has no step that loads labels or packs, before which to augment.
    """
    config = copy.deepcopy(config)
    for dataset in _datasets(config.get("test_dataloader")):
        dataset["pipeline"] = config.get("tta_pipeline") or tta_pipeline(dataset["pipeline"])
    config.model = {**(config.get("tta_model") or {"type": "visionattn.SegTTAModel"}), "module": config.model}
    return config


def tta_pipeline(pipeline: Sequence[Mapping[str, Any]], scales: Sequence[float] = SCALES) -> list[dict[str, Any]]:
    """A test pipeline with its image in several sizes, as it is and mirrored.

    Args:
        pipeline: config dicts; what loads the labels, or else the last step, and all behind it work on each size.
        scales: of the size that the image has there.
    Raises:
        ValueError: the pipeline is empty.
    """
    steps = [dict(step) for step in pipeline]
    if not steps:
        raise ValueError("the test pipeline is empty: there is nothing to augment")
    names = [str(step["type"]).rpartition(".")[2] for step in steps]
    cut = next((i for i, name in enumerate(names) if name in ("LoadLabels", "LoadAnnotations")), len(steps) - 1)
    sizes = [{"type": "Resize", "scale_factor": float(scale), "keep_ratio": True} for scale in scales]
    mirrored = [{"type": "RandomFlip", "prob": prob, "direction": "horizontal"} for prob in (0.0, 1.0)]
    return [*steps[:cut], {"type": "TestTimeAug", "transforms": [sizes, mirrored, *([step] for step in steps[cut:])]}]


def _datasets(config: Any) -> Iterator[Any]:
    """The datasets that have a pipeline; wrappers such as ConcatDataset hold further ones."""
    if isinstance(config, list | tuple):
        for item in config:
            yield from _datasets(item)
    elif isinstance(config, Mapping):
        if "pipeline" in config:
            yield config
        for key in ("dataset", "datasets"):
            yield from _datasets(config.get(key))
