"""Predictions on images are those of the model itself, whatever way the images come."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file
from tiny_segmentation import SIZE, write_segmentation

import visionattn
from visionattn.engine.config import load_config
from visionattn.engine.inference import IMAGE_SUFFIXES, Predictor, expand_inputs, predict
from visionattn.registry import MODELS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, its images, and a checkpoint of random weights."""
    folder = tmp_path_factory.mktemp("inference")
    config = load_config(write_segmentation(folder, images=3))
    torch.manual_seed(0)
    model = MODELS.build({**config.model, "_scope_": "mmseg"})
    with torch.no_grad():  # no class wins everywhere
        model.decode_head.conv_seg.weight.normal_(std=3.0)
        scores = model.eval().encode_decode(_normalised(folder / "data" / "images" / "0.png"), [{"img_shape": SIZE}])
        model.decode_head.conv_seg.bias.sub_(scores.mean((0, 2, 3)))
    torch.save(model.state_dict(), folder / "weights.pth")
    return folder


@pytest.fixture
def images(folder: Path) -> list[Path]:
    return sorted((folder / "data" / "images").iterdir())


def _labels(sample: object) -> np.ndarray:
    return sample.pred_sem_seg.data[0].numpy()  # type: ignore[attr-defined]


def _read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def _normalised(path: Path) -> torch.Tensor:
    return (torch.from_numpy(_read(path)).permute(2, 0, 1)[None].float() - 127) / 60


def test_predictions_are_the_models(folder: Path, images: list[Path]) -> None:
    samples = visionattn.predict(folder / "bands.py", folder / "weights.pth", images)
    model = MODELS.build({**load_config(folder / "bands.py").model, "_scope_": "mmseg"}).eval()
    model.load_state_dict(torch.load(folder / "weights.pth"))
    assert len(samples) == 3
    for path, sample in zip(images, samples, strict=True):
        scores = model.encode_decode(_normalised(path), [{"img_shape": SIZE}])
        expected = scores.argmax(1)[0].numpy()
        assert expected.shape == SIZE
        assert len(np.unique(expected)) > 1
        np.testing.assert_array_equal(_labels(sample), expected)
        assert sample.img_path == str(path)
        assert "seg_logits" not in sample


def test_files_arrays_folders_and_patterns_are_the_same_images(folder: Path, images: list[Path]) -> None:
    config, weights = folder / "bands.py", folder / "weights.pth"
    expected = [_labels(sample) for sample in predict(config, weights, images)]
    for inputs in (
        [_read(path) for path in images],
        images[0].parent,
        str(images[0].parent / "*.png"),
        [images[0], images[0].parent / "[12].png"],
    ):
        found = [_labels(sample) for sample in predict(config, str(weights), inputs)]
        assert len(found) == 3
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(_labels(predict(config, weights, str(images[1]))[0]), expected[1])
    np.testing.assert_array_equal(_labels(predict(config, weights, _read(images[1]))[0]), expected[1])


def test_arrays_are_rgb_for_mmcvs_loader_too(folder: Path, images: list[Path]) -> None:
    config = load_config(folder / "bands.py")
    config.model.data_preprocessor.bgr_to_rgb = True
    config.test_dataloader.dataset.pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "PackSegInputs"},
    ]
    ours = predict(folder / "bands.py", folder / "weights.pth", images[0])[0]
    for image in (images[0], _read(images[0])):
        theirs = predict(config, folder / "weights.pth", image)[0]
        np.testing.assert_array_equal(_labels(theirs), _labels(ours))


def test_the_predictor_gives_logits_and_the_datas_names(folder: Path, images: list[Path]) -> None:
    predictor = Predictor(folder / "bands.py", folder / "weights.pth", device="cpu")
    assert predictor.classes == ("dark", "middle", "bright")
    assert predictor.palette == [[0, 0, 160], [0, 160, 0], [250, 220, 60]]
    assert predictor(images[0]).seg_logits.data.shape == (3, *SIZE)
    assert not predictor.model.training


def test_the_checkpoints_names_come_before_the_configs(folder: Path, tmp_path: Path) -> None:
    state = torch.load(folder / "weights.pth")
    meta = {"dataset_meta": {"classes": ("a", "b", "c"), "palette": [[0, 0, 0]] * 3}}
    torch.save({"state_dict": state, "meta": meta}, tmp_path / "trained.pth")
    assert Predictor(folder / "bands.py", tmp_path / "trained.pth").classes == ("a", "b", "c")
    save_file(state, tmp_path / "weights.safetensors")
    assert Predictor(folder / "bands.py", tmp_path / "weights.safetensors").classes == ("dark", "middle", "bright")


def test_names_of_a_known_dataset_come_from_its_class(folder: Path) -> None:
    config = load_config(folder / "bands.py")
    config.test_dataloader.dataset = {"type": "RepeatDataset", "dataset": dict(config.test_dataloader.dataset)}
    config.test_dataloader.dataset.dataset.type = "visionattn.CamVid"
    del config.test_dataloader.dataset.dataset["classes"]
    classes = Predictor(config, folder / "weights.pth").classes
    assert classes is not None
    assert len(classes) == 11


def test_a_folder_is_searched_below_and_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.tif", "notes.txt", "sub/.d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert expand_inputs(tmp_path) == [tmp_path / name for name in ("a.JPG", "b.png", "sub/c.tif")]
    assert expand_inputs([str(tmp_path / "notes.txt")]) == [tmp_path / "notes.txt"]  # named: taken as it is
    (tmp_path / "[1].png").touch()
    assert expand_inputs(str(tmp_path / "[1].png")) == [tmp_path / "[1].png"]


def test_patterns_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    assert expand_inputs("*.png") == [Path("a.png")]


@pytest.mark.parametrize("name", ["nothing.png", "empty", "*.png"])
def test_no_image_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no image"):
        expand_inputs(tmp_path / name)
    assert ".png" in IMAGE_SUFFIXES


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_an_array_must_be_an_image(image: np.ndarray, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"expected an RGB array \[H, W, 3\] uint8, got (uint8 \[4, 4\]|float64)"):
        predict(folder / "bands.py", folder / "weights.pth", image)


def test_what_does_not_fit_is_named(folder: Path, images: list[Path], tmp_path: Path) -> None:
    config = load_config(folder / "bands.py")
    config.model.decode_head.channels = 6
    with pytest.raises(ValueError, match=r"^\S+weights\.pth: the weights belong to another model"):
        predict(config, folder / "weights.pth", images)
    with pytest.raises(FileNotFoundError, match=r"no image nothing\.png"):
        Predictor(folder / "bands.py", folder / "weights.pth")("nothing.png")
    with pytest.raises(ValueError, match="has no model"):
        predict(Config({}), folder / "weights.pth", images)
    config = load_config(folder / "bands.py")
    config.test_dataloader.dataset.pipeline = []
    with pytest.raises(ValueError, match=r"neither test_dataloader\.dataset\.pipeline nor test_pipeline"):
        predict(config, folder / "weights.pth", images)
