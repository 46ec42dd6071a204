"""The six real and rendered pairs, where they lie ($VISIONATTN_DATA, or ../shared/data beside the project)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from visionattn.data.findings import check_files
from visionattn.stereo import Middlebury2003, Middlebury2006, MiddleburyV3, PairList, SceneFlow
from visionattn.stereo.match_sign import match_errors, matches_backwards
from visionattn.stereo.samples import RawSample

ROOT = Path(os.environ.get("VISIONATTN_DATA") or Path(__file__).parents[3] / "shared" / "data") / "stereo"
pytestmark = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no stereo pairs at {ROOT}: set VISIONATTN_DATA to the folder that has stereo/"
)


def linked(root: Path, files: dict[str, str]) -> str:
    """A tree whose files are links: path in the tree -> path below ROOT."""
    for path, source in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to((ROOT / source).resolve())
    return str(root)


def cones(root: Path) -> RawSample:
    files = {
        f"Cones/{name}": f"middlebury2003_cones/{name}" for name in ("im2.png", "im6.png", "disp2.png", "disp6.png")
    }
    return Middlebury2003(linked(root, files), "quarter", right_disparity=True).raw(0)


def of_2006(scene: str) -> Callable[[Path], RawSample]:
    def read(root: Path) -> RawSample:
        names = ("view1.png", "view5.png", "disp1.png", "disp5.png")
        files = {f"{scene}/{name}": f"middlebury2005-06_{scene}/{name}" for name in names}
        return Middlebury2006(linked(root, files), "half", right_disparity=True).raw(0)

    return read


def motorcycle(root: Path) -> RawSample:
    names = ("im0.png", "im1.png", "disp0GT.pfm", "disp1GT.pfm", "mask0nocc.png")
    files = {f"trainingQ/Motorcycle/{name}": f"middlebury2014_trainingQ_Motorcycle/{name}" for name in names}
    return MiddleburyV3(linked(root, files), "trainingQ", right_disparity=True).raw(0)


def flying_things(root: Path) -> RawSample:
    kept, frames = "sceneflow_flyingthings3d_A-0032-0006", "FlyingThings3D/frames_cleanpass/TRAIN/A/0032"
    maps = "FlyingThings3D/disparity/TRAIN/A/0032"
    files = {
        f"{frames}/left/0006.png": f"{kept}/left_cleanpass.png",
        f"{frames}/right/0006.png": f"{kept}/right_cleanpass.png",
        f"{maps}/left/0006.pfm": f"{kept}/left_disp.pfm",
        f"{maps}/right/0006.pfm": f"{kept}/right_disp.pfm",
    }
    data_root = linked(root, files)
    return SceneFlow(data_root, "train", "cleanpass", ["FlyingThings3D"], right_disparity=True).raw(0)


def listed(root: Path) -> RawSample:
    names = ("left.png", "right.png", "left_disp.pfm", "right_disp.pfm")
    (root / "pairs.txt").write_text(" ".join(f"sceneflow_dmb_0/{name}" for name in names))
    return PairList(str(root / "pairs.txt"), str(ROOT), right_disparity=True).raw(0)


PAIRS: dict[str, tuple[Callable[[Path], RawSample], tuple[int, int], float, float, float]] = {
    # how it is read, size, largest disparity, share of pixels that have one, median difference of what matches
    "Cones": (cones, (375, 450), 55.0, 0.968, 6),
    "Cloth3": (of_2006("Cloth3"), (555, 626), 83.0, 0.9918, 3),
    "Reindeer": (of_2006("Reindeer"), (555, 671), 100.5, 0.9943, 3),
    "Motorcycle": (motorcycle, (497, 741), 62.877, 0.979, 4),
    "FlyingThings3D": (flying_things, (540, 960), 130.4, 1, 1),
    "Scene Flow by a list": (listed, (540, 960), 75.9, 1, 1.5),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_truth_leads_from_either_image_to_the_other(name: str, tmp_path: Path) -> None:
    read, size, largest, share, difference = PAIRS[name]
    sample = read(tmp_path)
    assert sample["left"].shape == sample["right"].shape == (*size, 3)
    assert abs(sample["disparity"].max() - largest) < 0.06
    assert abs(sample["valid"].mean() - share) < 0.0006
    forwards, backwards = match_errors(sample)
    assert forwards <= difference
    assert backwards > 5 * forwards
    assert not matches_backwards(sample)

    # The right image's truth leads to the left one at x + disparity: seen from there, that is backwards.
    disparity = sample["right_disparity"]
    seen_from_right: RawSample = {
        **sample, "left": sample["right"], "right": sample["left"], "disparity": disparity, "valid": disparity > 0,
    }  # fmt: skip
    seen_from_right.pop("nonoccluded", None)
    forwards, backwards = match_errors(seen_from_right)
    assert backwards <= difference
    assert matches_backwards(seen_from_right)


@pytest.mark.parametrize("name", PAIRS)
def test_swapped_images_are_noticed(name: str, tmp_path: Path) -> None:
    sample = PAIRS[name][0](tmp_path)
    swapped: RawSample = {**sample, "left": sample["right"], "right": sample["left"]}
    assert matches_backwards(swapped)


def test_what_both_images_see_matches_better(tmp_path: Path) -> None:
    sample = motorcycle(tmp_path)
    seen = sample["nonoccluded"]
    assert abs(seen.mean() - 0.86) < 0.02
    assert not (seen & ~sample["valid"]).any()
    hidden: RawSample = {**sample, "nonoccluded": ~seen}
    assert match_errors(hidden)[0] > 3 * match_errors(sample)[0]


def test_the_check_measures_them(tmp_path: Path) -> None:
    motorcycle(tmp_path)
    report = check_files(MiddleburyV3(str(tmp_path), "trainingQ"), decode=True)
    assert [finding.kind for finding in report.findings] == ["count"]
    truth = PAIRS["Motorcycle"][0](tmp_path / "again")
    known = truth["disparity"][truth["valid"]]
    assert report.measured["height x width"] == "497 x 741"
    assert report.measured["largest disparity"] == f"{known.max():.1f}"
    assert abs(float(report.measured["median disparity"]) - np.median(known)) <= 0.25
    assert abs(float(report.measured["99 % lie below"]) - np.quantile(known, 0.99)) <= 0.25
