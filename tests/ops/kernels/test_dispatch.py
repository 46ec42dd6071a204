"""What decides between a kernel and the plain form, and what it says."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from visionattn.ops.efficient_attention import efficient_attention
from visionattn.ops.kernels import dispatch
from visionattn.ops.kernels.dispatch import (
    LITTLE_SHARED,
    TABLE,
    VOLUMES,
    kernels_allowed,
    missing_for_builds,
    serves,
    why_not,
    why_not_volume,
)

pytest.importorskip("triton")


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device would do: what is left to decide on is the case."""
    monkeypatch.setattr(dispatch, "_unready", lambda device: None)


def case(dtype: torch.dtype = torch.float32, tokens: int = 5, key: int = 4, value: int = 6) -> list[Tensor]:
    return [torch.zeros(2, 3, tokens, width, dtype=dtype) for width in (key, key, value)]


@pytest.mark.parametrize("name", TABLE)
def test_the_table_is_what_decides(name: str, ready: None) -> None:
    served = TABLE[name]
    assert why_not(name, *case(key=served.key_width, value=served.value_width)) is None
    assert str(served.key_width) in why_not(name, *case(key=served.key_width + 1))
    assert str(served.value_width) in why_not(name, *case(value=served.value_width + 1))
    if served.features:
        assert why_not(name, *case(), None, torch.zeros(served.features, 4)) is None
        assert str(served.features) in why_not(name, *case(), None, torch.zeros(served.features + 1, 4))


