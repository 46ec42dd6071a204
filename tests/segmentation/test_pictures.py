from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from visionattn.data.colour_baseline import colour_classifier_miou
from visionattn.registry import HOOKS
from visionattn.segmentation.colour_baseline import ColourBaselineHook
from visionattn.segmentation.datasets import ImageMaskFolder
from visionattn.segmentation.made_up import MadeUpADE20K
from visionattn.visualization.panels import segmentation_panel

CLASSES = ("sky", "road", "tree")
PALETTE = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def runner_of(dataset, work_dir, train=None):
    loader = SimpleNamespace(dataset=dataset)
    told = []
    return SimpleNamespace(
        val_dataloader=loader,
        test_dataloader=loader,
        train_dataloader=SimpleNamespace(dataset=train),
        work_dir=str(work_dir),
        logger=SimpleNamespace(info=told.append),
        told=told,
    )


def sample_of(pair, prediction):
    image, mask = pair
    truth = cv2.imread(mask, cv2.IMREAD_UNCHANGED).astype(np.int64)
    sample = SegDataSample(metainfo={"img_path": image})
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(truth)[None])
    sample.pred_sem_seg = PixelData(data=torch.full((1, *truth.shape), prediction))
    return sample


@pytest.mark.parametrize("part", ["val", "test"])
def test_pictures_are_the_panels_of_evenly_spaced_images(folder, tmp_path, part):
    dataset = ImageMaskFolder(str(folder), classes=CLASSES, palette=PALETTE)
    runner = runner_of(dataset, tmp_path / "run")
    hook = HOOKS.build({"type": "visionattn.PictureHook", "number": 2})
    for prediction in (0, 1):  # the second evaluation replaces the pictures of the first
        getattr(hook, f"before_{part}_epoch")(runner)
        for index, pair in enumerate(dataset.pairs()):
            getattr(hook, f"after_{part}_iter")(runner, index, None, [sample_of(pair, prediction)])
    files = sorted((tmp_path / "run" / "pictures").iterdir())
    assert [file.name for file in files] == ["a.png", "d.png"]
    for file, pair in zip(files, (dataset.pairs()[0], dataset.pairs()[3]), strict=True):
        image = cv2.imread(pair[0])[..., ::-1]
        truth = cv2.imread(pair[1], cv2.IMREAD_UNCHANGED)
        panel = segmentation_panel(image, truth, np.ones_like(truth), CLASSES, PALETTE, 255)
        np.testing.assert_array_equal(cv2.imread(str(file))[..., ::-1], panel)


def test_no_pictures_and_more_than_there_are(folder, tmp_path):
    dataset = ImageMaskFolder(str(folder), classes=CLASSES, palette=PALETTE)
    for number, written in ((0, 0), (99, 4)):
        runner = runner_of(dataset, tmp_path / str(number))
        hook = HOOKS.build({"type": "visionattn.PictureHook", "number": number})
        hook.before_val_epoch(runner)
        hook.after_val_iter(runner, 0, None, [sample_of(pair, 2) for pair in dataset.pairs()])
        assert len(list((tmp_path / str(number)).rglob("*.png"))) == written
    with pytest.raises(ValueError, match="number=-1 of pictures must be 0 or more"):
        HOOKS.build({"type": "visionattn.PictureHook", "number": -1})


def test_colour_baseline_reads_labels_as_the_network_does(tree):
    train, val = MadeUpADE20K(str(tree), "training"), MadeUpADE20K(str(tree), "validation")
    runner = runner_of(val, "unused", train)
    hook = HOOKS.build({"type": "visionattn.ColourBaselineHook", "images": 3})
    hook.after_val_epoch(runner, {"mIoU": 87.654})
    hook.after_train(runner)

    def arrays(pairs):
        for image, mask in pairs:
            raw = cv2.imread(mask, cv2.IMREAD_UNCHANGED)
            yield cv2.imread(image)[..., ::-1], np.where(raw == 0, 255, raw - 1).astype(np.uint8)

    spread = [train.pairs()[i] for i in (0, 4, 7)]
    miou, _ = colour_classifier_miou(arrays(spread), arrays(val.pairs()), len(val.classes))
    assert runner.told == [f"colour classifier mIoU {miou:.4f}\nmIoU 0.8765"]
    assert 0 < miou < 0.8


def test_colour_baseline_needs_datasets_that_it_can_read():
    runner = runner_of(SimpleNamespace(), "unused", SimpleNamespace())
    with pytest.raises(TypeError, match="reads visionattn's datasets, got SimpleNamespace; take it out"):
        ColourBaselineHook().after_train(runner)
