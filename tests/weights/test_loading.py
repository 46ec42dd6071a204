"""Hostile files execute nothing, good ones load, and what does not fit a model is said in one line."""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import watch, write_archive, write_hostile_files, write_refused_files
from safetensors.torch import save_file
from torch import nn

import visionattn
from visionattn.weights import inert, loading
from visionattn.weights.loading import load_checkpoint, read_checkpoint

SAFE = "from visionattn.weights.loading import read_checkpoint as read"
UNRESTRICTED = """
import pickle, torch
def read(path):
    try:
        torch.load(path, weights_only=False)
    except Exception:
        pickle.load(open(path, "rb"))
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, tmp_path / "good.pth")
    return tmp_path / "good.pth"


def test_hostile_and_broken_files_execute_nothing_and_are_refused(tmp_path: Path, good: Path) -> None:
    canary = tmp_path / "canary"
    hostile = write_hostile_files(tmp_path / "hostile", canary)
    refused = write_refused_files(tmp_path / "refused")
    assert len(hostile) >= 20
    assert len(refused) >= 12
    seen, unrestricted = watch([SAFE, UNRESTRICTED], [*hostile, *refused], good, canary)
    for path, (outcome, events, made) in seen.items():
        assert outcome.startswith(f"ValueError: {path}"), f"{path}: {outcome}"
        assert "\n" not in outcome
        assert len(outcome) < 500
        assert events == [], path
        assert made == [], path
    # The files are what they claim: another reader executes each of them.
    harmless = {"getattr.pth"}  # makes the function without calling it
    assert {path.name for path in hostile if not unrestricted[path][1]} == harmless


def test_a_refusal_names_the_type_and_the_way_out(tmp_path: Path) -> None:
    files = {path.name: path for path in write_refused_files(tmp_path)}
    for name, type_name in (
        ("history_buffer.pth", "mmengine.logging.history_buffer.HistoryBuffer"),
        ("module.pth", "torch.nn.modules.linear.Linear"),
    ):
        with pytest.raises(ValueError, match=rf"{name} holds {type_name}, .* safetensors\.torch\.save_file"):
            read_checkpoint(files[name])


def test_other_peoples_allow_list_does_not_count(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    theirs = [nn.Linear, set, getattr]
    with torch.serialization.safe_globals(theirs):
        with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear"):
            read_checkpoint(tmp_path / "module.pth")
        assert set(theirs) <= set(torch.serialization.get_safe_globals())


def _numpy_named(value: Any, module: str) -> bytes:
    """`value` pickled with numpy's internals under the module name of numpy 1 or 2."""
    pickled = pickle.dumps(value, protocol=2)
    for name in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        pickled = pickled.replace(name, module.encode())
    return pickled


_VALUES = {
    "float64": np.float64(0.25),
    "int64": np.int64(-3),
    "bool": np.bool_(True),
    "float32 big-endian": np.arange(3, dtype=">f4")[1],
    "array": np.arange(12, dtype=np.float32).reshape(3, 4),
    "array big-endian": np.arange(12, dtype=">i4").reshape(3, 4),
    "array fortran": np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4)),
    "array 0-d": np.array(7, dtype=np.uint8),
}


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("name", list(_VALUES))
def test_numbers_of_numpy_come_back(name: str, module: str, tmp_path: Path) -> None:
    value = _VALUES[name]
    write_archive(tmp_path / "numpy.pth", _numpy_named({"value": value}, module))
    back = read_checkpoint(tmp_path / "numpy.pth")["value"]
    np.testing.assert_array_equal(back, value)
    assert back.dtype == value.dtype.newbyteorder("=")
    assert isinstance(back, np.ndarray) == isinstance(value, np.ndarray)


