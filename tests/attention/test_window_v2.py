"""Swin V2's window attention against plain loops, recorded windows and blocks, and the two common ports."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, softmax, tensor
from torch import Tensor, nn

from visionattn.attention.build import build_attention
from visionattn.attention.window_v2 import WindowAttentionV2
from visionattn.blocks.transformer import ResPostNormTransformerBlock

DIM = 12
HIDDEN = 6


def make(seed: int = 0, **options: Any) -> WindowAttentionV2:
    """In float64, every parameter a seeded random number; one of the two scales is above its limit."""
    torch.manual_seed(seed)
    mixer = WindowAttentionV2(DIM, **{"num_heads": 2, "hidden": HIDDEN, **options}).double().eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3)
        mixer.logit_scale[0] = 0.8
        mixer.logit_scale[-1] = 5.0
    return mixer


def looped(mixer: WindowAttentionV2) -> Callable[..., Tensor]:
    """Query by query: the keys are those in the query's tile of a plane that is tiled from `shift`."""
    heads, window = mixer.num_heads, mixer.window
    trained = mixer.pretrained_window or window

    def coordinates(query: tuple[int, ...], key: tuple[int, ...]) -> Tensor:
        scaled = [8 * (a - b) / max(edge - 1, 1) for a, b, edge in zip(query, key, trained, strict=True)]
        logs = [math.copysign(math.log2(1 + abs(s)), s) / math.log2(8) for s in scaled]
        return torch.tensor(logs, dtype=torch.float32).double()  # the module, as the reference, keeps them so

    def token_projected(parameters: Parameters, token: Tensor) -> list[Tensor]:
        q, k, v = linear(parameters, "qkv", token).split([mixer.key_dim, mixer.key_dim, mixer.value_dim])
        if "q_bias" in parameters:
            q, v = q + parameters["q_bias"], v + parameters["v_bias"]
        return [q, k, v]

    def bias(parameters: Parameters, query: tuple[int, ...], key: tuple[int, ...]) -> Tensor:
        hidden = linear(parameters, "cpb_mlp.0", coordinates(query, key)).clamp(min=0)
        return 16 / (1 + (-linear(parameters, "cpb_mlp.2", hidden)).exp())  # [heads]

    def naive(parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
        grid = x.shape[1:-1]
        shift = [
            s if mixer.shift_covered_axes or n > m else 0 for n, m, s in zip(grid, window, mixer.shift, strict=True)
        ]
        plane = list(positions(tuple(math.ceil(n / m) * m for n, m in zip(grid, window, strict=True))))
        cells = list(positions(tuple(grid)))

        def tile(cell: tuple[int, ...]) -> list[int]:
            return [(c - s) // m for c, s, m in zip(cell, shift, window, strict=True)]

        items = []
        for b in range(len(x)):
            tokens = {
                cell: token_projected(parameters, x[(b, *cell)] if cell in cells else x.new_zeros(DIM))
                for cell in plane
            }
            rows = []
            for query in cells:
                keys = [key for key in plane if tile(key) == tile(query)]
                keys = [key for key in keys if key in cells or not mixer.mask_padding]
                keys = [key for key in keys if mask is None or key not in cells or mask[(b, *key)]]
                answers = []
                for head in range(heads):
                    q = tokens[query][0].chunk(heads)[head]
                    scale = parameters["logit_scale"][head, 0, 0].clamp(max=math.log(100)).exp()
                    logits = []
                    for key in keys:
                        k = tokens[key][1].chunk(heads)[head]
                        norms = q.square().sum().sqrt() * k.square().sum().sqrt()
                        cosine = (q * k).sum() / norms if norms > 0 else 0 * q.sum()
                        logits.append(cosine * scale + bias(parameters, query, key)[head])
                    values = [tokens[key][2].chunk(heads)[head] for key in keys]
                    answer = x.new_zeros(mixer.value_dim // heads)
                    for weight, value in zip(softmax(logits), values, strict=True):
                        answer = answer + weight * value
                    answers.append(answer)
                rows.append(linear(parameters, "proj", torch.cat(answers)))
            items.append(torch.stack(rows))
        return torch.stack(items).reshape(x.shape)

    return naive


# grid, options
CASES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((5, 4), {"window": (3, 2), "shift": (1, 1)}),
    ((5, 4), {"window": (3, 2), "shift": (1, 1), "mask_padding": False}),
    ((3, 5), {"window": (4, 3), "shift": (2, 1), "mask_padding": False, "pretrained_window": (3, 4)}),
    ((2, 3), {"window": (2, 2), "shift": (1, 1), "shift_covered_axes": True}),
    ((3, 3), {"window": (1, 3), "pretrained_window": (1, 2)}),
    ((3, 3), {"window": (2, 2), "qkv_bias": False, "mask_padding": False}),
    ((4, 3), {"window": (2, 2), "key_dim": 4, "value_dim": 10, "mask_padding": False, "shift": (1, 0)}),
    ((5,), {"window": (3,), "shift": (1,)}),
    ((2, 3, 2), {"window": (2, 2, 1), "shift": (0, 1, 0)}),
]


@pytest.mark.parametrize(("grid", "options"), CASES, ids=lambda value: "-".join(map(str, value)))
def test_equals_the_loops(grid: tuple[int, ...], options: dict[str, Any]) -> None:
    mixer = make(**options)
    x = tensor(1, *grid, DIM, seed=1)
    assert_equals_naive(mixer, looped(mixer), {"x": x})
    with torch.no_grad():  # the fused form, with a kept bias
        expected = looped(mixer)(dict(mixer.named_parameters()), x)
        for _ in range(2):
            torch.testing.assert_close(mixer(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mask_padding", [True, False])
def test_equals_the_loops_under_a_mask(mask_padding: bool) -> None:
    mixer = make(window=(3, 2), shift=(1, 0), mask_padding=mask_padding)
    x, mask = tensor(1, 4, 3, DIM, seed=1), random_mask(1, 4, 3, seed=3)
    inputs = {"x": x, "mask": mask}
    assert_equals_naive(mixer, looped(mixer), inputs)


def test_the_kept_bias_is_never_stale() -> None:
    mixer, x = make(window=(3, 2), shift=(1, 1)), tensor(1, 5, 4, DIM)
    for parameter in mixer.cpb_mlp.parameters():
        with torch.no_grad():
            before = mixer(x)
            parameter.mul_(-2)
            changed = mixer(x)
        assert not torch.allclose(changed, before)
        fresh = make(seed=5, window=(3, 2), shift=(1, 1))
        fresh.load_state_dict(mixer.state_dict())
        assert torch.equal(changed, fresh(x).detach()) or torch.allclose(changed, fresh(x), rtol=1e-12, atol=1e-12)


def test_the_scale_is_clamped_at_100() -> None:
    mixer, x = make(window=(3, 2)), tensor(1, 5, 4, DIM)
    with torch.no_grad():
        out = mixer(x)
        mixer.logit_scale[-1] = 50.0
        assert torch.equal(mixer(x), out)
        mixer.logit_scale[-1] = math.log(90.0)
        assert not torch.equal(mixer(x), out)


def test_half_precision_norms_do_not_overflow() -> None:
    mixer = make(window=(3, 2)).float()
    x = 300 * tensor(1, 5, 4, DIM).float()
    expected = mixer(x)
    half = make(window=(3, 2)).half()
    got = half(x.half()).float()
    assert got.isfinite().all()
    torch.testing.assert_close(got, expected, rtol=0.05, atol=0.05 * expected.abs().max().item())


def test_the_bias_is_made_in_float32_under_autocast() -> None:
    mixer, x = make(window=(3, 2), shift=(1, 1)).float(), tensor(1, 5, 4, DIM).float()
    seen: list[torch.dtype] = []
    mixer.cpb_mlp[2].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert mixer(x).dtype == torch.bfloat16
    assert seen == [torch.float32]


def test_state_dict_has_timm_s_names_and_fits_other_windows() -> None:
    shapes = {key: tuple(t.shape) for key, t in WindowAttentionV2(DIM, num_heads=2).state_dict().items()}
    assert shapes == {
        "logit_scale": (2, 1, 1),
        "q_bias": (DIM,),
        "v_bias": (DIM,),
        "cpb_mlp.0.weight": (512, 2),
        "cpb_mlp.0.bias": (512,),
        "cpb_mlp.2.weight": (2, 512),
        "qkv.weight": (3 * DIM, DIM),
        "proj.weight": (DIM, DIM),
        "proj.bias": (DIM,),
    }
    small = make(window=(3, 3))
    large = make(seed=4, window=(5, 5), pretrained_window=(3, 3))
    large.load_state_dict(small.state_dict())
    bias, wide = small._relative_bias(torch.float64), large._relative_bias(torch.float64)
    assert torch.equal(wide.unflatten(1, (5, 5)).unflatten(3, (5, 5))[:, :3, :3, :3, :3].flatten(3).flatten(1, 2), bias)
    rescaled = make(seed=4, window=(5, 5))
    rescaled.load_state_dict(small.state_dict())
    assert not torch.allclose(rescaled._relative_bias(torch.float64), wide)


def test_starts_as_published() -> None:
    mixer = WindowAttentionV2(64, num_heads=2)
    assert torch.equal(mixer.logit_scale, torch.full((2, 1, 1), math.log(10.0)))
    assert not any(t.any() for t in (mixer.q_bias, mixer.v_bias, mixer.cpb_mlp[0].bias))
    assert 0.017 < mixer.cpb_mlp[0].weight.std() < 0.022


# Recorded outputs and gradients.


def load(module: nn.Module, case: Golden) -> dict[str, Tensor]:
    recorded = {
        key: t for key, t in case.group("param").items() if not key.endswith(("coords_table", "position_index"))
    }
    module.double().load_state_dict(recorded)
    return dict(module.named_parameters())


@pytest.mark.parametrize("case", golden("attention", "swin2_window_attn"))
def test_golden_microsoft_window(case: Golden) -> None:
    dim, window, heads = case.args
    assert not case.kwargs
    mixer = WindowAttentionV2(dim, window=window, num_heads=heads)
    params = load(mixer, case)
    (name, tokens), *_ = case.group("in").items()
    x = tokens.clone().requires_grad_()
    out = mixer(x.reshape(len(x), *window, -1)).reshape(x.shape)
    assert_golden(case, out, {name: x}, params, tol=1e-6)


@pytest.mark.parametrize("case", golden("attention", "swin2_block"))
def test_golden_microsoft_block(case: Golden) -> None:
    dim, grid, heads = case.args
    assert set(case.kwargs) <= {"window_size", "shift_size"}
    m, s = case.kwargs.get("window_size", 7), case.kwargs.get("shift_size", 0)
    attention = {"type": "WindowAttentionV2", "window": (m, m), "shift": (s, s), "num_heads": heads}
    block = ResPostNormTransformerBlock(dim, attention)
    params = load(block, case)
    x = case.group("in")["x"].clone().requires_grad_()
    out = block(x.reshape(len(x), *grid, -1)).reshape(case.out.shape)
    assert_golden(case, out, {"x": x}, params, tol=1e-6)


# The ports, with copied weights, on sizes that no window divides.


@pytest.mark.parametrize(("grid", "m", "s"), [((10, 13), 4, 2), ((5, 9), 4, 1), ((4, 11), 4, 2), ((14, 7), 7, 3)])
def test_equals_torchvision(grid: tuple[int, int], m: int, s: int) -> None:
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    theirs = swin.ShiftedWindowAttentionV2(DIM, [m, m], [s, s], 3).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3)
    ours = make(num_heads=3, window=(m, m), shift=(s, s), mask_padding=False, hidden=512)
    state = {key: t for key, t in theirs.state_dict().items() if not key.startswith("relative_")}
    q_bias, _, v_bias = state.pop("qkv.bias").chunk(3)
    ours.load_state_dict({**state, "q_bias": q_bias, "v_bias": v_bias})
    assert_same_output_and_input_gradient(ours, theirs, grid)


@pytest.mark.parametrize(("grid", "m", "s"), [((10, 13), 4, 2), ((9, 11), 7, 3), ((6, 3), 4, 0)])
def test_equals_timm(grid: tuple[int, int], m: int, s: int) -> None:
    swin = pytest.importorskip("timm.models.swin_transformer_v2")
    block = swin.SwinTransformerV2Block(DIM, grid, 3, window_size=m, shift_size=s, pretrained_window_size=5).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3)
    ours = make(
        num_heads=3,
        window=block.window_size,
        shift=block.shift_size,
        pretrained_window=(5, 5),
        mask_padding=False,
        shift_before_padding=True,
        hidden=512,
    )
    ours.load_state_dict(block.attn.state_dict())
    assert_same_output_and_input_gradient(ours, block.eval()._attn, grid)


def assert_same_output_and_input_gradient(
    ours: WindowAttentionV2, theirs: Callable[[Tensor], Tensor], grid: tuple[int, int]
) -> None:
    x = tensor(2, *grid, DIM, seed=1).requires_grad_()
    out, expected, w = ours(x), theirs(x), tensor(2, *grid, DIM, seed=9)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)  # their coordinates are of float32
    got, wanted = (torch.autograd.grad((y * w).sum(), x)[0] for y in (out, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


# Mistakes.


def test_wrong_options_are_named() -> None:
    def build(**options: Any) -> object:
        return build_attention({"type": "WindowAttentionV2", "num_heads": 2, **options}, DIM)

    for wrong in ((8,), (0, 8), (8, 2.5)):
        with pytest.raises(ValueError, match=r"pretrained_window=\(.*\) must hold one integer .*window=\(7, 7\)"):
            build(pretrained_window=wrong)
    with pytest.raises(TypeError, match=r"pretrained_window=8 must hold one integer per axis"):
        build(pretrained_window=8)
    with pytest.raises(ValueError, match=r"shift=\(7, 0\) must be from 0 to window - 1"):
        build(shift=(7, 0))
    with pytest.raises(TypeError, match="has no option 'relative_position_bias'"):
        build(relative_position_bias=False)
