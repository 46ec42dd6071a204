"""A stereo model on pairs of images, whatever way they come."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_stereo import SIZE, tiny_pair, write_stereo

import visionattn
from visionattn.engine.config import load_config
from visionattn.engine.inference import takes_pairs
from visionattn.engine.pair_inference import PairPredictor, expand_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_stereo(folder, 3)
    return folder


def _files(folder: Path, index: int) -> tuple[Path, Path]:
    return folder / "left" / f"{index:06d}_10.png", folder / "right" / f"{index:06d}_10.png"


def test_files_arrays_folders_and_lists_are_the_same_pairs(folder: Path) -> None:
    config, weights = folder / "red.py", folder / "weights.pth"
    arrays = [(tiny_pair(index)["left"], tiny_pair(index)["right"]) for index in range(3)]
    for inputs, number in (
        (_files(folder, 0), 1),
        (list(map(str, _files(folder, 0))), 1),
        (arrays[0], 1),
        (arrays, 3),
        ([_files(folder, index) for index in range(3)], 3),
        ((folder / "left", folder / "right"), 3),
        ([_files(folder, 0), arrays[1], (folder / "left", folder / "right")], 5),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            samples = visionattn.predict(config, weights, inputs)
        assert len(samples) == number
        for sample, index in zip(samples, (0, 1, *range(3)) if number == 5 else range(3), strict=False):
            assert sample.predicted.shape == SIZE
            np.testing.assert_array_equal(sample.predicted.numpy(), tiny_pair(index)["left"][..., 0])
    assert [sample.name for sample in samples[2:]] == [f"{index:06d}_10" for index in range(3)]
    assert samples[2].left_path == str(_files(folder, 0)[0])


def test_the_evaluations_transforms_crop_nothing(folder: Path) -> None:
    config = load_config(folder / "red.py")
    config.test_dataloader.dataset.transforms.insert(0, {"type": "StereoCenterCrop", "size": (8, 8)})
    assert visionattn.predict(config, folder / "weights.pth", _files(folder, 1))[0].predicted.shape == SIZE


def test_a_config_says_what_its_model_takes(folder: Path) -> None:
    config = load_config(folder / "red.py")
    assert takes_pairs(config)
    config.model.type = "visionattn.StereoMatcher"
    assert takes_pairs(config)
    for other in ("visionattn.PSMNet", "NoSuchModel"):
        config.model.type = other
        assert not takes_pairs(config)
    config.pop("model")
    assert not takes_pairs(config)


def test_a_swapped_pair_is_warned_of(folder: Path) -> None:
    match = PairPredictor(folder / "red.py", folder / "weights.pth", "cpu")
    left, right = _files(folder, 2)
    with pytest.warns(
        UserWarning, match=r"right/000002_10\.png and \S+left/000002_10\.png look swapped: .* left image"
    ):
        match(right, left)
    with pytest.warns(UserWarning, match="an array and an array look swapped"):
        match(tiny_pair(2)["right"], tiny_pair(2)["left"])
    assert not match.model.training


def test_names_tell_which_images_belong_together(tmp_path: Path) -> None:
    for name in ("left/b/2.png", "left/1.png", "right/b/2.jpg", "right/1.png", "left/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert expand_pairs([tmp_path / "left", tmp_path / "right"]) == [
        (tmp_path / "left" / name, tmp_path / "right" / other)
        for name, other in (("1.png", "1.png"), ("b/2.png", "b/2.jpg"))
    ]
    (tmp_path / "left" / "3.png").touch()
    (tmp_path / "left" / "4.png").touch()
    with pytest.raises(FileNotFoundError, match=r"left/3\.png and 1 more has no partner of that name in \S+right"):
        expand_pairs([tmp_path / "left", tmp_path / "right"])
    with pytest.raises(FileNotFoundError, match=r"left/3\.png and 1 more has no partner of that name in \S+right"):
        expand_pairs([tmp_path / "right", tmp_path / "left"])


def test_what_is_no_pair_is_refused(folder: Path, tmp_path: Path) -> None:
    left, right = _files(folder, 0)
    for inputs, number in ((left, 1), ([left], 1), ([left, right, left], 3)):
        with pytest.raises(ValueError, match=f"expected a left and a right image, got {number}"):
            visionattn.predict(folder / "red.py", folder / "weights.pth", inputs)
    with pytest.raises(FileNotFoundError, match=r"no image nothing\.png"):
        expand_pairs(("nothing.png", right))
    with pytest.raises(ValueError, match="one is a folder, the other an image"):
        expand_pairs((left, folder / "right"))
    with pytest.raises(FileNotFoundError, match="no image in"):
        expand_pairs((tmp_path, folder / "right"))
    match = PairPredictor(folder / "red.py", folder / "weights.pth", "cpu")
    with pytest.raises(ValueError, match=r"expected an RGB array \[H, W, 3\] uint8, got uint8 \[4, 4\]"):
        match(np.zeros((4, 4), np.uint8), left)
    assert cv2.imwrite(str(tmp_path / "small.png"), np.zeros((10, 52, 3), np.uint8))
    with pytest.raises(ValueError, match=r"000000_10\.png is 30 x 52, \S+small\.png is 10 x 52 .* have one size"):
        match(left, tmp_path / "small.png")
