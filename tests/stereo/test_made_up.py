"""Made-up stereo scenes as data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from visionattn.data.randomness import Draw, make_samples
from visionattn.data.sceneflow_scenes import write_sceneflow
from visionattn.registry import DATASETS
from visionattn.stereo.made_up import FreshMadeUpStereo, MadeUpStereo
from visionattn.stereo.scene_flow import SceneFlow

SMALL: dict[str, Any] = {"height": 64, "width": 80, "max_disparity": 20.0}


def _same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    assert one.keys() == two.keys()
    return all(np.array_equal(one[key], two[key]) for key in one)


def test_a_sample_is_whole() -> None:
    dataset = DATASETS.build(dict(type="visionattn.MadeUpStereo", scenes=3, seed=1, **SMALL))
    assert isinstance(dataset, MadeUpStereo)
    assert len(dataset) == 3
    sample = dataset[2]
    assert {key: (value.shape, value.dtype.name) for key, value in sample.items() if isinstance(value, np.ndarray)} == {
        "left": ((64, 80, 3), "uint8"),
        "right": ((64, 80, 3), "uint8"),
        "disparity": ((64, 80), "float32"),
        "valid": ((64, 80), "bool"),
        "nonoccluded": ((64, 80), "bool"),
        "right_disparity": ((64, 80), "float32"),
    }
    assert sample["valid"].all()
    assert 0.4 < sample["nonoccluded"].mean() < 1
    assert sample["name"] == "made_up/1/0002"
    assert [sample[key] for key in ("left_path", "right_path", "disparity_path")] == [None, None, None]
    assert _same(sample, dataset[2])
    assert not _same(sample, dataset[1] | {"name": sample["name"]})


@pytest.mark.parametrize("image_pass", ["cleanpass", "finalpass"])
def test_the_scenes_are_those_that_are_written(tmp_path: Path, image_pass: str) -> None:
    write_sceneflow(tmp_path, scenes=2, test=0, seed=6, size=(64, 80), max_disparity=20.0)
    written = SceneFlow(str(tmp_path), "train", image_pass, parts=("FlyingThings3D",), right_disparity=True)
    drawn = MadeUpStereo(2, 6, **SMALL, image_pass=image_pass)
    assert len(written) == len(drawn) == 2
    for index in range(2):
        from_file, from_numbers = written.raw(index), drawn.raw(index)
        for key in ("left", "right", "disparity", "right_disparity", "valid"):
            np.testing.assert_array_equal(from_file[key], from_numbers[key], err_msg=key)
        if "nonoccluded" in from_file:
            np.testing.assert_array_equal(from_file["nonoccluded"], from_numbers["nonoccluded"])


def test_fresh_scenes_are_a_function_of_the_draw() -> None:
    """As a loader draws them: what was drawn before, or by which worker, does not matter."""
    dataset = DATASETS.build(dict(type="visionattn.FreshMadeUpStereo", scenes=5, **SMALL))
    assert isinstance(dataset, FreshMadeUpStereo)
    assert len(dataset) == 5
    first = make_samples(dataset, [Draw(0, (7, 0)), Draw(0, (7, 1)), Draw(3, (7, 2))])
    resumed = make_samples(dataset, [Draw(3, (7, 2))])
    assert _same(first[2], resumed[0])
    assert not np.array_equal(first[0]["left"], first[1]["left"]), "the second draw of an index is the first again"
    assert len({sample["name"] for sample in first}) == 3


def test_transforms_and_indices_are_taken() -> None:
    seen = []

    def note(sample: dict[str, Any]) -> dict[str, Any]:
        seen.append(sample["name"])
        return sample

    dataset = MadeUpStereo(4, **SMALL, image_pass="cleanpass", transforms=[note], indices=[3, 1])
    assert [dataset[index]["name"] for index in range(len(dataset))] == ["made_up/0/0003", "made_up/0/0001"]
    assert seen == ["made_up/0/0003", "made_up/0/0001"]


def test_a_smaller_crowd_hides_less() -> None:
    hidden = {
        crowd: np.mean([1 - scene["nonoccluded"][:, 20:].mean() for scene in MadeUpStereo(8, **SMALL, crowd=crowd)])
        for crowd in (0.0, 0.5, 1.0)
    }
    assert hidden[0.0] < 0.03, "bare walls hide nothing"
    assert hidden[0.0] < hidden[0.5] < hidden[1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenes": 0}, "scenes=0 must be a whole number of 1 or more"),
        ({"seed": -1}, "seed=-1 must be a whole number of 0 or more"),
        ({"height": 32}, r"size=\(32, 512\) must be \(height, width\) of 64 pixels or more"),
        ({"width": 128}, r"max_disparity=192\.0 must be from 4 to the width, 128 pixels"),
        ({"image_pass": "final"}, "image_pass='final' is none of 'cleanpass', 'finalpass'"),
        ({"asymmetry": -0.1}, r"asymmetry=-0\.1 must be from 0"),
        ({"crowd": 5.0}, r"crowd=5\.0 must be from 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MadeUpStereo(**arguments)


def test_fewer_things_are_fewer_edges() -> None:
    def steps(crowd: float) -> float:
        scenes = MadeUpStereo(4, 1, 96, 160, 40.0, crowd=crowd)
        return sum(float((np.abs(np.diff(scenes.raw(i)["disparity"], axis=1)) > 1).mean()) for i in range(4))

    assert steps(0.2) < 0.6 * steps(1.0)
    with pytest.raises(ValueError, match="crowd=5 must be from 0"):
        MadeUpStereo(crowd=5)
