"""Hostile and damaged files execute nothing and are refused; numbers of numpy come back."""

from __future__ import annotations

import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import watch, write_archive, write_hostile_files, write_refused_files
from torch import nn

from visionattn.weights import inert, reading
from visionattn.weights.durable import save_durably
from visionattn.weights.reading import read_checkpoint

SAFE = "from visionattn.weights.reading import read_checkpoint as read"
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
        assert len(outcome.replace(str(path), "")) < 450
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
    monkeypatch.setattr(reading, "INERT_TYPES", fewer)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read_checkpoint(tmp_path / "value.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth does not exist"):
        read_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_checkpoint(tmp_path)


def test_a_text_is_no_weights_file(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("hello")  # torch's reader looks up the first letter as an operation: KeyError(101)
    with pytest.raises(ValueError, match=r"a\.pth cannot be read as weights \(another kind .*\): KeyError 101$"):
        read_checkpoint(tmp_path / "a.pth")


def _damaged(path: Path) -> bytes:
    """The file with 200 bytes in the middle inverted: inside the weights."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(byte ^ 0xFF for byte in content[middle : middle + 200])
    return bytes(content)


def test_a_damaged_copy_without_a_manifest_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.randn(5000)}, tmp_path / "a.pth")
    (tmp_path / "copy.pth").write_bytes(_damaged(tmp_path / "a.pth"))
    assert len(read_checkpoint(tmp_path / "a.pth")["weight"]) == 5000
    with pytest.raises(ValueError, match=r"copy\.pth is damaged: its part 'a/data/0' cannot be read: Bad CRC-32"):
        read_checkpoint(tmp_path / "copy.pth")


def test_an_archive_that_was_saved_without_sums_is_read(tmp_path: Path) -> None:
    computed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": torch.arange(5)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(computed)
    assert torch.equal(read_checkpoint(tmp_path / "a.pth")["weight"], torch.arange(5))


def test_what_the_manifest_vouches_for_is_read_once_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_durably({"weight": torch.arange(5)}, tmp_path / "a.pth")
    checked: list[Path] = []
    monkeypatch.setattr(reading, "_check_archive", checked.append)
    read_checkpoint(tmp_path / "a.pth")
    assert checked == []
