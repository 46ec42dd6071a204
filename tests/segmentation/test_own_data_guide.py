"""The config and the class of docs/adding_a_dataset.md are what works, not what once worked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from visionattn.data.images import read_image
from visionattn.engine.config import load_config
from visionattn.registry import DATASETS
from visionattn.segmentation import public_datasets
from visionattn.segmentation.labels import read_mask

ROOT = Path(__file__).parents[2]


def block(beginning):
    """The guide's code that begins so."""
    blocks = (ROOT / "docs/adding_a_dataset.md").read_text().split("```python\n")[1:]
    (code,) = [code.split("```")[0] for code in blocks if code.startswith(beginning)]
    return code


def test_config(tree, tmp_path):
    base = (ROOT / "configs/quickstart/segmentation.py").as_posix()
    (tmp_path / "mine.py").write_text(block("_base_").replace("quickstart/segmentation.py", base))
    config = load_config(tmp_path / "mine.py", {"data_root": str(tree)})
    assert config.model.decode_head.num_classes == len(config.classes) == 2
    for split, number, augmented in (("train", 8, True), ("val", 4, False), ("test", 4, False)):
        dataset = DATASETS.build(config[f"{split}_dataloader"].dataset)
        assert str(dataset.check()) == f"checked the labels and sizes of {number} of {number} masks"
        image, mask = dataset.pairs()[0]
        raw, labels = read_mask(mask), dataset[0]["data_samples"].gt_sem_seg.data[0].numpy()
        if not augmented:
            np.testing.assert_array_equal(labels, np.select([raw == 0, raw <= 3], [255, 0], 1))
            np.testing.assert_array_equal(dataset[0]["inputs"].permute(1, 2, 0), read_image(image))
        assert set(np.unique(labels)) <= {0, 1, 255}


def test_class(monkeypatch):
    monkeypatch.setattr(DATASETS, "register_module", lambda: lambda cls: cls)
    names = dict(vars(public_datasets))
    exec(block("@DATASETS"), names)
    with pytest.raises(FileNotFoundError, match=r"Roofs found no .*somewhere/train/rgb"):
        names["Roofs"]("somewhere", "train")