def test_an_array_that_was_read_pickles_as_a_plain_one(tmp_path: Path) -> None:
    torch.save({"value": np.arange(3)}, tmp_path / "numpy.pth")
    back = read_checkpoint(tmp_path / "numpy.pth")["value"]
    assert type(pickle.loads(pickle.dumps(back))) is np.ndarray


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\nX\x01\x00\x00\x00O\x89\x88\x87RNo\x86R.",
        pickle.dumps({"a": np.array(["text"])}, protocol=2),
        pickle.dumps({"a": np.array([1], dtype="M8[s]")}, protocol=2),
        _numpy_named({"a": np.zeros(4)}, "numpy._core.multiarray").replace(b"K\x04\x85", b"K\x09\x85"),
    ],
    ids=["object scalar", "strings", "dates", "more elements than bytes"],
)
def test_numpy_data_that_is_not_numbers_is_refused(pickled: bytes, tmp_path: Path) -> None:
    write_archive(tmp_path / "numpy.pth", pickled)
    with pytest.raises(ValueError, match=r"numpy\.pth cannot be read as weights"):
        read_checkpoint(tmp_path / "numpy.pth")


def test_namespaces_of_timms_checkpoints_come_back(tmp_path: Path) -> None:
    args = Namespace(model="vit_tiny", lr=0.1, betas=[0.9, 0.99])
    torch.save({"state_dict": {"a": torch.ones(2)}, "args": args}, tmp_path / "timm.pth.tar")
    assert read_checkpoint(tmp_path / "timm.pth.tar")["args"] == args


_NEEDED_BY = {
    "argparse.Namespace": pickle.dumps(Namespace(a=1), protocol=2),
    "numpy.dtype": pickle.dumps(np.float64(1), protocol=2),
    "numpy.ndarray": pickle.dumps(np.ones(2), protocol=2),
    "numpy.core.multiarray._reconstruct": _numpy_named(np.ones(2), "numpy.core.multiarray"),
    "numpy._core.multiarray._reconstruct": _numpy_named(np.ones(2), "numpy._core.multiarray"),
    "numpy.core.multiarray.scalar": _numpy_named(np.float64(1), "numpy.core.multiarray"),
    "numpy._core.multiarray.scalar": _numpy_named(np.float64(1), "numpy._core.multiarray"),
}


@pytest.mark.parametrize("name", list(inert.INERT_TYPES))
def test_each_type_on_the_allow_list_is_there_for_something(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A dict around the value, without pickling it again.
    pickled = b"\x80\x02}X\x05\x00\x00\x00value" + _NEEDED_BY[name][2:-1] + b"s."
    write_archive(tmp_path / "value.pth", pickled)
    assert "value" in read_checkpoint(tmp_path / "value.pth")
    fewer = {key: build for key, build in inert.INERT_TYPES.items() if key != name}
    monkeypatch.setattr(loading, "INERT_TYPES", fewer)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read_checkpoint(tmp_path / "value.pth")


def _net() -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 5, 3), norm=nn.BatchNorm2d(5)))


def _changed() -> dict[str, torch.Tensor]:
    return OrderedDict((name, value + 1) for name, value in _net().state_dict().items())


def _assert_loaded(net: nn.Module, state: dict[str, torch.Tensor]) -> None:
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("key", [None, "state_dict", "model", "module"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_state_dicts_are_found(key: str | None, wrapped: bool, tmp_path: Path) -> None:
    state = _changed()
    saved: dict[str, Any] = {f"module.{name}": value for name, value in state.items()} if wrapped else dict(state)
    torch.save(saved if key is None else {key: saved, "epoch": 3}, tmp_path / "net.pth")
    net = _net()
    report = load_checkpoint(net, tmp_path / "net.pth")
    assert report.complete
    assert len(report.matched) == len(state)
    _assert_loaded(net, state)


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


def test_a_file_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "config": "x = 1"}, tmp_path / "meta.pth")
    with pytest.raises(ValueError, match=r"meta\.pth: no weights found: .* got epoch, config"):
        load_checkpoint(_net(), tmp_path / "meta.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth does not exist"):
        load_checkpoint(_net(), tmp_path / "nothing.pth")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_checkpoint(tmp_path)
