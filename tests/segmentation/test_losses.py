from __future__ import annotations

import math

import mmseg.models
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from visionattn.registry import MODELS
from visionattn.segmentation.losses import CrossEntropyLoss, OhemCrossEntropyLoss
from visionattn.segmentation.losses_overlap import DiceLoss, LovaszLoss

LOSSES = (
    {"type": "visionattn.CrossEntropyLoss"},
    {"type": "visionattn.CrossEntropyLoss", "class_weight": [1.0, 0.5, 2.0, 0.0]},
    {"type": "visionattn.OhemCrossEntropyLoss", "min_kept": 20},
    {"type": "visionattn.DiceLoss"},
    {"type": "visionattn.LovaszLoss"},
)


def name_of(loss):
    return loss["type"].partition(".")[2] + ("-weights" if "class_weight" in loss else "")


all_losses = pytest.mark.parametrize("config", LOSSES, ids=name_of)


def pair(seed=0, shape=(2, 4, 5, 7), ignored=0.3, dtype=torch.float64):
    """Logits that need a gradient, and labels, of which the share `ignored` is 255."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=dtype)
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = 255
    return logits.requires_grad_(), labels


def pixels(logits, labels):
    """(logits [C], label) of each pixel that is not ignored, as lists."""
    rows = logits.detach().movedim(1, -1).flatten(0, 2).tolist()
    return [(row, label) for row, label in zip(rows, labels.flatten().tolist(), strict=True) if label != 255]


def probabilities(row):
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 0.25]])
@pytest.mark.parametrize("ignore_index", [255, -100, 3])
def test_cross_entropy_is_pytorchs(weights, ignore_index):
    logits, labels = pair()
    labels[labels == 255] = ignore_index
    ours = CrossEntropyLoss(class_weight=weights, loss_weight=0.4)(logits, labels, ignore_index=ignore_index)
    class_weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    theirs = 0.4 * F.cross_entropy(logits, labels, class_weight, ignore_index=ignore_index)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


def test_mmsegs_cannot_do_this():
    """Why there is one of ours: the two options together index pixels by a mask of another shape."""
    logits, labels = pair()
    theirs = mmseg.models.losses.CrossEntropyLoss(class_weight=[1.0, 0.5, 2.0, 0.25], avg_non_ignore=True)
    with pytest.raises(IndexError):
        theirs(logits, labels, ignore_index=255)


def test_pixel_weights_of_a_sampler():
    """The mean over what the sampler keeps: the same as ignoring the rest."""
    logits, labels = pair()
    weight = (torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.5).double()
    for weights in (None, [1.0, 0.5, 2.0, 0.25]):
        loss = CrossEntropyLoss(class_weight=weights)
        expected = loss(logits, labels.masked_fill(weight == 0, 255))
        torch.testing.assert_close(loss(logits, labels, weight), expected)


@pytest.mark.parametrize("thresh", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("min_kept", [1, 9, 1000])
@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 0.25]])
def test_ohem_is_the_mean_over_the_hardest(thresh, min_kept, weights):
    logits, labels = pair(1)
    loss = OhemCrossEntropyLoss(thresh=thresh, min_kept=min_kept, class_weight=weights)(logits, labels)
    found = sorted((probabilities(row)[label], label) for row, label in pixels(logits, labels))
    kept = [entry for rank, entry in enumerate(found) if entry[0] < thresh or rank < 2 * min_kept]  # two images
    factor = weights or [1.0] * 4
    expected = sum(-math.log(p) * factor[c] for p, c in kept) / sum(factor[c] for _, c in kept)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_ohem_of_nothing_hard_keeps_a_gradient():
    """Every pixel above thresh and fewer than min_kept: mmseg's loss of this name is nan for a single pixel."""
    labels = torch.full((1, 3, 3), 255)
    labels[0, 1, 1] = 2
    logits = (10.0 * F.one_hot(labels.clamp(max=3), 4).movedim(-1, 1)).requires_grad_()
    loss = OhemCrossEntropyLoss()(logits, labels)
    assert loss.item() == pytest.approx(math.log(1 + 3 * math.exp(-10)), rel=1e-3)
    assert mmseg.models.losses.OhemCrossEntropy()(logits, labels).isnan()


