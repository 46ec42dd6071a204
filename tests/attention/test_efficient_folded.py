"""The folded form of efficient attention: equal to the plain one, and taken exactly when its rule says so."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from visionattn.attention import efficient
from visionattn.attention.efficient import EfficientAttention, folds
from visionattn.blocks.plugin import AttentionPlugin
from visionattn.ops import folded_chunks
from visionattn.ops import folded_efficient_attention as folded_op
from visionattn.ops.folded_efficient_attention import folded_efficient_attention
from visionattn.ops.folded_mixing import Options, Weights


def mixer_of(seed: int = 0, dim: int = 12, **options: object) -> EfficientAttention:
    torch.manual_seed(seed)
    mixer = EfficientAttention(dim, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return mixer


def outputs_and_gradients(run: Callable[[Tensor], Tensor], mixer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    out = run(x)
    w = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(9))
    named = {"x": x, **dict(mixer.named_parameters())}
    grads = torch.autograd.grad((out * w).sum(), list(named.values()))
    return {"out": out.detach(), **dict(zip(named, grads, strict=True))}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], tol: float = 1e-12) -> None:
    assert a.keys() == b.keys()
    for name in a:
        error = (a[name] - b[name]).abs().max() / b[name].abs().max().clamp(min=1)
        assert error <= tol, f"{name}: {error:.1e}"


FORMS = ((2**40, 2**40), (0, 2**40), (0, 0))
"""Largest small map and largest whole map, in bytes, so that the three forms without a backward are taken in turn."""


def assert_all_forms_agree(
    mixer: EfficientAttention, x: Tensor, monkeypatch: pytest.MonkeyPatch, tol: float = 1e-12
) -> None:
    """The plain form against the folded ones: for training, on small maps, on whole maps, in chunks."""
    monkeypatch.setattr(efficient, "FEWEST_TOKENS", 1)
    monkeypatch.setattr(efficient, "_pays", lambda *_: True)
    assert folds(mixer, x)
    trained, evaluated = outputs_and_gradients(mixer, mixer, x), []
    for small, cached in FORMS:
        monkeypatch.setattr(folded_op, "_FEW_BYTES", small)
        monkeypatch.setattr(folded_op, "_CACHED_BYTES", cached)
        with torch.no_grad():
            evaluated.append(mixer(x))
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    assert not folds(mixer, x)
    plain = outputs_and_gradients(mixer, mixer, x)
    assert all(t.isfinite().all() for t in trained.values())
    assert_same(trained, plain, tol)
    for out in evaluated:
        assert out.stride() == trained["out"].stride()
        assert_same({"out": out}, {"out": plain["out"]}, tol)


OPTIONS = [
    {},
    {"num_heads": 4},
    {"num_heads": 2, "key_dim": 6, "value_dim": 10},
    {"num_heads": 3, "qkv_bias": False, "temperature": 1.7},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize(("batch", "grid"), [(3, (1,)), (3, (5, 7)), (1, (5, 7)), (3, (3, 4, 5))], ids=str)
def test_both_forms_agree(
    options: dict[str, object], channels_first: bool, batch: int, grid: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixer = mixer_of(**options)
    x = torch.randn(batch, *grid, 12, dtype=torch.float64)
    if channels_first:
        x = x.movedim(-1, 1).contiguous().movedim(1, -1)
    assert_all_forms_agree(mixer, x, monkeypatch)


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 128, 129, 200])
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("in_place", [0, 12])
def test_chunks_of_any_length_agree(
    tokens: int, channels_first: bool, in_place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folded_chunks, "_CHUNK_BYTES", 1)  # chunks of 64 tokens at most
    monkeypatch.setattr(folded_chunks, "_ROWS_IN_PLACE", in_place)
    mixer = mixer_of(num_heads=2)
    x = torch.randn(2, tokens, 12, dtype=torch.float64)
    if channels_first:
        x = x.mT.contiguous().mT
    assert_all_forms_agree(mixer, x, monkeypatch)


@pytest.mark.parametrize("in_place", [0, 12])
@pytest.mark.parametrize("channels_first", [False, True])
def test_chunks_add_any_residual_or_none(channels_first: bool, in_place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded_chunks, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(folded_chunks, "_ROWS_IN_PLACE", in_place)
    mixer = mixer_of(num_heads=2)
    x, residual = torch.randn(2, 2, 150, 12, dtype=torch.float64).unbind()
    if channels_first:
        x = x.mT.contiguous().mT
    layers = Weights(mixer.qkv.weight, mixer.qkv.bias, mixer.proj.weight, mixer.proj.bias)
    with torch.no_grad():
        expected = mixer(x)
        for adds_x, added, total in ((True, None, x), (False, residual, residual), (False, None, 0)):
            out = folded_chunks.forward_in_chunks(Options(2, 12, 1.0, adds_x), x, added, None, layers)
            assert_same({"out": out}, {"out": expected + total})


@pytest.mark.parametrize("bias", [0.0, 20.0, 80.0, -80.0, 300.0])
def test_biases_that_take_the_queries_back(bias: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first channel is 1 and gives -95, or 15 less than the bias: exp of it alone is nearly 0 in float32."""
    mixer = mixer_of(num_heads=2, key_dim=8)
    with torch.no_grad():
        assert mixer.qkv.bias is not None
        mixer.qkv.bias[:8] = bias
        mixer.qkv.weight[:8, 0] = -bias - 15.0 if bias > 0 else -bias
    x = torch.randn(2, 150, 12, dtype=torch.float64)
    x[..., 0] = 1.0
    expected = mixer(x)
    monkeypatch.setattr(folded_op, "_CACHED_BYTES", 0)
    monkeypatch.setattr(folded_op, "_FEW_BYTES", 0)
    monkeypatch.setattr(efficient, "FEWEST_TOKENS", 1)
    monkeypatch.setattr(efficient, "_pays", lambda *_: True)
    with torch.no_grad():
        assert_same({"out": mixer.float()(x.float()).double()}, {"out": expected}, 2e-5)


