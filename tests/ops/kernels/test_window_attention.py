"""The op of window attention as PyTorch sees it: registration, compilation, export; and the modules that call it."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_cases import assert_differentiable_once, key_mask
from torch import Tensor, nn

from visionattn.attention.build import build_attention
from visionattn.attention.window import WindowAttention
from visionattn.backbones.swin import SwinTransformer, SwinTransformerV2
from visionattn.ops.kernels import dispatch
from visionattn.ops.kernels.dispatch import TABLE, why_not_windows
from visionattn.ops.kernels.window_attention import window_attention_op
from visionattn.ops.kernels.window_attention_eager import summed_by_offset
from visionattn.ops.window import relative_position_index

GRID, WINDOW, SHIFT, HEADS = (5, 7), (4, 3), (2, 1), 2
FORMS = ("bare", "with a bias, padding seen", "cosines, padding seen, masked", "shifted before padding")


def arguments(form: str, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    """The op's, in the order of its signature; qkv is part of a larger tensor."""
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    qkv = leaf(2, *GRID, 3, HEADS + 1, 4, dtype=dtype).detach()[..., 1:, :].requires_grad_()
    bare = form == FORMS[0]
    seen = "seen" in form or form == FORMS[3]
    return (
        qkv,
        None if bare else leaf(7 * 5, HEADS),
        leaf(2, HEADS, 4) if seen else None,
        leaf(HEADS).detach().abs().requires_grad_() if "cosines" in form else None,
        key_mask("one image without", 2, GRID[0] * GRID[1]) if "masked" in form else None,
        WINDOW,
        SHIFT,
        not seen,
        form == FORMS[3],
    )


@pytest.mark.parametrize(("form", "dtype"), zip(FORMS, [torch.float32, torch.bfloat16] * 2, strict=True))
def test_opcheck(form: str, dtype: torch.dtype) -> None:
    torch.library.opcheck(window_attention_op, arguments(form, dtype))