def test_dice_by_counting():
    logits, labels = pair(2, (2, 5, 4, 6))
    labels[labels == 4] = 255  # a class that is never true counts in no mean
    overlap, predicted, true = ([0.0] * 5 for _ in range(3))
    for row, label in pixels(logits, labels):
        for c, p in enumerate(probabilities(row)):
            predicted[c] += p
        overlap[label] += probabilities(row)[label]
        true[label] += 1
    dice = [2 * overlap[c] / (predicted[c] + true[c]) for c in range(4)]
    assert DiceLoss()(logits, labels).item() == pytest.approx(1 - sum(dice) / 4, rel=1e-12)


def test_dice_of_hard_predictions_is_the_metrics():
    from visionattn.segmentation.confusion import ClassScores, confusion_matrix

    logits, labels = pair(3)
    matrix = sum(confusion_matrix(p, t, 4, 255) for p, t in zip(logits.argmax(1), labels, strict=True))
    assert DiceLoss()(logits * 1e4, labels).item() == pytest.approx(1 - ClassScores.of(matrix.numpy()).dice.mean())


def test_lovasz_equals_mmsegs():
    logits, labels = pair(4, dtype=torch.float32)
    theirs = mmseg.models.losses.LovaszLoss(reduction="none")(logits, labels, ignore_index=255)
    torch.testing.assert_close(LovaszLoss()(logits, labels), theirs)
    nothing = mmseg.models.losses.LovaszLoss(reduction="none")(logits, labels.fill_(255), ignore_index=255)
    assert nothing.mean().isnan()  # as mmengine takes it; why there is one of ours


def test_lovasz_is_the_extension_of_the_jaccard_loss():
    """By definition: the errors in falling order, each times what its pixel adds to the loss of the set of those."""
    logits, labels = pair(4)
    found = pixels(logits, labels)
    losses = []
    for c in sorted({label for _, label in found}):
        errors = [(abs((label == c) - probabilities(row)[c]), index) for index, (row, label) in enumerate(found)]
        true = {index for index, (_, label) in enumerate(found) if label == c}

        def jaccard(wrong, true=true):
            return 1 - len(true - wrong) / len(true | wrong)

        wrong, value = set(), 0.0
        for error, index in sorted(errors, reverse=True):
            value += error * (jaccard(wrong | {index}) - jaccard(wrong))
            wrong.add(index)
        losses.append(value)
    assert LovaszLoss()(logits, labels).item() == pytest.approx(sum(losses) / len(losses), rel=1e-9)


@all_losses
def test_gradient(config):
    loss = MODELS.build(config)
    logits, labels = pair(5, (2, 4, 3, 3))
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), (logits,))


@all_losses
def test_ignored_pixels_count_nowhere(config):
    """Whatever is predicted there: the loss stays, and the gradient there is zero."""
    loss = MODELS.build(config)
    logits, labels = pair(6)
    before = loss(logits, labels)
    before.backward()
    ignored = (labels == 255)[:, None]
    assert not logits.grad.masked_select(ignored).any()
    assert logits.grad.masked_select(~ignored).any()
    changed = torch.where(ignored, -3 * logits.detach(), logits.detach())
    torch.testing.assert_close(loss(changed, labels), before.detach())


@all_losses
@pytest.mark.parametrize("valid", [0, 1])
def test_none_or_one_pixel_that_counts(config, valid):
    loss = MODELS.build(config)
    logits, labels = pair(7)
    labels.fill_(255)
    labels.view(-1)[:valid] = 1
    value = loss(logits, labels)
    value.backward()
    assert value.dim() == 0
    assert value.isfinite()
    assert (value.item() == 0) == (valid == 0)
    assert logits.grad.isfinite().all()
    assert (logits.grad.count_nonzero() == 0) == (valid == 0)


