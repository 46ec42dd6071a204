"""Weights meet a model: what fits is loaded, what does not is said in one line."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import visionattn
from visionattn.weights.loading import load_checkpoint


def _net() -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 5, 3), norm=nn.BatchNorm2d(5)))


def _changed() -> dict[str, torch.Tensor]:
    return OrderedDict((name, value + 1) for name, value in _net().state_dict().items())


def _assert_loaded(net: nn.Module, state: dict[str, torch.Tensor]) -> None:
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("key", [None, "state_dict", "model", "module", "model_ema", "state_dict_ema", "teacher"])
@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_state_dicts_are_found(key: str | None, wrapper: str, tmp_path: Path) -> None:
    state = _changed()
    saved: dict[str, Any] = {f"{wrapper}{name}": value for name, value in state.items()}
    torch.save(saved if key is None else {key: saved, "epoch": 3}, tmp_path / "net.pth")
    net = _net()
    report = load_checkpoint(net, tmp_path / "net.pth")
    assert report.complete
    assert len(report.matched) == len(state)
    _assert_loaded(net, state)


def test_weights_of_a_models_only_part_load_into_it(tmp_path: Path) -> None:
    """As those of a stereo network into what pads its images and computes its loss."""
    state = _changed()
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "official.pth")
    matcher = nn.ModuleDict({"network": _net()})
    assert load_checkpoint(matcher, tmp_path / "official.pth").complete
    _assert_loaded(matcher["network"], state)
    other = nn.ModuleDict({"network": _net(), "head": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="belong to another model than ModuleDict: 0 tensors match"):
        load_checkpoint(other, tmp_path / "official.pth")


def test_safetensors_and_the_legacy_format_load(tmp_path: Path) -> None:
    state = _changed()
    save_file(state, tmp_path / "net.safetensors")
    torch.save(state, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    for name in ("net.safetensors", "legacy.pt"):
        net = _net()
        visionattn.load_checkpoint(net, tmp_path / name)
        _assert_loaded(net, state)


def test_a_prefix_takes_a_part(tmp_path: Path) -> None:
    state = _changed()
    whole = {f"backbone.{name}": value for name, value in state.items()} | {"head.weight": torch.ones(2)}
    torch.save({"state_dict": whole}, tmp_path / "segmentor.pth")
    net = _net()
    load_checkpoint(net, tmp_path / "segmentor.pth", prefix="backbone.")
    _assert_loaded(net, state)
    with pytest.raises(ValueError, match=r"segmentor\.pth: no name begins with 'neck\.'"):
        load_checkpoint(net, tmp_path / "segmentor.pth", prefix="neck.")


def test_another_models_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    state = _changed()
    state["norm.extra"] = state.pop("norm.weight")
    state["conv.weight"] = torch.ones(4, 3, 3, 3)
    torch.save(state, tmp_path / "other.pth")
    net = _net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError) as refused:
        load_checkpoint(net, tmp_path / "other.pth")
    assert str(refused.value) == (
        f"{tmp_path}/other.pth: the weights belong to another model than Sequential: 5 tensors match, "
        "1 missing (first: norm.weight), 1 unexpected (first: norm.extra), "
        "1 of another shape (first: conv.weight [4, 3, 3, 3], expected [5, 3, 3, 3]); strict=False loads what matches"
    )
    _assert_loaded(net, before)


def test_without_strict_what_matches_is_loaded_and_the_rest_reported(tmp_path: Path) -> None:
    state = _changed()
    bias = state["conv.bias"]
    state["norm.extra"] = state.pop("norm.weight")
    state["conv.weight"] = torch.ones(4, 3, 3, 3)
    torch.save(state, tmp_path / "other.pth")
    net = _net()
    report = load_checkpoint(net, tmp_path / "other.pth", strict=False)
    assert report.missing == ("norm.weight",)
    assert report.unexpected == ("norm.extra",)
    assert report.mismatched == {"conv.weight": "[4, 3, 3, 3], expected [5, 3, 3, 3]"}
    assert set(report.matched) == set(state) - {"norm.extra", "conv.weight"}
    assert torch.equal(net.conv.bias, bias)
    assert not report.complete


@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_which_nothing_matches_are_refused(strict: bool, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="0 tensors match, 6 missing"):
        load_checkpoint(_net(), tmp_path / "other.pth", strict=strict)


def test_the_prefix_behind_which_they_lie_is_named(tmp_path: Path) -> None:
    torch.save({f"net.body.{name}": value for name, value in _changed().items()}, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"0 tensors match, .*; prefix='net\.body\.' takes what stands behind it$"):
        load_checkpoint(_net(), tmp_path / "whole.pth")
    assert load_checkpoint(_net(), tmp_path / "whole.pth", prefix="net.body.").complete


def test_batch_norms_without_a_count_load(tmp_path: Path) -> None:
    state = _changed()
    del state["norm.num_batches_tracked"]
    save_file(state, tmp_path / "old.safetensors")
    net = _net()
    assert load_checkpoint(net, tmp_path / "old.safetensors").complete
    assert net.norm.num_batches_tracked == 0


class _Versioned(nn.Linear):
    _version = 2

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
        self.seen = local_metadata.get("version")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


@pytest.mark.parametrize("prefix", ["", "net."])
def test_modules_learn_the_version_that_wrote_them(prefix: str, tmp_path: Path) -> None:
    net = nn.ModuleDict({"part": _Versioned(2, 2)})
    torch.save(nn.ModuleDict({"net": net}).state_dict() if prefix else net.state_dict(), tmp_path / "net.pth")
    load_checkpoint(net, tmp_path / "net.pth", prefix=prefix)
    assert net["part"].seen == 2


def test_trained_weights_come_before_their_average(tmp_path: Path) -> None:
    trained, net = _changed(), _net()
    torch.save({"model_ema": net.state_dict(), "model": trained}, tmp_path / "net.pth")
    load_checkpoint(net, tmp_path / "net.pth")
    assert all(torch.equal(value, trained[name]) for name, value in net.state_dict().items())


def test_a_file_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "config": "x = 1"}, tmp_path / "meta.pth")
    with pytest.raises(ValueError, match=r"meta\.pth: no weights found: .* got epoch, config"):
        load_checkpoint(_net(), tmp_path / "meta.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth does not exist"):
        load_checkpoint(_net(), tmp_path / "nothing.pth")
