"""The transforms in docs/stereo_augmentation.md are built as shown, and none is left out."""

from __future__ import annotations

import re
from pathlib import Path

from mmengine.config import Config

import visionattn.stereo
from visionattn.registry import TRANSFORMS

TEXT = (Path(__file__).parents[1] / "docs" / "stereo_augmentation.md").read_text()
ROWS = re.findall(r"^\| `(\w+)\((.*?)\)` \|", TEXT, re.MULTILINE)


def test_every_transform_has_a_row() -> None:
    classes = [getattr(visionattn.stereo, name) for name in visionattn.stereo.__all__]
    assert {name for name, _ in ROWS} == {kind.__name__ for kind in classes if ".transforms_" in kind.__module__}


def test_they_are_built_as_shown() -> None:
    shown = [f"dict(type='visionattn.{name}', {options})" for name, options in ROWS]
    (example,) = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
    config = Config.fromstring(f"rows = [{', '.join(shown)}]\n{example}", ".py")
    for step in (*config.rows, *config.train_transforms):
        TRANSFORMS.build(step)
