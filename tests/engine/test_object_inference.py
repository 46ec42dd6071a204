"""A trained detector on images: what the model itself finds, whatever way the images come, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as codec
from tiny_detection import detector_config

import visionattn
from visionattn.cli.main import main
from visionattn.detection import DetectionSample
from visionattn.engine.config import load_config
from visionattn.engine.object_inference import ObjectPredictor
from visionattn.registry import MODELS

SIZES = ((60, 84), (84, 60))
PIPELINE = [
    {"type": "visionattn.DetectionAugment", "transforms": [{"type": "FittedResize", "scales": [(128, 96)]}]},
    {"type": "visionattn.PackDetection"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, two images in two folders under one name, and a checkpoint that knows its classes."""
    folder = tmp_path_factory.mktemp("objects")
    model = detector_config("mask_rcnn")
    model["head"] = {**model["head"], "box": {"width": 32, "min_score": 0.3, "detections": 7}}
    loader = {"dataset": {"type": "visionattn.CocoDetection", "pipeline": PIPELINE}}
    (folder / "finder.py").write_text(f"default_scope = 'mmengine'\nmodel = {model!r}\ntest_dataloader = {loader!r}\n")
    torch.manual_seed(0)
    state = MODELS.build(model).state_dict()
    meta = {"dataset_meta": {"classes": ("cat", "dog", "newt")}}
    torch.save({"state_dict": state, "meta": meta}, folder / "weights.pth")
    rng = np.random.default_rng(0)
    for name, size in zip(("a", "b"), SIZES, strict=True):
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / "one.png"), rng.integers(0, 256, (*size, 3), np.uint8))
    return folder


def images(folder: Path) -> list[Path]:
    return [folder / "a" / "one.png", folder / "b" / "one.png"]


def test_what_is_found_is_in_pixels_of_the_image(folder: Path) -> None:
    found = visionattn.predict(folder / "finder.py", folder / "weights.pth", images(folder), device="cpu")
    model = MODELS.build(load_config(folder / "finder.py").model).eval()
    model.load_state_dict(torch.load(folder / "weights.pth")["state_dict"])
    for path, size, sample in zip(images(folder), SIZES, found, strict=True):
        assert len(sample.predicted) == 7
        assert sample.predicted.masks.shape == (7, *size)
        assert sample.predicted.boxes[:, 2::2].max() <= size[1]
        assert sample.file == str(path)
        factor = min(128 / max(size), 96 / min(size))
        large = [round(side * factor) for side in size]
        image = cv2.resize(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), large[::-1])
        by_hand = DetectionSample(metainfo={"ori_shape": size})
        data = {"inputs": [torch.from_numpy(image.transpose(2, 0, 1).copy())], "data_samples": [by_hand]}
        with torch.no_grad():
            (expected,) = model.test_step(data)
        torch.testing.assert_close(sample.predicted.boxes, expected.predicted.boxes)
        assert torch.equal(sample.predicted.labels, expected.predicted.labels)


def test_arrays_and_folders_are_the_same_images(folder: Path) -> None:
    config, weights = folder / "finder.py", folder / "weights.pth"
    expected = visionattn.predict(config, weights, images(folder), device="cpu")
    arrays = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in images(folder)]
    for inputs in (folder, arrays, str(folder / "*" / "one.png")):
        for ours, theirs in zip(visionattn.predict(config, weights, inputs, device="cpu"), expected, strict=True):
            assert torch.equal(ours.predicted.boxes, theirs.predicted.boxes)


def test_pictures_and_a_json(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = [str(folder / "finder.py"), str(folder / "weights.pth"), *map(str, images(folder))]
    assert main(["predict", *arguments, "--out", str(out), "--device", "cpu"]) == 0
    names = ["one.png", "one_2.png", "objects.json"]
    assert capsys.readouterr().out.splitlines() == [str(out / name) for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    written = json.loads((out / "objects.json").read_text())
    found = visionattn.predict(folder / "finder.py", folder / "weights.pth", images(folder), device="cpu")
    for one, path, size, sample in zip(written, images(folder), SIZES, found, strict=True):
        assert (one["file"], one["height"], one["width"]) == (str(path), *size)
        assert (out / one["picture"]).is_file()
        assert len(one["objects"]) == 7
        for number, thing in enumerate(one["objects"]):
            left, top, right, bottom = sample.predicted.boxes[number].tolist()
            assert thing["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=1e-4)
            assert thing["label"] == int(sample.predicted.labels[number])
            assert thing["name"] == ("cat", "dog", "newt")[thing["label"]]
            assert thing["score"] == float(sample.predicted.scores[number])
            np.testing.assert_array_equal(codec.decode(thing["segmentation"]), sample.predicted.masks[number].numpy())
        scores = [thing["score"] for thing in one["objects"]]
        assert scores == sorted(scores, reverse=True)


def test_classes_of_the_config_or_numbers(folder: Path, tmp_path: Path) -> None:
    config = load_config(folder / "finder.py")
    torch.save(torch.load(folder / "weights.pth")["state_dict"], tmp_path / "plain.pth")
    assert ObjectPredictor(config, tmp_path / "plain.pth", "cpu").classes == ("0", "1", "2")
    config.test_dataloader.dataset.classes = ["x", "y", "z"]
    assert ObjectPredictor(config, tmp_path / "plain.pth", "cpu").classes == ("x", "y", "z")
    assert ObjectPredictor(config, folder / "weights.pth", "cpu").classes == ("cat", "dog", "newt")


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    config = load_config(folder / "finder.py")
    with pytest.raises(FileNotFoundError, match="gone"):
        visionattn.predict(config, folder / "weights.pth", tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"expected an RGB array \[H, W, 3\] uint8, got float64"):
        ObjectPredictor(config, folder / "weights.pth", "cpu")(np.zeros((4, 4, 3)))
    config.test_dataloader.dataset.classes = ["x", "y"]
    torch.save(torch.load(folder / "weights.pth")["state_dict"], tmp_path / "plain.pth")
    with pytest.raises(ValueError, match="the config names 2 classes, and the head has num_classes=3"):
        ObjectPredictor(config, tmp_path / "plain.pth", "cpu")
    config.pop("test_dataloader")
    with pytest.raises(ValueError, match="the config has no test_dataloader"):
        ObjectPredictor(config, folder / "weights.pth", "cpu")
