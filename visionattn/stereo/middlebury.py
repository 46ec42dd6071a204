"""Middlebury's stereo scenes: the evaluation's (version 3), those of 2014 and 2021, of 2005 and 2006, and of 2003.

Their PFM maps have infinity where nothing is known, and a scale in the header that is no factor.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from visionattn.data.disparity_png import read_disparity_png
from visionattn.registry import DATASETS
from visionattn.stereo.datasets import StereoPairs
from visionattn.stereo.layouts import Listing, if_there, listing, need_folder, scenes
from visionattn.stereo.samples import PairFiles
from visionattn.stereo.truth import TruthFormat, marked, read_float_disparity

_FLOATS = TruthFormat(partial(read_float_disparity, zero_is_unknown=True), marked)


@DATASETS.register_module()
class MiddleburyV3(StereoPairs):
    """The evaluation's 15 training and 15 test scenes at full, half or quarter size.

    {training,test}{F,H,Q}/SCENE/{im0,im1}.png     training{F,H,Q}/SCENE/{disp0GT.pfm,mask0nocc.png}, disp1GT.pfm

    Args:
        data_root: MiddEval3, or the folder that has it.
        split: the folder: "trainingF", "trainingH", "trainingQ", "testF", "testH" or "testQ".
        The others: as of `StereoPairs`.
    """

    SPLITS = ("trainingF", "trainingH", "trainingQ", "testF", "testH", "testQ")
    TRUTH = _FLOATS

    def find_pairs(self) -> Listing:
        root = Path(self.data_root)
        root = root / "MiddEval3" if (root / "MiddEval3").is_dir() else root
        folder = need_folder(root / self.split, "Middlebury v3", "data_root is the folder MiddEval3")
        known = self.split.startswith("training")
        candidates = []
        for scene in scenes(folder):
            place = folder / scene
            if not _has_a_view(place):
                continue
            hidden = if_there(place / "mask0nocc.png") if known else None
            candidates.append(
                PairFiles(
                    name=scene,
                    left=str(place / "im0.png"),
                    right=str(place / "im1.png"),
                    disparity=str(place / "disp0GT.pfm") if known else None,
                    right_disparity=str(place / "disp1GT.pfm") if known and self.right_disparity else None,
                    nonoccluded=(hidden,) if hidden else (),
                )
            )
        return listing(candidates, {f"Middlebury {self.split}": (len(candidates), 15)})


@DATASETS.register_module()
class Middlebury2014(StereoPairs):
    """The scenes of 2014, with and without perfect rectification, and those of 2021; no masks of what is hidden.

    SCENE-{perfect,imperfect}/{im0.png,im1.png,disp0.pfm,disp1.pfm}

    Args:
        split: "perfect" or "imperfect", by how the scenes' names end, 23 each; "all": every scene, as of 2021.
        The others: as of `StereoPairs`.
    """

    SPLITS = ("perfect", "imperfect", "all")
    TRUTH = _FLOATS

    def find_pairs(self) -> Listing:
        root = need_folder(Path(self.data_root), "Middlebury 2014", "data_root is the folder that has the scenes")
        ending = "" if self.split == "all" else f"-{self.split}"
        chosen = [scene for scene in scenes(root) if scene.endswith(ending) and _has_a_view(root / scene)]
        candidates = [
            PairFiles(
                name=scene,
                left=str(root / scene / "im0.png"),
                right=str(root / scene / "im1.png"),
                disparity=str(root / scene / "disp0.pfm"),
                right_disparity=str(root / scene / "disp1.pfm") if self.right_disparity else None,
            )
            for scene in chosen
        ]
        sizes = {} if self.split == "all" else {f"Middlebury 2014 {self.split}": (len(candidates), 23)}
        return listing(candidates, sizes)


@DATASETS.register_module()
class Middlebury2006(StereoPairs):
    """The scenes of 2005 and 2006, their two-view downloads; 8 bits, 0 is unknown.

    SCENE/{view1,view5,disp1,disp5}.png

    Args:
        split: the size: "full", "half" or "third", whose maps have 1, 2 or 3 steps a pixel.
        The others: as of `StereoPairs`.
    """

    SPLITS = ("full", "half", "third")

    @property
    def truth(self) -> TruthFormat:
        return _eight_bits({"full": 1, "half": 2, "third": 3}[self.split])

    def find_pairs(self) -> Listing:
        return _two_views(self, "view{}.png", ("1", "5"))


@DATASETS.register_module()
class Middlebury2003(StereoPairs):
    """Cones and Teddy; 8 bits, 0 is unknown.

    SCENE/{im2,im6,disp2,disp6}.png

    Args:
        split: the size: "full", "half" or "quarter", whose maps have 1, 2 or 4 steps a pixel.
        The others: as of `StereoPairs`.
    """

    SPLITS = ("full", "half", "quarter")

    @property
    def truth(self) -> TruthFormat:
        return _eight_bits({"full": 1, "half": 2, "quarter": 4}[self.split])

    def find_pairs(self) -> Listing:
        return _two_views(self, "im{}.png", ("2", "6"))


def _has_a_view(scene: Path) -> bool:
    """Whether it is a scene at all, and no other folder."""
    return (scene / "im0.png").is_file() or (scene / "im1.png").is_file()


def _eight_bits(steps: int) -> TruthFormat:
    return TruthFormat(partial(read_disparity_png, scale=steps, bits=8))


def _two_views(dataset: StereoPairs, image: str, views: tuple[str, str]) -> Listing:
    """Every scene of the data set's root that has such an image."""
    root = need_folder(Path(dataset.data_root), type(dataset).__name__, "data_root is the folder that has the scenes")
    left, right = views
    return listing(
        PairFiles(
            name=scene,
            left=str(root / scene / image.format(left)),
            right=str(root / scene / image.format(right)),
            disparity=str(root / scene / f"disp{left}.png"),
            right_disparity=str(root / scene / f"disp{right}.png") if dataset.right_disparity else None,
        )
        for scene in scenes(root)
        if any((root / scene / image.format(view)).is_file() for view in views)
    )
