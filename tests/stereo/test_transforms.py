"""What holds for every transform of a stereo sample, whatever it does."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS
from stereo_planes import plane_pair, warp_errors

from visionattn.data.randomness import Draw, make_samples, seeded

CARD = (15, 45, 40, 70)
COLOUR = {"type": "ColorJitter", "brightness": 0.5, "contrast": 0.4, "saturation": (0.0, 1.4), "hue": 0.1, "p": 1.0}
# Those after which the right view, taken to the left one by the disparity, still is the left view.
GEOMETRIC = [
    {"type": "StereoRandomCrop", "size": (41, 63)},
    {"type": "StereoRandomCrop", "size": (75, 63)},
    {"type": "StereoCenterCrop", "size": (41, 63)},
    {"type": "StereoBottomRightCrop", "size": (41, 63)},
    {"type": "StereoPad", "size": (77, 110)},
    {"type": "StereoResize", "size": (101, 71)},
    {"type": "StereoRandomScale", "octaves": (-0.3, 0.6)},
    {"type": "StereoRandomScale", "octaves": (0, 0), "stretch_x": (-0.5, 0.5), "stretch_y": (-0.4, 0.4)},
    {"type": "StereoVerticalFlip", "p": 1.0},
    {"type": "StereoHorizontalFlip", "p": 1.0},
    {"type": "RightEraser", "number": (2, 2), "sides": (9, 15), "p": 1.0},
]
OTHERS = [
    {"type": "StereoColour", "transforms": [COLOUR], "asymmetric": 0.5},
    {"type": "RightRowShift", "rows": 2},
    {"type": "RightTilt", "degrees": 1.0, "rows": 2.0, "p": 1.0},
]
RANDOM = [cfg for cfg in GEOMETRIC + OTHERS if "size" not in cfg or cfg["type"] == "StereoRandomCrop"]
RANDOM = [{**cfg, "p": 0.5} if "Flip" in cfg["type"] else cfg for cfg in RANDOM]


def built(cfg):
    return TRANSFORMS.build({**cfg, "type": f"visionattn.{cfg['type']}"})


def within_surfaces(sample):
    """Where the views show one surface: at the card's borders they are blended, and the truth is not."""
    disparity, around = sample["disparity"], np.ones((5, 5))
    level = cv2.dilate(disparity, around) - cv2.erode(disparity, around) < 2
    return level & (cv2.erode((sample["valid"] & sample["nonoccluded"]).astype(np.uint8), around) > 0)


def name(cfg):
    return cfg["type"]


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("card", [None, CARD], ids=["plane", "card"])
@pytest.mark.parametrize("cfg", GEOMETRIC, ids=name)
def test_right_view_still_is_the_left_one_moved_by_the_disparity(cfg, card):
    before = plane_pair(card=card)
    errors = warp_errors(before)
    assert np.quantile(errors, 0.98) < 1.3  # the truth of the scene itself
    with seeded([card is None]):
        after = built(cfg)(before)
    errors = warp_errors(after, within_surfaces(after))
    assert len(errors) > 1000
    assert np.median(errors) < 1
    assert np.quantile(errors, 0.99) < 3


def test_chain_of_all():
    cfgs = [GEOMETRIC[8], GEOMETRIC[6], GEOMETRIC[9], GEOMETRIC[10], GEOMETRIC[0]]
    with seeded([3]):
        after = Compose([built(cfg) for cfg in cfgs])(plane_pair(card=CARD))
    assert after["left"].shape == (41, 63, 3)
    errors = warp_errors(after, within_surfaces(after))
    assert len(errors) > 500
    assert np.median(errors) < 1
    assert np.quantile(errors, 0.99) < 3


@pytest.mark.parametrize("cfg", GEOMETRIC + OTHERS, ids=name)
def test_sample_that_came_in_stays_and_types_stay(cfg):
    before = plane_pair(card=CARD) | {"foreground": np.eye(60, 90) > 0, "ori_shape": (60, 90)}
    kept = copy.deepcopy(before)
    with seeded([0]):
        after = built(cfg)(before)
    assert same(before, kept)
    for key in after.keys() - {"name", "ori_shape"}:
        assert after[key].dtype == before[key].dtype, key
        assert after[key].shape[:2] == after["left"].shape[:2], key
    assert (after["name"], after["ori_shape"]) == ("plane", (60, 90))


@pytest.mark.parametrize("channels", ["grey", "grey1", "rgba"])
@pytest.mark.parametrize("cfg", GEOMETRIC + OTHERS, ids=name)
def test_grey_and_rgba_views_come_out_as_their_rgb_would(cfg, channels):
    sample = plane_pair(card=CARD)
    pack = built({"type": "PackStereo"})
    if channels == "rgba":
        given = {key: np.dstack([sample[key], sample[key][..., 0]]) for key in ("left", "right")}
    else:
        sample |= {key: sample[key][..., :1].repeat(3, axis=2) for key in ("left", "right")}
        given = {key: sample[key][..., 0] if channels == "grey" else sample[key][..., :1] for key in ("left", "right")}
    packed = []
    for views in (given, {}):
        with seeded([5]):
            packed.append(pack(built(cfg)(sample | views))["inputs"])
    for key in ("left", "right"):
        assert packed[0][key].equal(packed[1][key])


@pytest.mark.parametrize("cfg", RANDOM, ids=name)
def test_draw_says_everything(cfg):
    """A sample is a function of its draw: whatever came before, in whatever order, by whichever transform object."""

    class Samples:
        def __init__(self):
            self.transform = built(cfg)

        def __getitem__(self, index):
            return self.transform(plane_pair(height=40, width=64, card=None))

    draws = [Draw(0, (1, number)) for number in range(12)]
    first = make_samples(Samples(), draws)
    np.random.seed(99)
    again = make_samples(Samples(), draws[::-1])[::-1]
    assert all(same(one, other) for one, other in zip(first, again, strict=True))
    assert sum(not same(first[0], other) for other in first[1:]) >= 3


@pytest.mark.parametrize("cfg", GEOMETRIC + OTHERS, ids=name)
def test_pair_without_truth(cfg):
    sample = plane_pair(card=CARD)
    with seeded([5]):
        with_truth = built(cfg)(sample)
    with seeded([5]):
        without = built(cfg)({"left": sample["left"], "right": sample["right"]})
    assert without.keys() == {"left", "right"}
    assert same(without, {key: with_truth[key] for key in ("left", "right")})


@pytest.mark.parametrize("cfg", GEOMETRIC + OTHERS, ids=name)
def test_views_of_different_sizes_are_refused(cfg):
    sample = plane_pair()
    with pytest.raises(ValueError, match="plane: sizes differ: left 60 x 90, right 60 x 88"):
        built(cfg)(sample | {"right": sample["right"][:, :88]})


def test_list_is_complete():
    """A transform that is added to the package is added here."""
    import visionattn.stereo as package

    classes = [getattr(package, name) for name in package.__all__]
    ours = {kind.__name__ for kind in classes if ".transforms_" in kind.__module__}
    assert ours == {cfg["type"] for cfg in GEOMETRIC + OTHERS}
