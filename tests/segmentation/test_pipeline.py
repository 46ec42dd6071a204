from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, worker_init_fn
from mmengine.registry import MODELS, TRANSFORMS
from torch.utils.data import DataLoader, Dataset

from visionattn.data.randomness import sample_seed
from visionattn.segmentation.pipeline import Albumentations, LoadImage, LoadLabels

# Every kind of change of place that a config may ask for, each made certain and strong.
SPATIAL = [
    {"type": "RandomScale", "scale_limit": (-0.5, 1.0), "p": 1.0},
    {"type": "RandomCrop", "height": 29, "width": 35, "pad_if_needed": True},
    {"type": "RandomCrop", "height": 80, "width": 90, "pad_if_needed": True},
    {"type": "CategoryCrop", "crop_size": (29, 35), "cat_max_ratio": 0.75},
    {"type": "ScaledCrop", "scale": (100, 70), "crop_size": (64, 64), "cat_max_ratio": 0.75},
    {"type": "HorizontalFlip", "p": 1.0},
    {"type": "Resize", "height": 31, "width": 67},
    {"type": "Rotate", "limit": (30, 40), "p": 1.0},
    {"type": "Affine", "shear": (-20, 20), "scale": (0.5, 1.5), "p": 1.0},
    {"type": "ElasticTransform", "alpha": 30, "sigma": 4, "p": 1.0},
    {"type": "Perspective", "scale": (0.1, 0.2), "p": 1.0},
    {"type": "PadIfNeeded", "min_height": 64, "min_width": 80, "p": 1.0},
    {"type": "OneOf", "transforms": [{"type": "VerticalFlip", "p": 1.0}, {"type": "Transpose", "p": 1.0}], "p": 1.0},
]
COLOUR = {"type": "ColorJitter", "brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.1, "p": 1.0}


def sample(height=41, width=57, classes=5, seed=0):
    """An image whose colour tells the class, so that image and labels can be compared after any change of place."""
    labels = np.random.default_rng(seed).integers(0, classes, (height // 16 + 1, width // 16 + 1)).astype(np.uint8)
    labels = labels.repeat(16, 0).repeat(16, 1)[:height, :width].copy()
    image = (labels * 50)[..., None].repeat(3, axis=2)
    return {"img": image, "gt_seg_map": labels, "img_shape": labels.shape}


@pytest.mark.parametrize("transform", SPATIAL, ids=lambda cfg: cfg["type"])
def test_labels_stay_labels_and_lie_on_their_pixels(transform):
    augment = Albumentations([transform])
    padded = 0
    for seed in range(10):
        np.random.seed(seed)
        results = augment(sample(seed=seed))
        labels, image = results["gt_seg_map"], results["img"]
        assert labels.dtype == np.uint8
        assert image.shape[:2] == labels.shape == results["img_shape"]
        assert set(np.unique(labels)) <= {0, 1, 2, 3, 4, 255}
        # Away from borders, where the image is blended, colour and label say the same.
        flat = cv2.erode(image[..., 0], np.ones((5, 5))) == cv2.dilate(image[..., 0], np.ones((5, 5)))
        inside = flat & (cv2.erode((labels != 255).astype(np.uint8), np.ones((5, 5))) > 0)
        assert inside.sum() > 20
        np.testing.assert_array_equal((labels * 50)[inside], image[..., 0][inside])
        padded += (labels == 255).sum()
    pads = transform["type"] in ("Rotate", "Affine", "ElasticTransform", "PadIfNeeded") or transform.get("height") == 80
    assert (padded > 0) == pads


def test_padding_of_ones_own_stays():
    results = Albumentations([{"type": "PadIfNeeded", "min_height": 64, "min_width": 64, "fill_mask": 3}])(sample())
    assert 255 not in results["gt_seg_map"]


def test_batch_of_crops_is_filled_up_with_what_loss_and_metric_ignore():
    """Images smaller than the crop, in a batch with others: mmseg's preprocessor pads labels with 255."""
    crop = {"type": "ScaledCrop", "scale": (60, 48), "crop_size": (64, 80), "cat_max_ratio": 0.75}
    pipeline = Compose([Albumentations([crop]), {"type": "mmseg.PackSegInputs"}])
    np.random.seed(3)
    samples = [pipeline(sample(seed=seed)) for seed in range(6)]
    sizes = [tuple(item["inputs"].shape[1:]) for item in samples]
    assert len(set(sizes)) > 3
    preprocessor = MODELS.build({"type": "mmseg.SegDataPreProcessor", "size": (64, 80), "seg_pad_val": 255})
    batch = preprocessor({key: [item[key] for item in samples] for key in ("inputs", "data_samples")}, training=True)
    assert batch["inputs"].shape == (6, 3, 64, 80)
    for (height, width), packed in zip(sizes, batch["data_samples"], strict=True):
        labels = packed.gt_sem_seg.data[0]
        assert labels.shape == (64, 80)
        assert (labels[:height, :width] < 5).all()
        assert (labels[height:] == 255).all()
        assert (labels[:, width:] == 255).all()


def test_dropout_leaves_the_labels_alone():
    before = sample()["gt_seg_map"]
    dropout = {"type": "CoarseDropout", "num_holes_range": (9, 9), "p": 1.0}
    np.testing.assert_array_equal(Albumentations([dropout])(sample())["gt_seg_map"], before)


def test_colour_changes_the_image_alone():
    results = Albumentations([COLOUR])(sample())
    np.testing.assert_array_equal(results["gt_seg_map"], sample()["gt_seg_map"])
    assert (results["img"] != sample()["img"]).any()


def test_colours_stay_in_their_order():
    image = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    results = Albumentations([{"type": "HorizontalFlip", "p": 1.0}])({"img": image})
    np.testing.assert_array_equal(results["img"], image[:, ::-1])
    packed = Compose([{"type": "mmseg.PackSegInputs"}])(results)["inputs"]
    np.testing.assert_array_equal(packed, image[:, ::-1].transpose(2, 0, 1))
    assert packed.is_contiguous()


def test_image_without_labels():
    results = Albumentations([{"type": "Resize", "height": 20, "width": 30}])({"img": sample()["img"]})
    assert results["img"].shape == (20, 30, 3)
    assert "gt_seg_map" not in results


def test_unknown_transform_is_answered_with_near_names():
    with pytest.raises(KeyError, match=r"has no transform 'HorizontalFlipp'; did you mean HorizontalFlip"):
        Albumentations([{"type": "HorizontalFlipp"}])
    with pytest.raises(KeyError, match=r"has no transform 'Crop2D'; did you mean"):
        Albumentations([{"type": "OneOf", "transforms": [{"type": "Crop2D"}]}])
    with pytest.raises(KeyError, match="an albumentations transform is written dict"):
        Albumentations([{"p": 0.5}])


def test_wrong_options_are_one_line():
    with pytest.raises(TypeError, match="RandomCrop has no option 'hight'; it has height, width"):
        Albumentations([{"type": "RandomCrop", "hight": 5, "width": 5}])
    with pytest.raises(ValueError, match=r"RandomCrop refuses its options: .*height") as error:
        Albumentations([{"type": "RandomCrop", "height": -5, "width": 5}])
    assert "\n" not in str(error.value)


def test_what_is_no_image_afterwards_is_refused():
    with pytest.raises(ValueError, match=r"made an image of shape \[41, 57\].*expected \[H, W, 3\]"):
        Albumentations([{"type": "ToGray", "num_output_channels": 1, "p": 1.0}])(sample())


def test_two_transforms_do_not_share_their_numbers():
    """albumentations' own set_random_seed gives each transform the same stream: both flip, or none does."""
    both = Albumentations([{"type": "HorizontalFlip", "p": 0.5}, {"type": "VerticalFlip", "p": 0.5}])
    corner = np.zeros((2, 2, 3), np.uint8)
    corner[0, 0] = 1
    np.random.seed(0)
    seen = {tuple(np.argwhere(both({"img": corner})["img"][..., 0])[0]) for _ in range(64)}
    assert len(seen) == 4


class Augmented(Dataset):
    def __init__(self):
        crop = {"type": "RandomCrop", "height": 3, "width": 3}
        self.augment = Albumentations([crop, {"type": "HorizontalFlip", "p": 0.5}])

    def __len__(self):
        return 8

    def __getitem__(self, index):
        image = np.arange(40 * 50, dtype=np.uint16).view(np.uint8).reshape(40, 50, 2)  # each pixel is its number
        image = np.concatenate([image, image[..., :1]], axis=2)
        return torch.from_numpy(self.augment({"img": image})["img"].astype(np.int64))


def epochs(seed, workers, rank=0, number=2):
    """[number of epochs, 8 samples, ...]; worker w of 2 makes the samples with index % 2 == w."""
    torch.manual_seed(seed)
    np.random.seed(seed)

    def init(worker):
        worker_init_fn(worker, num_workers=workers, rank=rank, seed=seed)

    loader = DataLoader(Augmented(), batch_size=None, num_workers=workers, worker_init_fn=init if workers else None)
    return torch.stack([torch.stack(list(loader)) for _ in range(number)])


@pytest.mark.parametrize("workers", [0, 2])
def test_randomness_is_the_seed_s(workers):
    first = epochs(1, workers)
    assert torch.equal(first, epochs(1, workers))
    assert not torch.equal(first, epochs(2, workers))
    draws = {tuple(crop.flatten().tolist()) for crop in first.flatten(0, 1)}
    assert len(draws) >= 15  # of 16: workers differ from one another, and epochs from one another


def test_ranks_differ():
    assert not torch.equal(epochs(1, 2, rank=0), epochs(1, 2, rank=1))


def test_ranks_differ_without_workers(monkeypatch):
    def seeds():
        np.random.seed(1)
        return [sample_seed() for _ in range(3)]

    alone = seeds()
    assert alone == seeds()
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    assert not set(seeds()) & set(alone)


def test_loading_checks_sizes_and_needs_the_number_of_classes(folder):
    results = {"img_path": str(folder / "images/a.jpg"), "seg_map_path": str(folder / "masks/a.png")}
    loaded = LoadLabels(num_classes=3)(LoadImage()(dict(results)))
    assert loaded["ori_shape"] == loaded["img_shape"] == (20, 31)
    assert loaded["seg_fields"] == ["gt_seg_map"]
    with pytest.raises(ValueError, match="LoadLabels does not know how many classes"):
        LoadLabels()(LoadImage()(dict(results)))
    cv2.imwrite(results["seg_map_path"], np.zeros((20, 30), np.uint8))
    with pytest.raises(ValueError, match=r"a\.jpg is 20 x 31 .* mask .*a\.png is 20 x 30"):
        LoadLabels(num_classes=3)(LoadImage()(dict(results)))
    image_only = LoadLabels()(LoadImage()({"img_path": results["img_path"]}))
    assert "gt_seg_map" not in image_only


def test_labels_loaded_after_resizing_keep_the_size_of_the_file(folder):
    results = {
        "img_path": str(folder / "images/a.jpg"),
        "seg_map_path": str(folder / "masks/a.png"),
        "num_classes": 3,
    }
    for step in (LoadImage(), Albumentations([{"type": "Resize", "height": 40, "width": 62}]), LoadLabels()):
        results = step(results)
    assert results["img"].shape == (40, 62, 3)
    assert results["img_shape"] == (40, 62)
    assert results["gt_seg_map"].shape == results["ori_shape"] == (20, 31)


def test_image_that_is_none_is_named(folder):
    (folder / "images/a.jpg").write_bytes(b"\xff\xd8 no jpeg")
    with pytest.raises(ValueError, match=r"a\.jpg cannot be decoded as an image"):
        LoadImage()({"img_path": str(folder / "images/a.jpg")})
    with pytest.raises(FileNotFoundError, match=r"no image .*gone\.jpg"):
        LoadImage()({"img_path": str(folder / "images/gone.jpg")})


def test_registry_finds_the_transforms():
    for name in ("LoadImage", "LoadLabels"):
        TRANSFORMS.build({"type": f"visionattn.{name}"})
    TRANSFORMS.build({"type": "visionattn.Albumentations", "transforms": []})


def test_importing_albumentations_asks_no_server():
    code = (
        "import os; from visionattn.data.augmentation import build_augmentation; build_augmentation([], fill_mask=255);"
        "import albumentations; print(os.environ['NO_ALBUMENTATIONS_UPDATE'], albumentations.__version__)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["1", "2.0.8"]
