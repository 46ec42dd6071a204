"""What decides between a kernel and the plain form, and what it says."""

from __future__ import annotations

import logging
import subprocess
import sys

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
    assert why_not(name, *case(), features=served.features) is None
    assert str(served.features) in why_not(name, *case(), features=served.features + 1)


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
    for value in ("off", " OFF "):
        monkeypatch.setenv("VISIONATTN_KERNELS", value)
        assert not kernels_allowed()
        assert why_not("efficient_attention", *case()) == "VISIONATTN_KERNELS=off"
    monkeypatch.setenv("VISIONATTN_KERNELS", "on")
    assert kernels_allowed()


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