@pytest.mark.parametrize("size", [1.0, 1000.0, -3000.0])
@pytest.mark.parametrize("num_heads", [2, 4])
def test_large_keys_overflow_nowhere(size: float, num_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded_chunks, "_CHUNK_BYTES", 1)
    x = size * torch.randn(2, 150, 12, dtype=torch.float64)
    assert_all_forms_agree(mixer_of(num_heads=num_heads), x, monkeypatch, 1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    mixer = mixer_of(dim=4, num_heads=2, temperature=1.3)
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    scale = torch.randn(4, dtype=torch.float64, requires_grad=True)
    weights = [p.detach().requires_grad_() for p in mixer.parameters()]

    def run(x: Tensor, scale: Tensor, *weights: Tensor) -> Tensor:
        return folded_efficient_attention(
            x, Weights(*weights), num_heads=2, key_dim=4, temperature=1.3, residual=x, scale=scale
        )

    assert torch.autograd.gradcheck(run, (x, scale, *weights))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("zero_init", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("in_place", [0, 12])
def test_the_block_agrees_with_residual_and_scale(
    norm: bool, zero_init: bool, channels_last: bool, in_place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folded_chunks, "_ROWS_IN_PLACE", in_place)
    monkeypatch.setattr(efficient, "FEWEST_TOKENS", 1)
    monkeypatch.setattr(efficient, "_pays", lambda *_: True)
    torch.manual_seed(0)
    block = AttentionPlugin(12, "EfficientAttention", norm=norm, zero_init=zero_init, channels_last=channels_last)
    block = block.double()
    if block.gamma is not None:
        nn.init.normal_(block.gamma)
    x = torch.randn((2, 7, 9, 12) if channels_last else (2, 12, 7, 9), dtype=torch.float64)
    folded = outputs_and_gradients(block, block, x)
    assert norm or folded["out"].is_contiguous()  # a LayerNorm answers channels last, and the output follows it
    evaluated = []
    for small, cached in FORMS:
        monkeypatch.setattr(folded_op, "_FEW_BYTES", small)
        monkeypatch.setattr(folded_op, "_CACHED_BYTES", cached)
        with torch.no_grad():
            evaluated.append(block(x))
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    plain = outputs_and_gradients(block, block, x)
    assert_same(folded, plain)
    for out in evaluated:
        assert_same({"out": out}, {"out": plain["out"]})


def test_output_of_a_channels_first_map_is_channels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 12, 20, 30, dtype=torch.float64)
    for switch in ("on", "off"):
        monkeypatch.setenv("VISIONATTN_KERNELS", switch)
        assert mixer_of()(x.movedim(1, -1)).movedim(-1, 1).is_contiguous()


def hooked(mixer: EfficientAttention) -> None:
    mixer.qkv.register_forward_hook(lambda *_: None)


def parametrised(mixer: EfficientAttention) -> None:
    parametrize.register_parametrization(mixer.proj, "weight", nn.Identity())


def subclassed(mixer: EfficientAttention) -> None:
    class Other(nn.Linear):
        pass

    other = Other(12, 12).double()
    other.load_state_dict(mixer.proj.state_dict())
    mixer.proj = other


def dropping(mixer: EfficientAttention) -> None:
    mixer.proj_drop = nn.Dropout(0.5)


def own_attend(mixer: EfficientAttention) -> None:
    mixer.attend = lambda q, k, v, q_grid, kv_grid, mask=None: v  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [hooked, parametrised, subclassed, dropping, own_attend])
