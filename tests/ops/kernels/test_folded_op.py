"""`visionattn::folded_attention` as PyTorch sees it, and the mechanism that takes it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from interpreted_folded_attention import Case, given
from kernel_cases import assert_differentiable_once
from torch import Tensor, nn

from visionattn.attention.build import build_attention
from visionattn.blocks.plugin import AttentionPlugin
from visionattn.ops.kernels import dispatch
from visionattn.ops.kernels.folded_attention import folded_attention_op

OP = "visionattn::folded_attention"
CASES = {
    "x as the residual": Case(9, scaled=True),
    "channels first, another residual": Case(9, order="channels first", residual="another", temperature=1.7),
    "no residual, no biases": Case(9, residual="none", biases=False),
    "wide maps": Case(9, dtype=torch.bfloat16, wide_maps=True, scaled=True),
}


def arguments(case: Case) -> list[Any]:
    tensors = [None if t is None else t.detach().requires_grad_() for t in given(case, "cpu")]
    return [*tensors, case.heads, case.key_dim, case.temperature, case.residual == "x"]


@pytest.mark.parametrize("name", CASES)
def test_opcheck(name: str) -> None:
    torch.library.opcheck(folded_attention_op, tuple(arguments(CASES[name])))


@pytest.mark.parametrize("name", CASES)
def test_compiles_in_one_graph(name: str) -> None:
    *inputs, heads, key_dim, temperature, adds_x = arguments(CASES[name])
    leaves = [t for t in inputs if t is not None]

    def function(*inputs: Tensor | None) -> Tensor:
        return folded_attention_op(*inputs, heads, key_dim, temperature, adds_x)[0].float().square().sum()

    expected = torch.autograd.grad(function(*inputs), leaves)
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(*inputs), leaves), expected)


def test_a_second_derivative_is_refused() -> None:
    given = arguments(CASES["x as the residual"])
    assert_differentiable_once(folded_attention_op(*given)[0], given[0])


def test_exports_with_any_number_of_tokens() -> None:
    x, *others = arguments(CASES["no residual, no biases"])
    rest = [t.detach() if isinstance(t, Tensor) else t for t in others]

    class Attends(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return folded_attention_op(x, *rest)[0]

    inputs = x.detach().contiguous()
    program = torch.export.export(Attends(), (inputs,), dynamic_shapes=({1: torch.export.Dim("tokens", min=2)},))
    assert [n for n in program.graph.nodes if "visionattn" in str(n.target)]
    longer = torch.cat([inputs, inputs.flip(1)], dim=1)
    torch.testing.assert_close(program.module()(longer), Attends()(longer))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The mechanism takes the op, whose eager twin answers on the CPU; the ops that were called."""
    names: list[str] = []
    monkeypatch.setattr(dispatch, "_unready", lambda device: None)
    for module in (
        "attention.efficient",
        "ops.folded_efficient_attention",
        "ops.efficient_attention",
    ):
        monkeypatch.setattr(f"visionattn.{module}.asked_for", lambda t: True)
    for name in ("folded_attention", "efficient_attention"):
        called_by = f"visionattn.ops.kernels.{name}.asked_for"
        monkeypatch.setattr(called_by, lambda t, name=f"visionattn::{name}": names.append(name))
    return names


def run(module: nn.Module, x: Tensor, **kwargs: Tensor) -> tuple[Tensor, ...]:
    """The answer and all gradients."""
    x = x.detach().requires_grad_()
    out = module(x, **kwargs)
    return out, *torch.autograd.grad(out.float().square().sum(), [x, *module.parameters()])


def compare(ours: tuple[Tensor, ...], plain: tuple[Tensor, ...], tolerance: float = 2e-5) -> None:
    for mine, theirs in zip(ours, plain, strict=True):
        assert mine.dtype == theirs.dtype
        size = float(theirs.detach().abs().max())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance * max(size, 0.1))


FORMS = ("mixer", "channels first", "block", "block with a scale", "block with a norm")


