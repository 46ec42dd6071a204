"""ETH3D, Sintel, InStereo2K and CREStereo, as their makers lay them out."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from visionattn.data.disparity_png import read_disparity_png, read_sintel_disparity
from visionattn.registry import DATASETS
from visionattn.stereo.datasets import StereoPairs
from visionattn.stereo.layouts import Listing, if_there, listing, need_folder, scenes, view_names
from visionattn.stereo.samples import PairFiles
from visionattn.stereo.truth import TruthFormat, marked, read_float_disparity, unmarked

_CRE_STEREO = ("tree", "shapenet", "reflective", "hole")


@DATASETS.register_module()
class ETH3D(StereoPairs):
    """ETH3D's two-view scenes, grey: 27 with truth (infinity is unknown), 20 without.

    two_view_{training,test}/SCENE/{im0,im1}.png     two_view_training_gt/SCENE/{disp0GT.pfm,mask0nocc.png}

    The truth may lie beside the images too.

    Args:
        split: "training" or "test".
        The others: as of `StereoPairs`.
    """

    SPLITS = ("training", "test")
    TRUTH = TruthFormat(partial(read_float_disparity, zero_is_unknown=True), marked)
    KNOWS_RIGHT = False

    def find_pairs(self) -> Listing:
        root = Path(self.data_root)
        folder = need_folder(root / f"two_view_{self.split}", "ETH3D", "data_root holds two_view_training")
        beside = root / "two_view_training_gt"
        known = self.split == "training"
        candidates = []
        for scene in scenes(folder):
            truth = (beside if beside.is_dir() else folder) / scene
            hidden = if_there(truth / "mask0nocc.png") if known else None
            candidates.append(
                PairFiles(
                    name=scene,
                    left=str(folder / scene / "im0.png"),
                    right=str(folder / scene / "im1.png"),
                    disparity=str(truth / "disp0GT.pfm") if known else None,
                    nonoccluded=(hidden,) if hidden else (),
                )
            )
        return listing(candidates, {f"ETH3D {self.split}": (len(candidates), 27 if known else 20)})


@DATASETS.register_module()
class Sintel(StereoPairs):
    """MPI Sintel's stereo pairs: 1,064 of 23 sequences, each rendered twice; `nonoccluded` by two masks.

    training/{clean_left,clean_right,final_left,final_right,disparities,occlusions,outofframe}/SEQUENCE/frame_0001.png

    Args:
        split: "clean" or "final", the pass.
        The others: as of `StereoPairs`.
    """

    SPLITS = ("clean", "final")
    TRUTH = TruthFormat(read_sintel_disparity, unmarked)
    KNOWS_RIGHT = False

    def find_pairs(self) -> Listing:
        root = Path(self.data_root)
        training = root / "training" if (root / "training").is_dir() else root
        left, right = training / f"{self.split}_left", training / f"{self.split}_right"
        need_folder(left, "Sintel", "data_root is the folder of training, with the stereo download in it")
        candidates = [
            PairFiles(
                name=f"{sequence}/{Path(name).stem}",
                left=str(left / sequence / name),
                right=str(right / sequence / name),
                disparity=str(training / "disparities" / sequence / name),
                nonoccluded=tuple(str(training / mask / sequence / name) for mask in ("occlusions", "outofframe")),
            )
            for sequence in scenes(left)
            for name in view_names(left / sequence, right / sequence)
        ]
        return listing(candidates, {f"Sintel {self.split}": (len(candidates), 1064)})


@DATASETS.register_module()
class InStereo2K(StereoPairs):
    """InStereo2K: indoor scenes, 2,010 and 50; 100 steps a pixel, 0 is unknown.

    {train,test}/**/000000/{left,right,left_disp,right_disp}.png, train in parts or not

    Args:
        split: "train" or "test".
        The others: as of `StereoPairs`.
    """

    SPLITS = ("train", "test")
    TRUTH = TruthFormat(partial(read_disparity_png, scale=100))

    def find_pairs(self) -> Listing:
        folder = need_folder(Path(self.data_root, self.split), "InStereo2K", "data_root holds train and test")
        places = [
            Path(parent)
            for parent, _, names in os.walk(folder, followlinks=True)
            if "left.png" in names or "right.png" in names
        ]
        candidates = [
            PairFiles(
                name=place.relative_to(folder).as_posix(),
                left=str(place / "left.png"),
                right=str(place / "right.png"),
                disparity=str(place / "left_disp.png"),
                right_disparity=str(place / "right_disp.png") if self.right_disparity else None,
            )
            for place in sorted(places)
        ]
        whole = {"train": 2010, "test": 50}[self.split]
        return listing(candidates, {f"InStereo2K {self.split}": (len(candidates), whole)})


@DATASETS.register_module()
class CREStereo(StereoPairs):
    """CREStereo's rendered scenes; 32 steps a pixel, 0 is unknown.

    {tree,shapenet,reflective,hole}/**/NAME_{left.jpg,right.jpg,left.disp.png,right.disp.png}

    Args:
        split: one of the four folders, or "all".
        The others: as of `StereoPairs`.
    """

    SPLITS = (*_CRE_STEREO, "all")
    TRUTH = TruthFormat(partial(read_disparity_png, scale=32))

    def find_pairs(self) -> Listing:
        candidates = []
        for part in _CRE_STEREO if self.split == "all" else (self.split,):
            folder = need_folder(Path(self.data_root, part), "CREStereo", "data_root holds tree, shapenet, ...")
            stems = sorted(
                {
                    os.path.join(parent, name.rpartition("_")[0])
                    for parent, _, names in os.walk(folder, followlinks=True)
                    for name in names
                    if name.endswith(("_left.jpg", "_right.jpg"))
                }
            )
            candidates += [
                PairFiles(
                    name=Path(stem).relative_to(self.data_root).as_posix(),
                    left=f"{stem}_left.jpg",
                    right=f"{stem}_right.jpg",
                    disparity=f"{stem}_left.disp.png",
                    right_disparity=f"{stem}_right.disp.png" if self.right_disparity else None,
                )
                for stem in stems
            ]
        return listing(candidates)
