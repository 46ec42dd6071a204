"""Scene Flow (Mayer et al., CVPR 2016): FlyingThings3D, Monkaa and Driving, and FlyingThings3D's subset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from visionattn.registry import DATASETS
from visionattn.stereo.datasets import StereoPairs, Transforms, one_of
from visionattn.stereo.layouts import Listing, listing
from visionattn.stereo.layouts_scene_flow import PARTS, scene_flow_pairs, subset_pairs
from visionattn.stereo.samples import PairFiles
from visionattn.stereo.truth import TruthFormat, read_float_disparity, unmarked

_FOLDERS = {"train": "TRAIN", "test": "TEST", "test400": "TEST"}
_PASSES = {"cleanpass": ("cleanpass",), "finalpass": ("finalpass",), "both": ("cleanpass", "finalpass")}
_TRUTH = TruthFormat(partial(read_float_disparity, zero_is_unknown=False, signed=True), unmarked)
_WHOLE = {  # pairs of one pass
    "TRAIN": {"FlyingThings3D": 22390, "Monkaa": 8664, "Driving": 4400},
    "TEST": {"FlyingThings3D": 4370},
}
_WHOLE_SUBSET = {"TRAIN": 21818, "TEST": 4248}


@DATASETS.register_module()
class SceneFlow(StereoPairs):
    """Scene Flow as its makers, PSMNet or GwcNet lay it out (see `layouts_scene_flow`); 35,454 and 4,370 pairs a pass.

    Args:
        data_root: the folder that the layout begins in.
        split: "train": FlyingThings3D's TRAIN, Monkaa and Driving; "test": FlyingThings3D's TEST; "test400": those of
            its pairs that RAFT-Stereo draws (numpy's seed 1000).
        image_pass: "cleanpass" or "finalpass" (with blur and haze), or "both", all of the one before all of the other.
        parts: of the three, in this order.
        The others: as of `StereoPairs`.
    """

    SPLITS = tuple(_FOLDERS)
    TRUTH = _TRUTH

    def __init__(
        self,
        data_root: str,
        split: str,
        image_pass: str = "finalpass",
        parts: Sequence[str] = PARTS,
        *,
        right_disparity: bool = False,
        transforms: Transforms = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        skip_bad: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.image_pass = one_of("image_pass", image_pass, _PASSES)
        self.parts = tuple(one_of("parts", part, PARTS) for part in parts)
        super().__init__(
            data_root,
            split,
            right_disparity=right_disparity,
            transforms=transforms,
            test_mode=test_mode,
            indices=indices,
            skip_bad=skip_bad,
            lazy_init=lazy_init,
        )

    def find_pairs(self) -> Listing:
        folder = _FOLDERS[self.split]
        candidates: list[PairFiles] = []
        sizes: dict[str, tuple[int, int]] = {}
        for one in _PASSES[self.image_pass]:
            found = scene_flow_pairs(Path(self.data_root), folder, one, self.parts, self.right_disparity)
            for part, pairs in found.items():
                whole = _WHOLE[folder].get(part, 0)
                if whole:
                    sizes[f"{part} {folder} {one}"] = (len(pairs), whole)
            of_pass = [files for pairs in found.values() for files in pairs]
            candidates += drawn_400(of_pass) if self.split == "test400" else of_pass
        return listing(candidates, sizes)


@DATASETS.register_module()
class FlyingThings3DSubset(StereoPairs):
    """FlyingThings3D's subset, without its hardest frames, with masks of what is hidden; negative disparities turned.

    {train,val}/{image_clean,image_final,disparity,disparity_occlusions}/{left,right}/0000000.{png,pfm}

    Args:
        data_root: the folder that has train and val, or FlyingThings3D_subset.
        split: "train" or "test" (the folder val, in some copies test).
        image_pass: "cleanpass" or "finalpass".
        The others: as of `StereoPairs`.
    """

    SPLITS = ("train", "test")
    TRUTH = _TRUTH

    def __init__(
        self,
        data_root: str,
        split: str,
        image_pass: str = "cleanpass",
        *,
        right_disparity: bool = False,
        transforms: Transforms = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        skip_bad: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.image_pass = one_of("image_pass", image_pass, ("cleanpass", "finalpass"))
        super().__init__(
            data_root,
            split,
            right_disparity=right_disparity,
            transforms=transforms,
            test_mode=test_mode,
            indices=indices,
            skip_bad=skip_bad,
            lazy_init=lazy_init,
        )

    def find_pairs(self) -> Listing:
        folder = _FOLDERS[self.split]
        pairs = subset_pairs(Path(self.data_root), folder, self.image_pass, self.right_disparity)
        return listing(pairs, {f"the subset's {folder} {self.image_pass}": (len(pairs), _WHOLE_SUBSET[folder])})


def drawn_400(pairs: Sequence[PairFiles]) -> list[PairFiles]:
    """The pairs that RAFT-Stereo evaluates on: 400 drawn by numpy's old generator from all, in their order."""
    drawn = np.random.RandomState(1000).permutation(len(pairs))[:400]
    return [pairs[index] for index in sorted(drawn.tolist())]
