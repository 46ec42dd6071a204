"""EA-PSMNet, NL-PSMNet and every other: any mechanism at any place, the identity at insertion."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from visionattn.attention.build import attention_class, build_attention, list_attention
from visionattn.stereo.psmnet import PSMNet
from visionattn.weights.loading import load_checkpoint

GRIDS = {"spp": (8, 16), "cost": (4, 8, 16), "hourglass": (1, 2, 4)}  # of a pair of 32x64 with 16 disparities
SMALL: dict[str, Any] = {
    "type": "TimmBackbone",
    "model_name": "resnet18",
    "timm_options": {"channels": (8, 8, 8, 8), "zero_init_last": False},
}
CASES = [(name, place) for name in list_attention() for place in GRIDS]


def network(**options: Any) -> PSMNet:
    """One on a small backbone, which takes small pairs."""
    torch.manual_seed(0)
    return PSMNet(16, backbone=SMALL, **options).eval()


def pair() -> tuple[Tensor, Tensor]:
    left, right = torch.randn(2, 1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    return left, right


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Path]:
    """A plain network's disparity of the pair, and its checkpoint."""
    model = network()
    path = tmp_path_factory.mktemp("psmnet") / "plain.tar"
    torch.save({"epoch": 10, "state_dict": {f"module.{key}": v for key, v in model.state_dict().items()}}, path)
    with torch.no_grad():
        return model(*pair())[0], path


def config(name: str, place: str) -> dict[str, Any]:
    """A mechanism for the grid at a place, with shifted windows of as many axes where it has them."""
    options: dict[str, Any] = {"grid": GRIDS[place]}
    if "shift" in inspect.signature(attention_class(name)).parameters:
        options.update(window=(2,) * len(GRIDS[place]), shift=(0,) * len(GRIDS[place]))
    return {"type": name, **options}


def fits(name: str, place: str) -> bool:
    try:
        return len(GRIDS[place]) in build_attention(config(name, place), 32).grid_dims
    except ValueError:
        return False


def test_there_are_mechanisms_and_places() -> None:
    assert {place for name, place in CASES if fits(name, place)} == set(GRIDS)
    assert sum(fits(name, place) for name, place in CASES) > 10


@pytest.mark.parametrize(("name", "place"), CASES)
def test_a_mechanism_starts_as_the_identity(name: str, place: str, plain: tuple[Tensor, Path]) -> None:
    wanted, checkpoint = plain
    if not fits(name, place):
        with pytest.raises(ValueError), torch.no_grad():
            network(attention={place: config(name, place)})(*pair())
        return
    model = network(attention={place: config(name, place)})
    report = load_checkpoint(model, checkpoint, strict=False)
    assert not report.unexpected
    assert report.missing
    assert all(key.startswith(f"attention.{place}.") for key in report.missing)
    plugin = model.attention[place]
    seen: list[Tensor] = []
    plugin.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    with torch.no_grad():
        assert torch.equal(model(*pair())[0], wanted)
        assert [tuple(x.shape[2:]) for x in seen] == [GRIDS[place]] * (2 if place == "spp" else 1)
        torch.nn.init.ones_(plugin.gamma)
        assert not torch.allclose(plugin(seen[0]), seen[0])


def test_all_places_at_once_learn() -> None:
    attention = {place: {"type": "EfficientAttention", "qkv_bias": False} for place in GRIDS}
    model = network(attention=attention).train()
    for plugin in model.attention.values():
        torch.nn.init.constant_(plugin.gamma, 0.5)
    disparities = model(*torch.randn(2, 2, 3, 32, 64))
    assert [list(d.shape) for d in disparities] == [[2, 32, 64]] * 3
    sum(d.square().mean() for d in disparities).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_checkpoint_of_another_network_is_refused(plain: tuple[Tensor, Path]) -> None:
    """Only the attention may be missing."""
    with pytest.raises(ValueError, match="feature_extraction"):
        load_checkpoint(PSMNet(16, attention={"spp": "NonLocal"}), plain[1], allow=("attention.*",))


def test_a_view_may_look_at_the_other(plain: tuple[Tensor, Path]) -> None:
    wanted, checkpoint = plain
    model = network(cross_view="EfficientAttention")
    report = load_checkpoint(model, checkpoint, strict=False)
    assert {key.split(".")[0] for key in report.missing} == {"cross_view"}
    assert not report.unexpected
    left, right = pair()
    with torch.no_grad():
        assert torch.equal(model(left, right)[0], wanted)
        torch.nn.init.ones_(model.cross_view.gamma)
        assert not torch.allclose(model(left, right)[0], wanted)
    with pytest.raises(TypeError, match="WindowAttention cannot look at another map"):
        network(cross_view="WindowAttention")
