"""Losses by pixel: cross entropy as PyTorch means it, and on the hardest pixels alone.

mmseg's cross entropy divides by ignored pixels too unless told otherwise, and fails where class weights and
`avg_non_ignore=True` meet; its OHEM gives nan, or a loss without a gradient, where nothing is left to learn from.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.registry import MODELS
from visionattn.segmentation.labels import IGNORE


class SegmentationLoss(nn.Module):
    """What mmseg's heads call: one number, 0 with a gradient of zeros where every pixel is ignored.

    Computed in float32 or better. The labels are looked at first: a number outside the classes is an error that names
    it, not a wrong index on the GPU.

    Args:
        loss_weight: factor of the loss.
        loss_name: its name in the log, behind the head's: "loss_..."; mmseg adds up those so named.
    """

    def __init__(self, loss_weight: float, loss_name: str) -> None:
        super().__init__()
        if not loss_name.startswith("loss_"):
            raise ValueError(f'loss_name={loss_name!r} must begin with "loss_": mmseg adds up what is named so')
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, ignore_index: int = IGNORE
    ) -> Tensor:
        """The weighted loss.

        Args:
            logits: [B, C, H, W], two classes or more.
            labels: [B, H, W], integers, 0..C-1 or ignore_index.
            weight: [B, H, W], a pixel's factor, of mmseg's samplers.
        Raises:
            ValueError: another shape, or a label outside the classes.
        """
        check_labels(logits, labels, ignore_index)
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        return self.loss_weight * self.loss(logits, labels.long(), weight, ignore_index)

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        """The loss of checked arguments."""


@MODELS.register_module()
class CrossEntropyLoss(SegmentationLoss):
    """torch.nn.functional.cross_entropy(logits, labels, class_weight, ignore_index), also where every pixel is ignored.

    So the mean is over the pixels that are not ignored, each as heavy as its class (and its sampler) says.

    Args:
        class_weight: a factor for each class, 0 or more.
        loss_weight, loss_name: as of `SegmentationLoss`.
    """

    def __init__(
        self, class_weight: Sequence[float] | None = None, loss_weight: float = 1.0, loss_name: str = "loss_ce"
    ) -> None:
        super().__init__(loss_weight, loss_name)
        self.class_weight: Tensor | None
        self.register_buffer("class_weight", _class_weights(class_weight), persistent=False)

    def loss(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        return weighted_cross_entropy(logits, labels, self.class_weight, weight, ignore_index)


@MODELS.register_module()
class OhemCrossEntropyLoss(SegmentationLoss):
    """Cross entropy of the hardest pixels: online hard example mining (Shrivastava et al. 2016), as in mmseg's sampler.

    A pixel is hard if its class has a probability below `thresh`; if they are fewer than `min_kept` an image, so many
    of the batch with the lowest probability. The mean is over the hard pixels (mmseg's sampler divides by all).

    Args:
        thresh: probability, 0 to 1; 0 keeps `min_kept` alone.
        min_kept: pixels an image that are kept at least.
        class_weight, loss_weight, loss_name: as of `CrossEntropyLoss`.
    """

    def __init__(
        self,
        thresh: float = 0.7,
        min_kept: int = 100_000,
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
        loss_name: str = "loss_ohem",
    ) -> None:
        super().__init__(loss_weight, loss_name)
        if not 0 <= thresh <= 1:
            raise ValueError(f"thresh={thresh} is a probability: 0 to 1")
        if min_kept < 1:
            raise ValueError(f"min_kept={min_kept} must be 1 or more")
        self.thresh, self.min_kept = thresh, min_kept
        self.class_weight: Tensor | None
        self.register_buffer("class_weight", _class_weights(class_weight), persistent=False)

    def loss(self, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        hard = self.hard_pixels(logits.detach(), labels, ignore_index).to(logits.dtype)
        return weighted_cross_entropy(
            logits, labels, self.class_weight, hard if weight is None else hard * weight, ignore_index
        )

    def hard_pixels(self, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        """[B, H, W] bool."""
        kept = labels != ignore_index
        surprise = F.cross_entropy(logits, labels, reduction="none", ignore_index=ignore_index)  # -log probability
        surprise = surprise.masked_fill(~kept, -math.inf)
        number = min(self.min_kept * len(labels), surprise.numel())
        least = surprise.flatten().topk(number).values[-1]
        easy = -math.log(self.thresh) if self.thresh else math.inf
        return kept & ((surprise > easy) | (surprise >= least))


def weighted_cross_entropy(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, weight: Tensor | None, ignore_index: int
) -> Tensor:
    """The mean of the pixels' cross entropy, weighted by class and by pixel; 0 where all weights are 0.

    Args:
        logits: [B, C, H, W].
        labels: [B, H, W] int64, checked.
        class_weight: [C] or None.
        weight: [B, H, W] or None.
    """
    if class_weight is not None:
        class_weight = class_weight.to(logits)
        if len(class_weight) != logits.shape[1]:
            raise ValueError(f"class_weight has {len(class_weight)} numbers, the logits {logits.shape[1]} classes")
    kept = labels != ignore_index
    # [B, H, W]: how much each pixel counts
    share = kept if class_weight is None else class_weight[labels.masked_fill(~kept, 0)] * kept
    if weight is None:
        total = F.cross_entropy(logits, labels, class_weight, reduction="sum", ignore_index=ignore_index)
    else:
        if weight.shape != labels.shape:
            raise ValueError(f"the pixels' weights are {list(weight.shape)}, the labels {list(labels.shape)}")
        share = share * weight
        losses = F.cross_entropy(logits, labels, class_weight, reduction="none", ignore_index=ignore_index)
        total = (losses * weight).sum()
    shares = share.sum()
    return total / shares.where(shares > 0, 1)


def check_labels(logits: Tensor, labels: Tensor, ignore_index: int) -> None:
    """Raises ValueError unless logits are [B, C, H, W] and labels [B, H, W] of 0..C-1 or ignore_index."""
    if logits.dim() != 4 or labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            f"expected logits [B, C, H, W] and labels [B, H, W], got {list(logits.shape)} and {list(labels.shape)}"
        )
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError(
            "one channel of logits: these losses compare two classes or more; give the head num_classes=2 and leave "
            'out_channels out, or use dict(type="mmseg.CrossEntropyLoss", use_sigmoid=True)'
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are integers, got {labels.dtype}")
    outside = ((labels < 0) | (labels >= classes)) & (labels != ignore_index)
    if outside.any():
        image, row, column = outside.nonzero()[0].tolist()
        raise ValueError(
            f"image {image} of the batch holds label {labels[image, row, column].item()} at row {row}, column "
            f"{column}; allowed are 0..{classes - 1} or ignored {ignore_index}: the head and the dataset must agree on "
            "the classes"
        )


def _class_weights(weights: Sequence[float] | None) -> Tensor | None:
    if weights is None:
        return None
    if any(not 0 <= weight < math.inf for weight in weights):
        raise ValueError(f"class_weight={list(weights)}: each is 0 or more")
    return torch.tensor(list(weights), dtype=torch.float64)
