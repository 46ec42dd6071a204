"""The page of augmented samples shows what the pipeline makes, and counts it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from tiny_run import tiny_config
from tiny_segmentation import SIZE, write_segmentation

from visionattn.cli.main import main
from visionattn.engine.browse import browse

FLIP = {"type": "visionattn.Albumentations", "transforms": [{"type": "HorizontalFlip", "p": 0.5}]}
FRAME = {
    "type": "visionattn.Albumentations",
    "transforms": [{"type": "PadIfNeeded", "min_height": 74, "min_width": 53}],
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.fromfile(write_segmentation(tmp_path))


def pictures(content: str) -> dict[str, np.ndarray]:
    """RGB pictures of a page by what it says they are."""
    found = re.findall(r'base64,([^"]+)" alt="([^"]+)"', content)
    return {
        name: cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        for data, name in found
    }


def shares(content: str) -> dict[str, list[float]]:
    rows = re.findall(r"<tr><td>.*?</span>(\w+)</td>(.*?)</tr>", content)
    return {name: [float(n) for n in re.findall(r'<td class="n">([\d.]+)</td>', row)] for name, row in rows}


def test_samples_are_the_files_where_nothing_is_augmented(config: Config, tmp_path: Path) -> None:
    content = browse(config, "train", number=3)
    shown = pictures(content)
    assert [name for name in shown if name.startswith("input")] == [
        "input of 0.png",
        "input of 2.png",
        "input of 4.png",
    ]
    original = cv2.imread(str(tmp_path / "data" / "images" / "2.png"))[..., ::-1]
    np.testing.assert_array_equal(shown["input of 2.png"], original)
    mask = cv2.imread(str(tmp_path / "data" / "masks" / "2.png"), cv2.IMREAD_UNCHANGED)
    grey = cv2.cvtColor(original, cv2.COLOR_RGB2GRAY)[..., None]
    colours = np.array([[0, 0, 160], [0, 160, 0], [250, 220, 60]])
    np.testing.assert_allclose(shown["labels of 2.png"], 0.6 * colours[mask] + 0.4 * grey, atol=0.51)


def test_what_mmsegs_loader_gives_as_bgr_is_shown_as_rgb(config: Config) -> None:
    ours = pictures(browse(config, "train", number=1))["input of 0.png"]
    config.train_dataloader.dataset.pipeline[0] = {"type": "mmcv.LoadImageFromFile"}
    config.model.data_preprocessor.bgr_to_rgb = True
    np.testing.assert_array_equal(pictures(browse(config, "train", number=1))["input of 0.png"], ours)
    config.model.data_preprocessor.bgr_to_rgb = False
    assert not np.array_equal(pictures(browse(config, "train", number=1))["input of 0.png"], ours)


def test_augmentation_is_seen_counted_and_repeated_by_its_seed(config: Config) -> None:
    config.train_dataloader.dataset.pipeline.insert(2, FRAME)
    content = browse(config, "train", number=5)
    assert pictures(content)["input of 1.png"].shape[:2] == (74, 53)
    assert "50.00 % of what is shown is ignored (hatched), of the files 0.00 %" in content
    counted = shares(content)
    assert set(counted) == {"dark", "middle", "bright"}
    assert all(shown == files for shown, files in counted.values())  # padding is of no class
    assert abs(sum(shown for shown, _ in counted.values()) - 100) < 0.02
    config.train_dataloader.dataset.pipeline.insert(2, FLIP)
    assert browse(config, "train", 5, seed=3) == browse(config, "train", 5, seed=3)
    one, other = (pictures(browse(config, "train", 5, seed=seed)) for seed in (3, 4))
    assert not all(np.array_equal(one[name], other[name]) for name in one)


def test_a_wrapped_data_set_is_shown_too(config: Config) -> None:
    config.train_dataloader.dataset = {"type": "RepeatDataset", "times": 2, "dataset": config.train_dataloader.dataset}
    assert len(pictures(browse(config, "train", number=10))) == 10  # of 5 images, input and labels


def test_what_cannot_be_shown_is_answered(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="number=0 of samples must be 1 or more"):
        browse(config, "train", number=0)
    config.test_dataloader = None
    with pytest.raises(ValueError, match="has no test_dataloader; give another --split"):
        browse(config, "test")


def test_the_command_writes_the_page_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_segmentation(tmp_path)
    for out, expected in (("pages", "pages/bands_val.html"), ("a/b.html", "a/b.html")):
        argv = ["data", "browse", str(config), "--split", "val", "--number", "2", "--out", str(tmp_path / out)]
        assert main(argv) == 0
        assert capsys.readouterr().out.startswith(str(tmp_path / expected))
        assert (tmp_path / expected).read_text().startswith("<!DOCTYPE html>")


def test_a_sample_that_no_task_can_show_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a sample of TinyData holds no inputs: end its transforms with"):
        browse(tiny_config(tmp_path), "train")


def test_the_size_of_the_pictures_is_said(config: Config) -> None:
    assert f"height {SIZE[0]}, width {SIZE[1]}" in browse(config, "train", number=1)
