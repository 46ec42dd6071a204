"""KITTI 2012 (Geiger et al.) and 2015 (Menze and Geiger): street scenes, disparity from a laser scanner, about 20 %."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from visionattn.data.disparity_png import read_disparity_png
from visionattn.registry import DATASETS
from visionattn.stereo.datasets import StereoPairs
from visionattn.stereo.layouts import Listing, listing, need_folder, view_names
from visionattn.stereo.samples import PairFiles
from visionattn.stereo.truth import TruthFormat, known_in_png

_SPLITS = ("training", "testing", "train", "val")
_TRUTH = TruthFormat(read_disparity_png, known_in_png)
# The lists that gangweiX/ACVNet@6529c1c and gallenszl/PCWNet@f5dce67 (2015) carry, both made on GwcNet's code.
_VAL_2012 = tuple(range(180, 194))
_VAL_2015 = (1, 6, 26, 38, 43, 49, 67, 81, 89, 109, 122, 129, 132, 141, 152, 159, 171, 179, 184, 187)


@DATASETS.register_module()
class KITTI2012(StereoPairs):
    """KITTI 2012 in colour: 194 pairs with truth, 195 without; `nonoccluded` is where disp_noc knows the disparity.

    {training,testing}/{colored_0,colored_1}/000000_10.png     training/{disp_occ,disp_noc}/000000_10.png

    Args:
        split: "training" or "testing"; or, of training, "train" (180) or "val" (the last 14), GwcNet's way.
        The others: as of `StereoPairs`.
    """

    SPLITS = _SPLITS
    TRUTH = _TRUTH
    KNOWS_RIGHT = False

    def find_pairs(self) -> Listing:
        folder = _split_folder(Path(self.data_root), self.split, "KITTI 2012", "colored_0")
        names = _first_frames(folder / "colored_0", folder / "colored_1", _choice(self.split, _VAL_2012))
        candidates = [
            PairFiles(
                name=Path(name).stem,
                left=str(folder / "colored_0" / name),
                right=str(folder / "colored_1" / name),
                disparity=None if self.split == "testing" else str(folder / "disp_occ" / name),
                nonoccluded=() if self.split == "testing" else (str(folder / "disp_noc" / name),),
            )
            for name in names
        ]
        whole = {"training": 194, "testing": 195, "train": 180, "val": 14}[self.split]
        return listing(candidates, {f"KITTI 2012 {self.split}": (len(candidates), whole)})


@DATASETS.register_module()
class KITTI2015(StereoPairs):
    """KITTI 2015: 200 pairs with truth, 200 without; only the frames _10 have one, _11 are left out.

    `nonoccluded` is where disp_noc_0 knows the disparity, `foreground` where obj_map has a vehicle. (disp_occ_1 is the
    disparity of the frame after, not the right image's.)

    {training,testing}/{image_2,image_3}/000000_10.png     training/{disp_occ_0,disp_noc_0,obj_map}/000000_10.png

    Args:
        split: "training" or "testing"; or, of training, "train" (180) or "val" (20), GwcNet's way.
        The others: as of `StereoPairs`.
    """

    SPLITS = _SPLITS
    TRUTH = _TRUTH
    KNOWS_RIGHT = False

    def find_pairs(self) -> Listing:
        folder = _split_folder(Path(self.data_root), self.split, "KITTI 2015", "image_2")
        names = _first_frames(folder / "image_2", folder / "image_3", _choice(self.split, _VAL_2015))
        known = self.split != "testing"
        objects = known and (folder / "obj_map").is_dir()
        candidates = [
            PairFiles(
                name=Path(name).stem,
                left=str(folder / "image_2" / name),
                right=str(folder / "image_3" / name),
                disparity=str(folder / "disp_occ_0" / name) if known else None,
                nonoccluded=(str(folder / "disp_noc_0" / name),) if known else (),
                foreground=str(folder / "obj_map" / name) if objects else None,
            )
            for name in names
        ]
        whole = {"training": 200, "testing": 200, "train": 180, "val": 20}[self.split]
        return listing(candidates, {f"KITTI 2015 {self.split}": (len(candidates), whole)})


def _split_folder(root: Path, split: str, what: str, images: str) -> Path:
    folder = root / ("testing" if split == "testing" else "training")
    need_folder(folder / images, what, "data_root is the folder that has training and testing")
    return folder


def _choice(split: str, val: tuple[int, ...]) -> Callable[[int], bool]:
    """Whether a frame is of the split."""
    return {"train": lambda frame: frame not in val, "val": lambda frame: frame in val}.get(split, lambda frame: True)


def _first_frames(left: Path, right: Path, wanted: Callable[[int], bool]) -> list[str]:
    """The names of the frames that the truth is of."""
    return [name for name in view_names(left, right, "_10.png") if wanted(int(name.partition("_")[0]))]
