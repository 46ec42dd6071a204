"""Window attention's walk over groups of windows: equal to the plain form, and taken exactly when its rule says so."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from visionattn.attention import window as module
from visionattn.attention.window import WindowAttention, walked_projections
from visionattn.blocks.transformer import TransformerBlock
from visionattn.ops import window_groups as groups_module
from visionattn.ops.window import window_layout
from visionattn.ops.window_groups import walk, window_groups

DIM = 12


def make(dim: int = DIM, **options: Any) -> WindowAttention:
    torch.manual_seed(0)
    mixer = WindowAttention(dim, **{"num_heads": 2, "window": (4, 3), "shift": (2, 1), **options}).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3)
    return mixer


def random_map(*grid: int, batch: int = 3, dim: int = DIM) -> Tensor:
    return torch.randn(batch, *grid, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def outputs_and_gradients(run: Callable[[Tensor], Tensor], mixer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    out = run(x)
    w = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(9))
    named = {"x": x, **dict(mixer.named_parameters())}
    grads = torch.autograd.grad((out * w).sum(), list(named.values()))
    with torch.no_grad():
        return {"out": out.detach(), "evaluated": run(x), **dict(zip(named, grads, strict=True))}


def assert_both_forms_agree(
    run: Callable[[Tensor], Tensor],
    mixer: nn.Module,
    x: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    tol: float = 1e-12,
) -> None:
    walked = outputs_and_gradients(run, mixer, x)
    with monkeypatch.context() as context:
        context.setenv("VISIONATTN_KERNELS", "off")
        plain = outputs_and_gradients(run, mixer, x)
    for name, expected in plain.items():
        torch.testing.assert_close(walked[name], expected, rtol=tol, atol=tol, msg=lambda m, n=name: f"{n}: {m}")


# grid, window, shift
MAPS = [
    ((13, 11), (4, 3), (2, 1)),
    ((13, 11), (4, 3), (0, 0)),
    ((8, 9), (4, 3), (2, 1)),
    ((8, 9), (4, 3), (0, 0)),
    ((3, 11), (4, 3), (2, 1)),
    ((1, 1), (4, 3), (2, 1)),
    ((3, 4, 5), (2, 3, 2), (1, 1, 0)),
]


@pytest.mark.parametrize("positions", [1, 30, 10**6], ids=["window_by_window", "in_groups", "all_at_once"])
@pytest.mark.parametrize("mask_padding", [True, False], ids=["padding_masked", "padding_seen"])
@pytest.mark.parametrize(("grid", "window", "shift"), MAPS)
def test_both_forms_agree(
    grid: tuple[int, ...],
    window: tuple[int, ...],
    shift: tuple[int, ...],
    mask_padding: bool,
    positions: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "positions_at_once", lambda: positions)
    monkeypatch.setattr(groups_module, "positions_at_once", lambda: positions)
    mixer, x = make(window=window, shift=shift, mask_padding=mask_padding), random_map(*grid)
    assert walked_projections(mixer, x) is not None
    assert_both_forms_agree(mixer, mixer, x, monkeypatch)


@pytest.mark.parametrize(
    "options",
    [
        {"relative_position_bias": False},
        {"qkv_bias": False, "mask_padding": False},
        {"shift_covered_axes": True, "mask_padding": False},
        {"shift_before_padding": True, "mask_padding": False},
        {"key_dim": 8, "value_dim": 8},
        {"num_heads": 12, "proj_drop": 0.3},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_agree(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "positions_at_once", lambda: 30)
    for grid in ((13, 11), (3, 10)):
        mixer, x = make(**options).eval(), random_map(*grid)
        if "relative_position_bias" in options:
            del mixer.relative_position_bias_table
            mixer.register_parameter("relative_position_bias_table", None)
        mixer.proj.bias = None if "qkv_bias" in options else mixer.proj.bias
        assert walked_projections(mixer, x) is not None
        assert_both_forms_agree(mixer, mixer, x, monkeypatch)


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_a_block_agrees(channels_first: bool, drop_path: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the sums inside the walks, in the block's eval mode also where drop path acts in training."""
    torch.manual_seed(0)
    attention = {"type": "WindowAttention", "num_heads": 2, "window": (4, 3), "shift": (2, 1)}
    block = TransformerBlock(DIM, attention, drop_path=drop_path).double().eval()
    x = random_map(13, 11)
    if channels_first:
        x = x.movedim(-1, 1).contiguous().movedim(1, -1)
    before = x.clone()
    assert_both_forms_agree(block, block, x, monkeypatch)
    assert torch.equal(x, before)
    if drop_path:
        torch.manual_seed(3)
        out = block.train()(x)
        torch.manual_seed(3)
        expected = x + block.drop_path1(block.attn(block.norm1(x)))
        expected = expected + block.drop_path2(block.mlp(block.norm2(expected)))
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_the_sum_is_the_mixer_s_answer_added(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, x, residual = make(), random_map(13, 11), random_map(13, 11).sin().requires_grad_()
    scale = torch.randn(DIM, dtype=torch.float64)
    mask = torch.rand(x.shape[:-1]) > 0.5
    calls: list[bool] = []
    original = module.window_attention_map
    monkeypatch.setattr(module, "window_attention_map", lambda *a: (calls.append(a[4] is not None), original(*a))[1])
    torch.testing.assert_close(mixer.add_to(residual, x), residual + mixer(x), rtol=1e-12, atol=1e-12)
    assert calls == [True, False]
    torch.testing.assert_close(mixer.add_to(residual, x, scale), residual + scale * mixer(x), rtol=1e-12, atol=1e-12)
    with_mask = mixer.add_to(residual, x, mask=mask)
    torch.testing.assert_close(with_mask, residual + mixer(x, mask), rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(mixer.add_to(residual, x).square().sum(), residual)
    torch.testing.assert_close(gradient, 2 * (residual + mixer(x)).detach(), rtol=1e-12, atol=1e-12)
    assert mixer.add_to(x.float(), x).dtype == torch.float32
    seen: list[Tensor] = []
    mixer.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    mixer.add_to(residual, x)
    assert len(seen) == 1


def test_gradients_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "positions_at_once", lambda: 8)
    mixer, x = make(dim=4, window=(2, 2), shift=(1, 1), mask_padding=False), random_map(3, 5, batch=2, dim=4)
    names = [name for name, _ in mixer.named_parameters()]
    leaves = [parameter.detach().requires_grad_() for parameter in mixer.parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(mixer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *leaves))


def test_only_what_wants_a_gradient_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, x = make(), random_map(5, 7)
    full = outputs_and_gradients(mixer, mixer, x)
    for wanted in ("x", *(name for name, _ in mixer.named_parameters())):
        mixer.requires_grad_(False)
        x.requires_grad_(wanted == "x")
        leaf = x if wanted == "x" else mixer.get_parameter(wanted).requires_grad_()
        w = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(9))
        (mixer(x) * w).sum().backward()
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, full[wanted], rtol=1e-12, atol=1e-12)
        others = [x, *mixer.parameters()]
        assert all(t is leaf or t.grad is None for t in others)
        leaf.grad = None


