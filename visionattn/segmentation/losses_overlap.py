"""Losses by class: how far the predicted areas overlap with the true ones.

mmseg's Dice counts what is predicted on ignored pixels as wrong, and takes all classes for one area; its Lovasz loss is
nan, or fails, where none or one of the pixels is not ignored.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.registry import MODELS
from visionattn.segmentation.losses import SegmentationLoss


@MODELS.register_module()
class DiceLoss(SegmentationLoss):
    """1 - 2 |p t| / (|p| + |t|), the mean over the classes that the batch's truth has, pixels of the batch pooled.

    p are softmax probabilities, t is 1 where the class is true. Source: Milletari et al., V-Net, 2016, here with first
    powers, so that hard predictions give 1 - mDice of the metric. Differs from mmseg's: ignored pixels count nowhere,
    and classes are averaged.

    Args:
        loss_weight, loss_name: as of `SegmentationLoss`.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = "loss_dice") -> None:
        super().__init__(loss_weight, loss_name)

    def loss(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        _refuse_sampler(self, weight)
        classes = logits.shape[1]
        kept = labels != ignore_index
        safe = labels.masked_fill(~kept, 0)
        probability = F.softmax(logits, 1) * kept[:, None]
        right = probability.gather(1, safe[:, None]).flatten()
        overlap = probability.new_zeros(classes).index_add(0, safe.flatten(), right)
        true = torch.bincount(labels[kept], minlength=classes).to(probability.dtype)
        dice = 2 * overlap / (probability.sum((0, 2, 3)) + true).clamp_min(torch.finfo(true.dtype).tiny)
        present = (true > 0).to(dice.dtype)
        return ((1 - dice) * present).sum() / present.sum().clamp_min(1)


@MODELS.register_module()
class LovaszLoss(SegmentationLoss):
    """Lovasz-Softmax, the mean over the classes that the batch's truth has, pixels of the batch pooled.

    Source: Berman et al., The Lovasz-Softmax loss, CVPR 2018, Algorithm 1.

    Args:
        loss_weight, loss_name: as of `SegmentationLoss`.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = "loss_lovasz") -> None:
        super().__init__(loss_weight, loss_name)

    def loss(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        _refuse_sampler(self, weight)
        kept = labels != ignore_index
        probability = F.softmax(logits, 1).movedim(1, -1)[kept]  # [pixels, C]
        if not len(probability):
            return probability.sum()
        labels = labels[kept]
        return torch.stack([_lovasz(probability[:, label], labels == label) for label in labels.unique()]).mean()


def _lovasz(probability: Tensor, true: Tensor) -> Tensor:
    """The Lovasz extension of one class's Jaccard loss.

    Args:
        probability: [P].
        true: [P] bool, not all False.
    """
    errors, order = (true.to(probability.dtype) - probability).abs().sort(descending=True)
    missed = true[order].cumsum(0)  # of the class, if the first 1, 2, ... pixels are wrong
    total = missed[-1]
    ranks = torch.arange(1, len(true) + 1, device=true.device)
    jaccard = 1 - (total - missed).to(errors.dtype) / (total + ranks - missed)
    return errors @ torch.diff(jaccard, prepend=jaccard.new_zeros(1))


def _refuse_sampler(loss: SegmentationLoss, weight: Tensor | None) -> None:
    if weight is not None:
        raise ValueError(
            f"{type(loss).__name__} compares areas and takes no weights of pixels: leave the head's sampler out, "
            "visionattn.OhemCrossEntropyLoss finds hard pixels by itself"
        )