def test_a_changed_layer_takes_the_plain_form(change: Callable[[EfficientAttention], None]) -> None:
    x = torch.randn(1, 20, 30, 12, dtype=torch.float64)
    mixer = mixer_of()
    assert folds(mixer, x)
    changed = copy.deepcopy(mixer)
    change(changed)
    assert not folds(changed, x)


def test_a_hook_on_the_projection_still_sees_its_output() -> None:
    mixer, seen = mixer_of(), []
    mixer.proj.register_forward_hook(lambda module, inputs, output: seen.append(output))
    mixer(torch.randn(1, 20, 30, 12, dtype=torch.float64))
    assert len(seen) == 1


def test_calls_that_take_the_plain_form() -> None:
    x = torch.randn(1, 20, 30, 12, dtype=torch.float64)
    mixer = mixer_of()
    assert folds(mixer, x)
    assert not folds(mixer, x, context=x)
    assert not folds(mixer, x, mask=torch.ones(1, 20, 30, dtype=torch.bool))
    assert not folds(mixer, x[:, :2, :3])
    assert not folds(mixer, x.to("meta"))
    assert not folds(mixer_of(normalize_queries=False), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not folds(mixer, x)
    assert not folds(copy.deepcopy(mixer).bfloat16(), x.bfloat16())
    assert torch.func.vmap(lambda t: torch.tensor(float(folds(mixer, t))) + 0 * t.sum())(x[None]).item() == 0.0


def test_forward_mode_second_order_and_functional_calls_work_in_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, 20, 30, 12, dtype=torch.float64)
    mixer = mixer_of()
    _, tangent = torch.func.jvp(mixer, (x,), (torch.ones_like(x),))
    step = 1e-6
    difference = (mixer(x + step) - mixer(x - step)) / (2 * step)
    torch.testing.assert_close(tangent, difference, rtol=1e-5, atol=1e-7)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(mixer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    (grad,) = torch.autograd.grad(mixer(x).square().sum(), x, create_graph=True)
    grad.sum().backward()


def test_frozen_weights_or_input_get_no_gradient() -> None:
    x = torch.randn(1, 20, 30, 12, dtype=torch.float64)
    mixer = mixer_of()
    reference = outputs_and_gradients(mixer, mixer, x)
    mixer(x).backward(torch.ones_like(x))
    assert mixer.qkv.weight.grad is not None
    frozen = copy.deepcopy(mixer).requires_grad_(False)
    leaf = x.clone().requires_grad_()
    w = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(9))
    (grad,) = torch.autograd.grad((frozen(leaf) * w).sum(), leaf)
    torch.testing.assert_close(grad, reference["x"], rtol=1e-12, atol=1e-12)


def test_a_residual_of_another_shape_is_refused() -> None:
    mixer = mixer_of()
    with torch.no_grad():
        x = torch.randn(1, 20, 30, 12, dtype=torch.float64)
        with pytest.raises(RuntimeError, match="size"):
            mixer.add_to(x.transpose(1, 2).contiguous(), x)
