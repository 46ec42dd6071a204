"""The data sets in docs/stereo_data.md exist, take the options shown, and none is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from visionattn.engine.data_check import leaf_datasets
from visionattn.registry import DATASETS
from visionattn.stereo import PackStereo  # noqa: F401  # registers all data sets
from visionattn.stereo.datasets import StereoPairs

TEXT = (Path(__file__).parents[1] / "docs" / "stereo_data.md").read_text()
EXAMPLES = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
LEAVES = [leaf for text in EXAMPLES for leaf in leaf_datasets(Config.fromstring(f"shown = {text}", ".py").shown)]
CLASSES = StereoPairs.__subclasses__()


def test_every_data_set_has_an_example_and_a_row() -> None:
    assert {leaf["type"] for leaf in LEAVES} == {f"visionattn.{cls.__name__}" for cls in CLASSES}
    for cls in CLASSES:
        (row,) = re.findall(rf"^\| `{cls.__name__}` \|(.+)$", TEXT, re.MULTILINE)
        named = re.findall(r"`(\w+)`", row.split("|")[0])
        assert cls.__name__ == "PairList" or "same" in row.split("|")[0] or set(named) & set(cls.SPLITS)


@pytest.mark.parametrize("number", range(len(LEAVES)))
def test_an_example_is_built(number: int) -> None:
    leaf = LEAVES[number]
    dataset = DATASETS.build({**leaf, "lazy_init": True})
    with pytest.raises(FileNotFoundError, match=re.escape(leaf["data_root"])):
        dataset.full_init()