@all_losses
@pytest.mark.parametrize("auxiliary", [False, True])
def test_all_ignored_batch_in_a_segmentor(config, auxiliary):
    """As mmengine adds the losses up: 0, and a gradient of zeros at every parameter, so that DDP does not wait."""
    head = {
        "type": "mmseg.FCNHead", "in_channels": 8, "in_index": 0, "channels": 4, "num_convs": 1, "num_classes": 4,
        "loss_decode": [{**config, "loss_name": "loss_a"}, {**config, "loss_weight": 0.5, "loss_name": "loss_b"}],
    }  # fmt: skip
    model = MODELS.build(
        {
            "type": "mmseg.EncoderDecoder",
            "backbone": {
                "type": "visionattn.TimmBackbone", "model_name": "resnet18", "out_indices": (1,),
                "timm_options": {"channels": (8, 8, 8, 8), "stem_width": 8},
            },
            "decode_head": head,
            "auxiliary_head": head if auxiliary else None,
        }
    )  # fmt: skip
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.full((1, 32, 48), 255))) for _ in range(2)]
    total, log = model.parse_losses(model.loss(torch.randn(2, 3, 32, 48), samples))
    assert total.item() == 0
    assert all(value.isfinite() for value in log.values())
    total.backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@all_losses
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(config, dtype):
    loss = MODELS.build(config)
    logits, labels = pair(8, dtype=torch.float32)
    half = logits.detach().to(dtype).requires_grad_()
    value = loss(half, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(half.detach().float(), labels))
    value.backward()
    assert half.grad.dtype == dtype


@all_losses
@pytest.mark.parametrize("value", [4, 254, -1])
def test_label_outside_the_classes_is_named(config, value):
    logits, labels = pair(9)
    labels[1, 2, 6] = value
    message = rf"^image 1 of the batch holds label {value} at row 2, column 6; allowed are 0\.\.3 or ignored 255: .*"
    with pytest.raises(ValueError, match=message):
        MODELS.build(config)(logits, labels)


@all_losses
def test_other_shapes_are_named(config):
    logits, labels = pair(10)
    loss = MODELS.build(config)
    with pytest.raises(ValueError, match=r"expected logits \[B, C, H, W\] and labels \[B, H, W\], got .* \[2, 4, 7\]"):
        loss(logits, labels[:, :4])
    with pytest.raises(ValueError, match=r"one channel of logits: .* num_classes=2"):
        loss(logits[:, :1], labels)
    with pytest.raises(ValueError, match=r"labels are integers, got torch\.float32"):
        loss(logits, labels.float())


def test_options_that_make_no_sense_are_named():
    logits, labels = pair(11)
    with pytest.raises(ValueError, match="class_weight has 2 numbers, the logits 4 classes"):
        CrossEntropyLoss(class_weight=[1, 2])(logits, labels)
    with pytest.raises(ValueError, match=r"class_weight=\[1, -2\]: each is 0 or more"):
        CrossEntropyLoss(class_weight=[1, -2])
    with pytest.raises(ValueError, match=r"loss_name='dice' must begin with"):
        DiceLoss(loss_name="dice")
    with pytest.raises(ValueError, match="thresh=70 is a probability"):
        OhemCrossEntropyLoss(thresh=70)
    with pytest.raises(ValueError, match="min_kept=0 must be 1 or more"):
        OhemCrossEntropyLoss(min_kept=0)
    with pytest.raises(ValueError, match="DiceLoss compares areas and takes no weights of pixels"):
        DiceLoss()(logits, labels, torch.ones(labels.shape))
    with pytest.raises(ValueError, match=r"weights are \[2, 5\], the labels \[2, 5, 7\]"):
        CrossEntropyLoss()(logits, labels, torch.ones(2, 5))


def test_class_weights_are_no_part_of_a_checkpoint():
    """They belong to the config; a checkpoint of mmseg's loss has none."""
    assert not CrossEntropyLoss(class_weight=[1, 2]).state_dict()
