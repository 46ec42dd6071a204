"""Made-up stereo scenes as data sets that need no files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from visionattn.data.findings import DataReport, Track, check_files, untracked
from visionattn.data.made_up_folder import whole_number
from visionattn.data.randomness import sample_seed
from visionattn.data.sceneflow_scenes import check_scene, in_final_pass, stereo_views
from visionattn.registry import DATASETS
from visionattn.stereo.datasets import Transforms, one_of
from visionattn.stereo.samples import RawSample

_PASSES = ("cleanpass", "finalpass")


@DATASETS.register_module()
class MadeUpStereo(BaseDataset):
    """Made-up stereo scenes, drawn when they are asked for; the same ones in every epoch.

    Those of `visionattn data synth sceneflow` in TRAIN, of the same seed, size and max_disparity. About three pairs a
    second are drawn on a core at 540 x 960, and more of smaller ones: several loader workers keep a network busy.

    Args:
        scenes: how many there are.
        seed: other scenes; that of a validation set is another than that of the training set.
        height, width: of either view, 64 pixels or more.
        max_disparity: all disparities are from 0 to below it; the nearest of a scene is a third of it or more.
        image_pass: "finalpass", with haze, glare, blur, exposure and noise, or "cleanpass", without.
        crowd: how many things stand in a scene, as a share of the usual number: fewer are easier.
        asymmetry: how far the two cameras of the final pass differ, 0 to 1.
        transforms: of the raw sample (`samples.RawSample`), as config dicts or callables.
        test_mode: evaluation; never replaces a sample.
        indices: the first n scenes, or those of these numbers.
        lazy_init: as mmengine has it.
    Raises:
        ValueError: an argument's value.
    """

    def __init__(
        self,
        scenes: int = 400,
        seed: int = 0,
        height: int = 256,
        width: int = 512,
        max_disparity: float = 192.0,
        *,
        image_pass: str = "finalpass",
        crowd: float = 1.0,
        asymmetry: float = 0.3,
        transforms: Transforms = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        self.scenes, self.seed = whole_number("scenes", scenes, 1), whole_number("seed", seed, 0)
        self.size, self.max_disparity = (height, width), max_disparity
        self.image_pass = one_of("image_pass", image_pass, _PASSES)
        if not 0 <= crowd <= 4:
            raise ValueError(f"crowd={crowd!r} must be from 0 (nothing but walls and floors) to 4; 1 is usual")
        self.crowd = crowd
        self.asymmetry = asymmetry
        check_scene(self.size, max_disparity, asymmetry)
        super().__init__(
            data_prefix={}, pipeline=list(transforms), test_mode=test_mode, indices=indices, lazy_init=lazy_init
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """The scenes' numbers."""
        return [{"number": number} for number in range(self.scenes)]

    def scene_number(self, index: int) -> int:
        """The number of the scene that is drawn for an index."""
        return int(self.get_data_info(index)["number"])

    def raw(self, index: int) -> RawSample:
        """A pair as it is drawn, before any transform: every pixel is valid, and it has no files."""
        number = self.scene_number(index)
        views = stereo_views(self.seed, number, self.size, self.max_disparity, crowd=self.crowd)
        if self.image_pass == "finalpass":
            views = in_final_pass(views, self.seed, number, self.asymmetry)
        return {
            "left": views.left,
            "right": views.right,
            "disparity": views.disparity,
            "valid": np.ones(self.size, bool),
            "nonoccluded": ~views.hidden,
            "right_disparity": views.right_disparity,
            "name": f"made_up/{self.seed}/{number:04d}",
            "left_path": None,
            "right_path": None,
            "disparity_path": None,
        }

    def prepare_data(self, idx: int) -> Any:
        """A pair after the transforms."""
        return self.pipeline(self.raw(idx))


@DATASETS.register_module()
class FreshMadeUpStereo(MadeUpStereo):
    """Made-up stereo scenes that are new in every draw; `scenes` is the length of an epoch alone.

    The scene's number comes from the random numbers of its draw, as augmentation's do: a run that is resumed, or has
    other workers, sees the scenes that it would have seen.
    """

    def scene_number(self, index: int) -> int:
        return sample_seed()


@check_files.register
def _check_made_up(
    dataset: MadeUpStereo, *, decode: bool = False, limit: int | None = None, track: Track = untracked
) -> DataReport:
    """Nothing lies in files, so nothing can be wrong with them; see `check_files` for the arguments."""
    dataset.full_init()
    summary = f"{len(dataset):,} made-up scenes, drawn when they are asked for"
    return DataReport(type(dataset).__name__, len(dataset), len(dataset), summary)
