"""CompactStereo: shapes, gradients, attention that starts as the identity, and that it learns to match."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from visionattn.registry import MODELS
from visionattn.stereo.compact import CompactStereo
from visionattn.stereo.losses import WeightedSmoothL1Loss

RESNET = {
    "type": "visionattn.TimmBackbone",
    "model_name": "resnet18",
    "out_indices": (1, 2),
    "timm_options": {"channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1), "zero_init_last": False},
}
SWIN = {
    "type": "visionattn.SwinTransformer",
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (2, 2),
    "window": (4, 4),
    "out_indices": (0, 1),
}


def network(**options: Any) -> CompactStereo:
    torch.manual_seed(0)
    small = {"backbone": RESNET, "max_disparity": 32, "channels": 8, "groups": 4, "volume_channels": 4}
    return MODELS.build({"type": "visionattn.CompactStereo", **small, **options})


@pytest.mark.parametrize("backbone", [RESNET, SWIN], ids=["resnet", "swin"])
def test_any_backbone_gives_disparities_and_gets_gradients(backbone: dict[str, Any]) -> None:
    model = network(backbone=backbone, attention={"features": "EfficientAttention", "cost": "EfficientAttention"})
    left, right = torch.randn(2, 2, 3, 48, 80)
    for plugin in model.attention.values():
        torch.nn.init.ones_(plugin.gamma)  # zero as it begins: nothing behind it would learn in the first step
    outputs = model(left, right)
    assert [list(d.shape) for d in outputs] == [[2, 48, 80]] * 2
    sum(d.square().mean() for d in outputs).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    (disparity,) = model.eval()(left[:1], right[:1])
    assert disparity.shape == (1, 48, 80)
    assert disparity.dtype == torch.float32


def test_inserted_attention_starts_as_the_identity() -> None:
    places = dict.fromkeys(("features", "cost", "hourglass"), "EfficientAttention")
    plain, attentive = network().eval(), network(attention=places).eval()
    report = attentive.load_state_dict(plain.state_dict(), strict=False)
    assert {name.split(".")[0] for name in report.missing_keys} == {"attention"}
    left, right = torch.randn(2, 1, 3, 32, 64)
    with torch.no_grad():
        before, after = plain(left, right)[0], attentive(left, right)[0]
        assert torch.equal(before, after)
        for place in places:
            torch.nn.init.ones_(attentive.attention[place].gamma)
            changed = attentive(left, right)[0]
            assert not torch.allclose(after, changed), place
            after = changed


def shifted(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise of two-pixel grains and its right view, 4 pixels away, and another 12 away."""
    generator = torch.Generator().manual_seed(seed)
    strips = torch.randn(2, 3, 16, 40, generator=generator).repeat_interleave(2, 2).repeat_interleave(2, 3)
    right = torch.stack([strip[..., d : 64 + d] for strip, d in zip(strips, (4, 12), strict=True)])
    return strips[..., :64], right, torch.tensor([4.0, 12.0]).view(2, 1, 1).expand(2, 32, 64)


def test_it_learns_to_match() -> None:
    """On noise that it has not seen, where nothing but the match tells; the best constant is 4 pixels off."""
    model = network()
    inside = (torch.arange(64) >= 12).expand(2, 32, 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss_function = WeightedSmoothL1Loss((0.5, 1.0))
    for step in range(50):
        left, right, truth = shifted(step)
        optimizer.zero_grad()
        loss_function(model(left, right), truth, inside).backward()
        optimizer.step()
    left, right, truth = shifted(1000)
    error = (model(left, right)[-1] - truth).abs()[inside].mean()
    assert error < 1.5


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="max_disparity=100 must be a multiple of 16"):
        network(max_disparity=100)
    with pytest.raises(ValueError, match="groups=3 does not divide channels=8"):
        network(groups=3)
    with pytest.raises(KeyError, match="no place 'spp' for attention; it has features, cost, hourglass"):
        network(attention={"spp": "EfficientAttention"})
    with pytest.raises(ValueError, match="that 16 divides, 32 and more, got 30 x 64; pad the pair"):
        network()(torch.zeros(1, 3, 30, 64), torch.zeros(1, 3, 30, 64))
