"""The data sets in docs/detection_data.md exist, take the options shown, and none is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from visionattn.data.augmentation import build_augmentation
from visionattn.detection.coco import CocoDetection
from visionattn.registry import DATASETS, TRANSFORMS

TEXT = (Path(__file__).parents[1] / "docs" / "detection_data.md").read_text()
SHOWN = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
EXAMPLES = [Config.fromstring(f"shown = {text}", ".py").shown for text in SHOWN]
ROWS = re.findall(r"^\| `(\w+)(\(.*?\))?` \|", TEXT, re.MULTILINE)


def test_every_data_set_has_an_example_and_a_row() -> None:
    names = {cls.__name__ for cls in (CocoDetection, *CocoDetection.__subclasses__())}
    assert {example.get("dataset", example)["type"] for example in EXAMPLES} == {f"visionattn.{name}" for name in names}
    assert {name for name, options in ROWS if not options} == names


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_is_built(number: int, tmp_path: Path) -> None:
    example = EXAMPLES[number]
    for step in example.get("pipeline", ()):
        TRANSFORMS.build(step)
    place = {"data_root": str(tmp_path / "missing"), "lazy_init": True}
    inner = {"dataset": {**example["dataset"], **place}, "lazy_init": True} if "dataset" in example else place
    dataset = DATASETS.build({**example, **inner})
    if not example["type"].endswith("MadeUpCoco"):  # which would be written
        with pytest.raises(FileNotFoundError, match="missing"):
            dataset.full_init()


def test_transforms_are_built_as_shown() -> None:
    shown = [(name, options) for name, options in ROWS if options]
    assert len(shown) == 3
    for name, options in shown:
        build_augmentation([Config.fromstring(f"shown = dict(type='{name}', {options[1:]}", ".py").shown], fill_mask=0)
    for name in ("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop"):
        assert f"`{name}`" in TEXT
    crops = [{"type": "AtLeastOneBBoxRandomCrop", "height": 8, "width": 8}, {"type": "BBoxSafeRandomCrop"}]
    TRANSFORMS.build(
        {
            "type": "visionattn.DetectionAugment",
            "transforms": crops,
            "min_visibility": 0.3,
            "min_side": 4,
            "boxes_from_masks": True,
        }
    )