def test_float32_is_as_near_to_float64_as_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, x = make(dim=48, window=(7, 7), shift=(3, 3), mask_padding=False), random_map(30, 33, dim=48, batch=1)
    exact = outputs_and_gradients(mixer, mixer, x)
    mixer, x = mixer.float(), x.float()
    walked = outputs_and_gradients(mixer, mixer, x)
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    plain = outputs_and_gradients(mixer, mixer, x)
    for name, expected in exact.items():
        errors = [(form[name].double() - expected).norm() for form in (walked, plain)]
        assert errors[0] <= 2 * errors[1], name


def drop(mixer: WindowAttention) -> None:
    mixer.attn_drop = 0.1


def drop_output(mixer: WindowAttention) -> None:
    mixer.proj_drop.p = 0.1


def hook(mixer: WindowAttention) -> None:
    mixer.qkv.register_forward_hook(lambda *_: None)


def replace(mixer: WindowAttention) -> None:
    mixer.proj = nn.Sequential(mixer.proj)  # type: ignore[assignment]


def parametrise(mixer: WindowAttention) -> None:
    parametrize.register_parametrization(mixer.qkv, "weight", nn.Identity())


def subclass(mixer: WindowAttention) -> None:
    mixer.__class__ = type("Watching", (WindowAttention,), {})


def watch(mixer: WindowAttention) -> None:
    mixer.attend = mixer.attend  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [drop, drop_output, hook, replace, parametrise, subclass, watch])
def test_the_plain_form_wherever_something_acts_between(change: Callable[[WindowAttention], None]) -> None:
    mixer, x = make().train(), random_map(5, 7)
    assert walked_projections(mixer, x) is not None
    change(mixer)
    assert walked_projections(mixer, x) is None
    mixer.eval()
    assert (walked_projections(mixer, x) is not None) == (change in (drop, drop_output))
    torch.testing.assert_close(mixer(x), make()(x), rtol=1e-12, atol=1e-12)