def module_of(form: str, heads: int = 2) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    config = {"type": "EfficientAttention", "num_heads": heads, "key_dim": 12, "temperature": 1.3}
    x = torch.randn(2, 24, 17, 16)  # channels last
    if form == "channels first":
        x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    if not form.startswith("block"):
        return build_attention(config, 16), x
    plugin = AttentionPlugin(16, config, zero_init=False, norm=form.endswith("norm"))
    if form.endswith("scale"):
        plugin = AttentionPlugin(16, config, zero_init=True)
        for parameter in plugin.parameters():
            nn.init.normal_(parameter, std=0.3)
    return plugin, x.permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("form", FORMS)
def test_the_mechanism_takes_it(form: str, called: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = module_of(form)
    ours = run(module, x)
    assert called == [OP] * 2  # forward and backward
    monkeypatch.undo()
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    plain = run(copy.deepcopy(module), x)
    compare(ours, plain)
    if form != "block with a norm":
        assert ours[0].stride() == plain[0].stride()


@pytest.mark.parametrize("form", FORMS)
def test_it_does_so_under_autocast(form: str, called: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = module_of(form)
    with torch.autocast("cpu", torch.bfloat16):
        ours = run(module, x)
        assert called == [OP] * 2
        monkeypatch.undo()
        monkeypatch.setenv("VISIONATTN_KERNELS", "off")
        compare(ours, run(copy.deepcopy(module), x), tolerance=4e-2)


@pytest.mark.parametrize("form", FORMS)
def test_compiled_it_is_one_graph(form: str, called: list[str]) -> None:
    module, x = module_of(form)
    compare(run(torch.compile(module, fullgraph=True, backend="aot_eager"), x), run(module, x))
    assert set(called) == {OP}


def test_the_core_serves_what_it_does_not(called: list[str]) -> None:
    module, x = module_of("mixer")
    assert isinstance(module, nn.Module)
    seen: list[Tensor] = []

    def look(form: str, **kwargs: Any) -> None:
        called.clear()
        run(module, kwargs.pop("x", x), **kwargs)
        assert called == ["visionattn::efficient_attention"] * 2, form

    look("masked", mask=torch.rand(2, 24, 17) < 0.7)
    look("another map", context=torch.randn(2, 5, 4, 16))
    look("few tokens", x=x[:, :3])
    hook = module.qkv.register_forward_hook(lambda module, args, out: seen.append(out))
    look("watched")
    assert len(seen) == 1
    hook.remove()
    wide = torch.randn(1, 16, 16, 144)
    module = build_attention({"type": "EfficientAttention", "key_dim": 16}, 144)
    look("a wide map", x=wide)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channels": 129}, "width 129"),
        ({"key_dim": 129, "value_dim": 3, "heads": 1}, "256 rows"),
        ({"key_dim": 120, "value_dim": 3, "heads": 3}, "256 rows"),
        ({"channels": 64, "key_dim": 64, "value_dim": 64}, "are above 2048 in torch.float32"),
        ({"dtype": torch.float64}, "float64"),
        ({"tokens": 0}, "no elements"),
    ],
)
def test_the_rule_says_why_not(change: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_unready", lambda device: None)
    case = Case(9)._replace(**change)
    inputs = given(case, "cpu")
    why = dispatch.why_not_folded(inputs[:3], inputs[3:], case.key_dim, case.heads)
    assert why is not None
    assert reason in why


@pytest.mark.parametrize(("channels", "served"), [(128, (True, False)), (64, (True, True))])
def test_wide_maps_need_half_precision_and_shared_memory(
    channels: int, served: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_unready", lambda device: None)
    case = Case(9, channels=channels, key_dim=channels, value_dim=channels)

    def why_not(dtype: torch.dtype) -> str | None:
        inputs = given(case._replace(dtype=dtype), "cpu")
        return dispatch.why_not_folded(inputs[:3], inputs[3:], case.key_dim, case.heads)

    for bytes_of_a_program, expected in zip((227 * 1024, 99 * 1024), served, strict=True):
        monkeypatch.setattr(dispatch, "_shared_memory", lambda device, most=bytes_of_a_program: most)
        assert (why_not(torch.bfloat16) is None) == expected
        assert f"above {2048 if bytes_of_a_program > 160 * 1024 else 1024} in torch.float32" in str(
            why_not(torch.float32)
        )
