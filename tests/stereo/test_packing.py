from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import TRANSFORMS

from visionattn.stereo.packing import PackStereo, StereoSample


def raw(height=5, width=7):
    rng = np.random.default_rng(0)
    valid = rng.random((height, width)) > 0.3
    return {
        "left": rng.integers(0, 256, (height, width, 3), np.uint8),
        "right": rng.integers(0, 256, (height, width, 3), np.uint8),
        "disparity": np.where(valid, rng.uniform(0, 9, (height, width)), 0).astype(np.float32),
        "valid": valid,
        "name": "A/0000/0006",
        "left_path": "left/0006.png",
        "right_path": "right/0006.png",
        "disparity_path": "left/0006.pfm",
    }


def test_both_views_by_planes_and_the_truth():
    given = raw()
    packed = PackStereo()(given)
    for side in ("left", "right"):
        view = packed["inputs"][side]
        assert view.dtype == torch.uint8
        assert view.is_contiguous()
        np.testing.assert_array_equal(view, given[side].transpose(2, 0, 1))
    sample = packed["data_samples"]
    np.testing.assert_array_equal(sample.disparity, given["disparity"])
    np.testing.assert_array_equal(sample.valid, given["valid"])
    assert (sample.disparity.dtype, sample.valid.dtype) == (torch.float32, torch.bool)
    assert set(sample.keys()) == {"disparity", "valid"}
    assert sample.metainfo == {
        "name": "A/0000/0006",
        "left_path": "left/0006.png",
        "right_path": "right/0006.png",
        "disparity_path": "left/0006.pfm",
        "ori_shape": (5, 7),
    }


def test_maps_that_are_known_are_kept():
    given = raw()
    extra = {"nonoccluded": ~given["valid"], "foreground": given["valid"], "right_disparity": given["disparity"] * 2}
    sample = PackStereo()(given | extra | {"ori_shape": (50, 70)})["data_samples"]
    for key, array in extra.items():
        np.testing.assert_array_equal(sample.get(key), array)
    assert sample.ori_shape == (50, 70)
    assert sample.to("meta").disparity.device.type == "meta"  # travels with its tensors


def test_pair_without_truth():
    given = raw()
    packed = PackStereo()({"left": given["left"], "right": given["right"]})
    assert packed["data_samples"].keys() == []
    assert packed["data_samples"].ori_shape == (5, 7)


def test_arrays_that_are_views_of_others():
    given = raw(10, 14)
    given = {key: value[::-2, ::2] if isinstance(value, np.ndarray) else value for key, value in given.items()}
    packed = PackStereo()(given)
    np.testing.assert_array_equal(packed["inputs"]["left"], given["left"].transpose(2, 0, 1))
    np.testing.assert_array_equal(packed["data_samples"].disparity, given["disparity"])


@pytest.mark.parametrize("channels", [(), (1,), (4,)])
def test_grey_and_rgba_become_rgb(channels):
    view = np.random.default_rng(0).integers(0, 256, (5, 7, *channels), np.uint8)
    packed = PackStereo()(raw() | {"right": view})["inputs"]["right"]
    assert packed.shape == (3, 5, 7)
    for plane in range(3):
        np.testing.assert_array_equal(packed[plane], view[..., plane] if channels == (4,) else view.reshape(5, 7))


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"an image is uint8 .* got float64 \[5, 7\]"):
        PackStereo()(raw() | {"left": np.zeros((5, 7))})
    with pytest.raises(ValueError, match=r"an image is uint8 .* got uint8 \[5, 7, 2\]"):
        PackStereo()(raw() | {"left": np.zeros((5, 7, 2), np.uint8)})


def test_sizes_that_differ_name_the_sample():
    with pytest.raises(ValueError, match=r"left/0006\.png: sizes differ: left 5 x 7, right 5 x 8, disparity 5 x 7"):
        PackStereo()(raw() | {"right": np.zeros((5, 8, 3), np.uint8)})
    with pytest.raises(ValueError, match=r"sizes differ: .* valid 5 x 7 x 1"):
        PackStereo()(raw() | {"valid": np.ones((5, 7, 1), bool)})


def test_truth_that_is_not_finite():
    given = raw()
    given["valid"][0, :3] = [True, True, False]
    given["disparity"][0, :3] = np.nan, np.inf, np.nan
    with pytest.raises(ValueError, match=r"left/0006\.png: the disparity is NaN or infinite at 2 pixels"):
        PackStereo()(given)
    given["valid"][0, :2] = False
    sample = PackStereo()(given)["data_samples"]
    assert sample.disparity.isfinite().all()
    assert not sample.disparity[~sample.valid].any()


def test_validity_follows_from_the_disparity_where_it_is_not_given():
    given = raw()
    del given["valid"]
    given["disparity"][1, :4] = np.inf, np.nan, 0, 3
    sample = PackStereo()(given)["data_samples"]
    assert sample.valid[1, :4].tolist() == [False, False, False, True]
    assert sample.disparity[1, :4].tolist() == [0, 0, 0, 3]


def test_batch_is_lists_by_view():
    batch = pseudo_collate([TRANSFORMS.build({"type": "visionattn.PackStereo"})(raw()) for _ in range(2)])
    assert [len(batch["inputs"][side]) for side in ("left", "right")] == [2, 2]
    assert all(isinstance(sample, StereoSample) for sample in batch["data_samples"])