def test_the_plain_form_wherever_something_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, x = make(), random_map(5, 7)
    mask = torch.ones(x.shape[:-1], dtype=torch.bool)
    assert walked_projections(mixer, x, mask=mask) is None
    assert walked_projections(copy.deepcopy(mixer).bfloat16(), x.bfloat16()) is None
    assert walked_projections(make(key_dim=4), x) is None
    assert walked_projections(mixer, x.to("meta")) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert walked_projections(mixer, x) is None
    torch.testing.assert_close(
        torch.func.vmap(mixer)(x[:, None])[:, 0], mixer(x), rtol=1e-12, atol=1e-12
    )  # under a transform, the plain form
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    assert walked_projections(mixer, x) is None


@torch.no_grad()
def test_the_biases_are_made_once_while_weights_and_grid_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Size] = []
    original = module.group_biases
    monkeypatch.setattr(module, "group_biases", lambda relative, g: (made.append(relative), original(relative, g))[1])
    mixer, x = make(), random_map(13, 11)
    out = mixer(x)
    assert torch.equal(mixer(x), out)
    assert len(made) == 1
    mixer(random_map(12, 11))
    mixer(random_map(12, 11).float().double())
    assert len(made) == 2
    nn.init.normal_(mixer.relative_position_bias_table)
    mixer(random_map(12, 11))
    assert len(made) == 3
    with torch.enable_grad():
        mixer(x)
    assert len(made) == 3, "with a backward, the bias belongs to its graph"


# The groups.


@pytest.mark.parametrize("positions", [1, 30, 10**6])
@pytest.mark.parametrize("mask_padding", [True, False])
@pytest.mark.parametrize(("grid", "window", "shift"), [*MAPS, ((12, 12), (4, 3), (2, 1))])
def test_groups_hold_every_window_once(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], mask_padding: bool, positions: int
) -> None:
    layout = window_layout(grid, window, shift)
    groups = window_groups(layout, mask_padding=mask_padding, positions=positions)
    tokens, area = math.prod(grid), math.prod(window)
    found = []
    for group in groups:
        assert 1 <= group.windows <= max(1, positions // area)
        assert group.positions == area
        at = group.tokens.reshape(-1, area) if group.places is None else group.tokens[group.places].reshape(-1, area)
        if group.padding is not None:
            at = at.flatten().index_fill(0, group.padding, tokens).reshape(-1, area)
        found.append(at)
        if group.real is not None:
            assert torch.equal(at.flatten()[group.real], group.tokens)
        regions = None
        if group.hidden is not None:
            assert group.hidden.any()
            regions = group.hidden.expand(-1, area, -1)
        for i, row in enumerate(at):
            w = int((layout.tokens == row).all(dim=1).nonzero()[0])
            for query in range(area):
                for key in range(area):
                    apart = layout.regions is not None and layout.regions[w, query] != layout.regions[w, key]
                    padded = mask_padding and row[key] == tokens
                    seen = regions is None or not regions[i, query, key]
                    assert seen != bool(apart or padded)
    order = torch.cat(found)
    assert sorted(order.tolist()) == sorted(layout.tokens.tolist())
    alike = [not any(w == tokens for w in row) for row in layout.tokens.tolist()]
    if layout.regions is not None:
        alike = [a and len(set(r)) == 1 for a, r in zip(alike, layout.regions.tolist(), strict=True)]
    if len(groups) > 1:
        plain = [group for group in groups if group.places is None and group.hidden is None]
        assert sum(group.windows for group in plain) == sum(alike), "windows that are alike have groups of their own"


def test_small_maps_are_walked_over_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups_module, "positions_at_once", lambda: 100)
    one = window_groups(window_layout((5, 7), (4, 3), (0, 0)), mask_padding=True, positions=100)
    assert [images for images, _ in walk(3, one)] == [slice(0, 1), slice(1, 2), slice(2, 3)]  # 72 positions each
    one = window_groups(window_layout((4, 7), (4, 3), (0, 0)), mask_padding=True, positions=100)
    assert [images for images, _ in walk(3, one)] == [slice(0, 2), slice(2, 4)]  # 36
    two = window_groups(window_layout((9, 12), (4, 3), (0, 0)), mask_padding=True, positions=100)
    assert [images.start for images, _ in walk(2, two)] == [0] * len(two) + [1] * len(two)
