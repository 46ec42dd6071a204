"""StereoMatcher: sizes, modes, and what it says of bad input."""

from __future__ import annotations

import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from visionattn.stereo.losses import WeightedSmoothL1Loss
from visionattn.stereo.matcher import StereoMatcher
from visionattn.stereo.packing import StereoSample
from visionattn.stereo.preprocessor import StereoPreprocessor


class Brightness(nn.Module):
    """The red of the left view as disparity; two outputs in training."""

    divisor, smallest = 16, 32

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, left: Tensor, right: Tensor) -> list[Tensor]:
        assert left.shape == right.shape
        self.seen.append(tuple(left.shape))
        disparity = self.scale * left[:, 0]
        return [2 * disparity, disparity] if self.training else [disparity]


def pair(height: int = 21, width: int = 45, truth: bool = True, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)
    sample = StereoSample(metainfo={"name": f"pair {seed}"})
    if truth:
        sample.disparity = left[0].float()
        sample.valid = torch.ones(height, width, dtype=torch.bool)
    return {"inputs": {"left": left, "right": right}, "data_samples": sample}


def matcher(**options) -> StereoMatcher:
    plain = StereoPreprocessor(mean=(0, 0, 0), std=(1, 1, 1))
    return StereoMatcher(Brightness(), WeightedSmoothL1Loss((0.0, 1.0)), data_preprocessor=plain, **options)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("side", ["top_right", "centre"])
def test_predictions_have_the_images_size_and_place(number: int, side: str) -> None:
    model = matcher(padding={"side": side}).eval()
    batch = [pair(seed=seed) for seed in range(number)]
    samples = model.test_step(pseudo_collate(batch))
    assert model.network.seen == [(number, 3, 32, 48)]
    assert len(samples) == number
    for sample, item in zip(samples, batch, strict=True):
        assert torch.equal(sample.predicted, item["inputs"]["left"][0].float())
        assert sample.name == item["data_samples"].name
        assert sample.seconds > 0


def test_loss_is_over_all_outputs_and_reaches_the_network() -> None:
    model = matcher().train()
    data = model.data_preprocessor(pseudo_collate([pair(seed=seed) for seed in range(2)]), training=True)
    losses = model(**data, mode="loss")
    assert losses["loss_disparity"].item() == 0  # the last output is the truth, the first has no weight
    assert len(model(data["inputs"], mode="tensor")) == 2
    losses["loss_disparity"].backward()
    assert model.network.scale.grad is not None


def test_pairs_without_truth_are_predicted_and_not_learned_from() -> None:
    model = matcher().eval()
    item = pair(truth=False)
    (sample,) = model.test_step(pseudo_collate([item]))
    assert sample.predicted.shape == (21, 45)
    (sample,) = model.test_step({"inputs": {key: view[None] for key, view in item["inputs"].items()}})
    assert sample.predicted.shape == (21, 45)
    data = model.data_preprocessor(pseudo_collate([pair(truth=False, seed=3)]))
    with pytest.raises(ValueError, match="pair 3 has no true disparity to learn from"):
        model(**data, mode="loss")
    data = model.data_preprocessor(pseudo_collate([pair()]))
    with pytest.raises(ValueError, match="has no loss; give it"):
        StereoMatcher(Brightness())(**data, mode="loss")
    with pytest.raises(ValueError, match="mode='predictions' must be"):
        model(**data, mode="predictions")


def test_preprocessor_normalises() -> None:
    data = StereoPreprocessor()(pseudo_collate([pair()]))
    left = data["inputs"]["left"]
    assert left.dtype == torch.float32
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    expected = (pair()["inputs"]["left"] / 255 - mean) / std
    torch.testing.assert_close(left[0], expected, rtol=0, atol=1e-5)
    assert not StereoPreprocessor().state_dict()


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"left views of different sizes, \[3, 21, 45\] and \[3, 21, 44\]; crop them"):
        StereoPreprocessor()(pseudo_collate([pair(), pair(width=44)]))
    item = pair()
    item["inputs"]["right"] = item["inputs"]["right"][:, 1:]
    with pytest.raises(ValueError, match=r"left and right views differ in size: \[1, 3, 21, 45\] and \[1, 3, 20, 45\]"):
        StereoPreprocessor()(pseudo_collate([item]))
    with pytest.raises(ValueError, match="three numbers each, deviations above 0"):
        StereoPreprocessor(std=(1, 1, 0))


def test_a_network_that_names_no_divisor_takes_any_size() -> None:
    assert StereoMatcher(nn.Identity()).padder.divisor == 1
