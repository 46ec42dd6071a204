"""The page of stereo samples: what is on it, read back from the page itself."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_stereo import SIZE, tiny_pair, write_stereo

from visionattn.engine.browse import _round_edges, browse
from visionattn.stereo.packing import PackStereo, StereoSample
from visionattn.visualization.disparity import disparity_picture
from visionattn.visualization.sample_view import sample_view


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.fromfile(write_stereo(tmp_path)[0])


def _pictures(content: str) -> dict[str, np.ndarray]:
    found = re.findall(r'base64,([^"]+)" alt="([^"]+)"', content)
    return {
        name: cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        for data, name in found
    }


def _rows(content: str) -> list[tuple[float, float, float]]:
    found = re.findall(r'<tr><td>([-\d.e]+) to ([-\d.e]+)</td><td class="n">([\d.]+)</td>', content)
    return [(float(low), float(high), float(share)) for low, high, share in found]


def test_pairs_are_the_files_where_nothing_is_augmented(config: Config) -> None:
    content = browse(config, "train", number=3)
    shown = _pictures(content)
    assert len(shown) == 9
    for index in (0, 2, 4):
        pair = tiny_pair(index)
        for side in ("left", "right"):
            np.testing.assert_array_equal(shown[f"{side} of {pair['name']}"], pair[side])
        known = f"{pair['valid'].mean():.1%}".replace("%", " %").replace(".0 ", " ")
        assert f"disparity {index + 2:.1f} to {index + 2:.1f} px, {known} known" in content
    assert f"height {SIZE[0]}, width {SIZE[1]}" in content
    assert "&#x27;type&#x27;: &#x27;PackStereo&#x27;" in content


def test_the_histogram_counts_the_valid_pixels(config: Config) -> None:
    rows = _rows(browse(config, "train", number=5))
    assert sum(share for *_, share in rows) == pytest.approx(100, abs=0.1)
    counts = [tiny_pair(index)["valid"].sum() for index in range(5)]
    for index, count in enumerate(counts):
        (share,) = (share for low, high, share in rows if low <= index + 2 < high)
        assert share == pytest.approx(100 * count / sum(counts), abs=0.006)


def test_the_disparity_lies_over_the_grey_picture() -> None:
    truth = np.random.default_rng(0).uniform(1, 30, (24, 480)).astype(np.float32)
    valid = np.random.default_rng(1).random((24, 480)) < 0.6
    left = np.full((24, 480, 3), 100, np.uint8)
    packed = PackStereo()({"left": left, "right": left, "disparity": truth, "valid": valid, "nonoccluded": valid})
    view = sample_view(packed["data_samples"], {"left": left, "right": left}, {})
    tile = view.tiles[2][1][:24]
    np.testing.assert_array_equal(tile[~valid], np.full((int((~valid).sum()), 3), 100))
    high = float(np.percentile(truth[valid], 99.9))
    colours = disparity_picture(truth, valid, high=high)
    np.testing.assert_allclose(tile[valid], 0.7 * colours[valid] + 30, atol=0.51)
    assert "100 % seen by both views" in view.note
    np.testing.assert_array_equal(view.values, truth[valid])


@pytest.mark.parametrize("known", [True, False])
def test_a_pair_without_truth_is_shown_as_it_is(known: bool) -> None:
    left = np.zeros((4, 6, 3), np.uint8)
    sample = StereoSample()
    if known:
        sample.disparity, sample.valid = torch.zeros(4, 6), torch.zeros(4, 6, dtype=torch.bool)
    view = sample_view(sample, {"left": left, "right": left}, {})
    assert [title for title, _ in view.tiles][:2] == ["left", "right"]
    assert view.note == ("no valid pixel" if known else "no disparity")
    assert view.values is None


@pytest.mark.parametrize(("low", "high"), [(0.2, 191.7), (3.0, 3.0), (-0.4, 0.9), (10, 1e5), (0, 20)])
def test_ranges_are_equal_round_and_hold_everything(low: float, high: float) -> None:
    edges = _round_edges(low, high)
    assert edges[0] <= low
    assert edges[-1] >= high
    assert 2 <= len(edges) <= 24
    steps = np.diff(edges)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