@pytest.mark.parametrize("form", FORMS[1:3])
def test_compiles_in_one_graph(form: str) -> None:
    given = arguments(form)
    leaves = [t for t in given if isinstance(t, Tensor) and t.requires_grad]

    def function(*given: Any) -> Tensor:
        return window_attention_op(*given)[0].square().sum()

    expected = torch.autograd.grad(function(*given), leaves)
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for ours, theirs in zip(torch.autograd.grad(compiled(*given), leaves), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_second_derivative_is_refused() -> None:
    given = arguments(FORMS[1])
    assert_differentiable_once(window_attention_op(*given)[0], given[0])


@pytest.mark.parametrize("form", FORMS[1:3])
def test_exports_with_any_map(form: str) -> None:
    given = [t.detach() if isinstance(t, Tensor) else t for t in arguments(form)]
    rest = given[1:4]

    class Attends(nn.Module):
        def forward(self, qkv: Tensor) -> Tensor:
            return window_attention_op(qkv, *rest, None, *given[5:])[0]

    height, width = torch.export.Dim("height", min=2), torch.export.Dim("width", min=2)
    qkv = given[0].contiguous()
    program = torch.export.export(Attends(), (qkv,), dynamic_shapes=({1: height, 2: width},))
    assert [n for n in program.graph.nodes if "visionattn" in str(n.target)]
    larger = torch.cat([qkv, qkv.flip(1, 2)], dim=2)[:, :4]
    torch.testing.assert_close(program.module()(larger), Attends()(larger))


@pytest.mark.parametrize("window", [(3, 4), (1, 3), (1, 1)])
def test_offsets_are_summed_as_the_table_is_read(window: tuple[int, int]) -> None:
    index = relative_position_index(window)
    grad = torch.randn(HEADS, *index.shape, dtype=torch.float64)
    expected = torch.zeros(int(index.max()) + 1, HEADS, dtype=torch.float64)
    for query, key in itertools.product(range(len(index)), repeat=2):
        expected[index[query, key]] += grad[:, query, key]
    torch.testing.assert_close(summed_by_offset(grad, window), expected)


def test_the_table_is_what_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_unready", lambda device: None)
    served = TABLE["window_attention"]

    def reason(width: int = 4, window: tuple[int, int] = WINDOW, dtype: torch.dtype = torch.float32) -> str | None:
        return why_not_windows(torch.zeros(1, 2, 2, 3, 1, width, dtype=dtype), None, window)

    assert reason() is None
    assert reason(served.key_width, (16, served.positions // 16)) is None
    assert "64" in (reason(served.key_width + 1) or "")
    assert "a window of 272 positions is above 256" in (reason(window=(16, 17)) or "")
    assert "float64 is not served" in (reason(dtype=torch.float64) or "")
    far = torch.empty_strided((1, 2, 2, 3, 1, 4), (1, 2**31, 12, 4, 4, 1), device="meta")
    assert "2**31" in (why_not_windows(far, None, WINDOW) or "")


# The modules.


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules take the op, whose eager twin answers on the CPU; the forward and backward ops that were called."""
    called: list[str] = []
    monkeypatch.setattr(dispatch, "_unready", lambda device: None)
    monkeypatch.setattr("visionattn.attention.window.walked_projections", lambda *args, **kwargs: None)
    monkeypatch.setattr("visionattn.attention.window.asked_for", lambda t: True)
    monkeypatch.setattr("visionattn.ops.kernels.window_attention.asked_for", lambda t: called.append("window"))
    return called


def make(name: str, **options: Any) -> WindowAttention:
    torch.manual_seed(0)
    mixer = build_attention({"type": name, "num_heads": HEADS, "window": WINDOW, "shift": SHIFT, **options}, 8)
    assert isinstance(mixer, WindowAttention)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3)
    return mixer


def outputs(run: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> list[Tensor]:
    """The answer and the gradients of x and of every parameter."""
    x = x.detach().requires_grad_()
    out = run(x)
    return [out.detach(), *torch.autograd.grad(out.float().square().sum(), [x, *module.parameters()])]


MODULES = [
    ("WindowAttention", {}),
    ("WindowAttention", {"mask_padding": False}),
    ("WindowAttention", {"relative_position_bias": False, "qkv_bias": False, "mask_padding": False}),
    ("WindowAttention", {"mask_padding": False, "shift_before_padding": True}),
    ("WindowAttention", {"mask_padding": False, "shift_covered_axes": True, "window": (4, 8), "shift": (1, 4)}),
    ("WindowAttentionV2", {"mask_padding": False}),
    ("WindowAttentionV2", {"qkv_bias": False}),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("name", "options"), MODULES, ids=str)
def test_modules_take_the_op(
    name: str, options: dict[str, Any], masked: bool, as_on_a_gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixer, x = make(name, **options), torch.randn(2, *GRID, 8)
    mask = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(1)) > 0.4 if masked else None
    ours = outputs(lambda x: mixer(x, mask=mask), mixer, x)
    assert len(as_on_a_gpu) == 2
    monkeypatch.undo()
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    for mine, theirs in zip(ours, outputs(lambda x: mixer(x, mask=mask), mixer, x), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["WindowAttention", "WindowAttentionV2"])
def test_under_autocast_the_op_gets_half_precision(
    name: str, as_on_a_gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixer, x = make(name, mask_padding=False), torch.randn(2, *GRID, 8)

    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return mixer(x)

    ours = outputs(run, mixer, x)
    assert len(as_on_a_gpu) == 2
    assert ours[0].dtype == torch.bfloat16
    monkeypatch.undo()
    for mine, theirs in zip(ours, outputs(mixer, mixer, x), strict=True):
        assert (mine - theirs).abs().max() < 0.05 * theirs.abs().max().clamp(min=1)


@pytest.mark.parametrize("swin", [SwinTransformer, SwinTransformerV2])
@pytest.mark.parametrize("training", [True, False])
def test_swin_takes_the_op_in_every_block(
    swin: type[nn.Module], training: bool, as_on_a_gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    options = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "window": (3, 4), "out_indices": (0, 1)}
    backbone = swin(image_size=(32, 44), drop_path_rate=0.0, **options).train(training)
    images = torch.randn(2, 3, 32, 44)
    with torch.set_grad_enabled(training):
        ours = backbone(images)
        again = backbone(images)
    assert len(as_on_a_gpu) == 8
    monkeypatch.undo()
    plain = copy.deepcopy(backbone)(images)
    for mine, repeated, theirs in zip(ours, again, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
        assert torch.equal(mine, repeated)


def test_a_kept_table_follows_the_weights(as_on_a_gpu: list[str]) -> None:
    mixer, x = make("WindowAttentionV2").eval(), torch.randn(1, *GRID, 8)
    with torch.no_grad():
        before = mixer(x)
        assert torch.equal(mixer(x), before)
        mixer.cpb_mlp[2].weight.mul_(2)
        assert not torch.allclose(mixer(x), before)
    assert len(as_on_a_gpu) == 3


class Watching(WindowAttention):
    """Might look at queries."""


def replaced(mixer: WindowAttention) -> WindowAttention:
    mixer.attend = mixer.attend  # type: ignore[method-assign]
    return mixer


BEYOND: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dropout": (lambda: make("WindowAttention", attn_drop=0.5).train(), "attention weights are dropped"),
    "subclass": (lambda: Watching(8, num_heads=2, window=WINDOW), "attend is not that of a published class"),
    "watched": (lambda: replaced(make("WindowAttention")), "attend is not that of a published class"),
    "widths": (lambda: make("WindowAttention", key_dim=4), "keys are 4 wide, values 8"),
    "window": (lambda: make("WindowAttention", window=(17, 16)), "a window of 272 positions is above 256"),
}


@pytest.mark.parametrize(("build", "reason"), BEYOND.values(), ids=BEYOND)
def test_the_log_says_why_not(
    build: Callable[[], nn.Module], reason: str, as_on_a_gpu: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    mixer = build()
    with caplog.at_level(logging.DEBUG, logger="visionattn.kernels"):
        assert mixer(torch.randn(1, *GRID, 8)).isfinite().all()
    assert not as_on_a_gpu
    assert [r.getMessage() for r in caplog.records] == [f"window_attention: the plain form, because {reason}"]


def test_maps_without_two_axes_go_the_plain_way(as_on_a_gpu: list[str], caplog: pytest.LogCaptureFixture) -> None:
    mixer = make("WindowAttention", window=(4,), shift=(1,))
    with caplog.at_level(logging.DEBUG, logger="visionattn.kernels"):
        mixer(torch.randn(1, 9, 8))
    assert not as_on_a_gpu
    assert "windows have 1 axes, not two" in caplog.text


@pytest.mark.parametrize("name", ["WindowAttention", "WindowAttentionV2"])
def test_a_compiled_module_is_one_graph(name: str, as_on_a_gpu: list[str]) -> None:
    mixer, x = make(name, mask_padding=False), torch.randn(2, *GRID, 8)
    torch.testing.assert_close(torch.compile(mixer, fullgraph=True, backend="aot_eager")(x), mixer(x))
    assert as_on_a_gpu


def test_an_export_takes_the_plain_form(as_on_a_gpu: list[str]) -> None:
    """A program that holds one of our ops could not be loaded without this package."""
    with torch.no_grad():
        program = torch.export.export(make("WindowAttention"), (torch.randn(2, *GRID, 8),))
    assert not as_on_a_gpu
    assert not [n for n in program.graph.nodes if "visionattn" in str(n.target)]