@pytest.mark.parametrize("name", LITTLE_SHARED)
def test_devices_with_little_shared_memory_get_narrower_cases(
    name: str, ready: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_shared_memory", lambda device: 99 * 1024)
    served = LITTLE_SHARED[name]
    assert served.key_width < TABLE[name].key_width
    assert why_not(name, *case(key=served.key_width, value=served.value_width)) is None
    assert str(served.key_width) in why_not(name, *case(key=served.key_width + 1))


def test_why_a_kernel_does_not_serve(ready: None) -> None:
    q, k, v = case()

    def reason(*tensors: Tensor) -> str:
        return why_not("efficient_attention", *tensors) or "served"

    assert reason(q, k, v) == "served"
    assert reason(q, k, v, torch.ones(2, 5, dtype=torch.bool)) == "served"
    assert "float64 is not served" in reason(*case(torch.float64))
    assert "differ in dtype" in reason(q, k, v.bfloat16())
    assert "no elements" in reason(*case(tokens=0))
    assert "several devices" in reason(q, k, v.to("meta"))
    far = torch.empty_strided((2, 3, 5, 4), (1, 1, 2**29, 1), device="meta")
    assert "2**31" in reason(far, far, far)
    # Few keys, and so few values: what is large is the answer.
    q, few, wide = (torch.empty(shape, device="meta") for shape in ((1, 1, 2**23, 1), (1, 1, 2, 1), (1, 1, 2, 256)))
    assert "2**31" in reason(q, few, wide)
    q, k, v = case()

    class Marked(Tensor):
        pass

    assert "subclass" in reason(q.as_subclass(Marked), k, v)
    under: list[str] = []

    def watched(t: Tensor) -> Tensor:
        under.append(reason(t, k, v))
        return t

    torch.func.grad(lambda t: watched(t).sum())(q)
    with torch.autograd.forward_ad.dual_level():
        watched(q)
    torch.jit.trace(watched, q, check_trace=False)
    assert [r.split()[0] for r in under] == ["a", "a", "the"]


MISFITS = {
    "one image of keys for two of queries": (lambda q, k, v: (q, k[:1], v[:1], None), "do not fit"),
    "one head of keys for all of the queries": (lambda q, k, v: (q, k[:, :1], v[:, :1], None), "do not fit"),
    "narrower keys": (lambda q, k, v: (q, k[..., :3], v, None), "do not fit"),
    "fewer values": (lambda q, k, v: (q, k, v[:, :, :3], None), "do not fit"),
    "a mask of numbers": (lambda q, k, v: (q, k, v, torch.ones(2, 5, dtype=torch.int64)), "torch.int64"),
    "a mask of the queries": (lambda q, k, v: (q[:, :, :2], k, v, torch.ones(2, 2, dtype=torch.bool)), "[2, 2]"),
    "one mask for two images": (lambda q, k, v: (q, k, v, torch.ones(1, 5, dtype=torch.bool)), "[1, 5]"),
}


@pytest.mark.parametrize(("change", "said"), MISFITS.values(), ids=MISFITS)
def test_what_a_kernel_would_read_beside_the_tensors_for(
    change: Callable[..., tuple[Tensor | None, ...]], said: str, ready: None
) -> None:
    assert said in (why_not("efficient_attention", *change(*case())) or "")


def test_a_projection_fits_the_queries(ready: None) -> None:
    def reason(projection: Tensor) -> str:
        return why_not("feature_attention", *case(), None, projection) or "served"

    assert reason(torch.zeros(7, 4)) == "served"
    assert "[7, 3]" in reason(torch.zeros(7, 3))
    assert "several devices" in reason(torch.zeros(7, 4, device="meta"))


@pytest.mark.parametrize("shared", ["image", "head"])
def test_shared_keys_are_broadcast_as_ever(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the plain form, also where kernels are."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, width) for width in (4, 4, 6))
    one = (slice(0, 1),) if shared == "image" else (slice(None), slice(0, 1))
    expected = efficient_attention(q, k[one].expand_as(k), v[one].expand_as(v))
    monkeypatch.setattr(dispatch, "_unready", lambda device: None)
    monkeypatch.setattr("visionattn.ops.efficient_attention.asked_for", lambda t: True)
    monkeypatch.setattr("visionattn.ops.efficient_attention.efficient_attention_op", None)
    torch.testing.assert_close(efficient_attention(q, k[one], v[one]), expected)


@pytest.mark.parametrize("name", VOLUMES)
def test_why_a_kernel_does_not_serve_a_volume(name: str, ready: None) -> None:
    maps = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5)
    most = VOLUMES[name].growth
    assert why_not_volume(name, maps, elements=2**31 - 1, extents=((4, 4), (5, 5 * most))) is None
    assert "2**31" in why_not_volume(name, maps, elements=2**31)
    assert f"5 points of an axis become {5 * most + 1}" in why_not_volume(name, maps, extents=((5, 5 * most + 1),))
    assert "4 points of an axis become 3" in why_not_volume(name, maps, extents=((4, 3),))
    far = torch.empty_strided((2, 3, 4, 5), (1, 2**30 + 1, 1, 1), device="meta")
    assert "2**31" in why_not_volume(name, (far, far))
    many = torch.empty_strided((3, 3, 4, 5), (2**31, 1, 1, 1), device="meta")  # images may be anywhere
    assert why_not_volume(name, (many,)) is None
    assert "float64 is not served" in why_not_volume(name, (maps[0].double(),))
    assert "differ in dtype" in why_not_volume(name, (maps[0], maps[1].half()))
    assert "several devices" in why_not_volume(name, (maps[0], maps[1].to("meta")))
    assert "no elements" in why_not_volume(name, (maps[0][:0],))


def test_a_device_without_kernels_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no CUDA device but cpu" in why_not("efficient_attention", *case())
    for value in ("off", " OFF ", "0", "false"):
        monkeypatch.setenv("VISIONATTN_KERNELS", value)
        assert not kernels_allowed()
        assert why_not("efficient_attention", *case()) == "VISIONATTN_KERNELS=off"
    for value in ("on", "1", ""):
        monkeypatch.setenv("VISIONATTN_KERNELS", value)
        assert kernels_allowed()
    monkeypatch.setenv("VISIONATTN_KERNELS", "none")
    with pytest.raises(ValueError, match="VISIONATTN_KERNELS=none is neither on nor off"):
        kernels_allowed()


def test_a_machine_where_triton_cannot_build_takes_the_plain_form(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As many images for containers are: without a compiler, or without Python's headers."""
    (tmp_path / "gcc").touch(mode=0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda *args: str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_for_builds() is None
    (tmp_path / "gcc").unlink()
    assert "no C compiler" in (missing_for_builds() or "")
    monkeypatch.setenv("CC", "some-cc")
    assert missing_for_builds() is None
    (tmp_path / "Python.h").unlink()
    assert str(tmp_path) in (missing_for_builds() or "")
    monkeypatch.setattr(dispatch, "_MISSING", "no compiler")
    assert dispatch._unready(torch.device("cuda")) == "no compiler"


def test_the_log_says_why(ready: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="visionattn.kernels"):
        assert serves("efficient_attention", *case())
        assert not serves("efficient_attention", *case(torch.float64))
    assert [r.getMessage() for r in caplog.records] == [
        "efficient_attention: the plain form, because torch.float64 is not served"
    ]


def test_an_export_takes_the_plain_form(ready: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that holds one of our ops could not be loaded without this package."""

    class Attends(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return efficient_attention(q, k, v)

    monkeypatch.setattr(dispatch, "INTERPRETED", True)  # as if on a GPU: the CPU is asked for as well
    with torch.no_grad():
        program = torch.export.export(Attends(), tuple(case()))
    assert not [n for n in program.graph.nodes if "visionattn" in str(n.target)]


def test_importing_the_ops_imports_no_triton() -> None:
    check = (
        "import sys, torch\n"
        "import visionattn.attention.efficient, visionattn.attention.linear, visionattn.attention.performer\n"
        "import visionattn.stereo.shortcuts\n"
        "from visionattn.ops.efficient_attention import efficient_attention as attend\n"
        "attend(*(torch.ones(1, 1, 2, 2) for _ in range(3)))\n"
        "assert 'triton' not in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
