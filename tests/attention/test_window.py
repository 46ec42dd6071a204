"""Window attention against plain loops, recorded Swin windows and blocks, and the three common ports."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention import window as module
from visionattn.attention.build import build_attention
from visionattn.attention.window import WindowAttention

DIM = 12
Params = dict[str, Tensor]


def make(seed: int = 0, **options: Any) -> WindowAttention:
    """In float64, every parameter a seeded random number."""
    torch.manual_seed(seed)
    mixer = WindowAttention(DIM, **{"num_heads": 2, **options}).double().eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3)
    return mixer


def random_map(*grid: int, batch: int = 2, dim: int = DIM, seed: int = 1) -> Tensor:
    return torch.randn(batch, *grid, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def looped(mixer: WindowAttention, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Query by query: the keys are those in the query's tile of a plane that is tiled from `shift`."""
    grid, params, heads = x.shape[1:-1], dict(mixer.named_parameters()), mixer.num_heads
    window = mixer.window
    shift = [s if mixer.shift_covered_axes or n > m else 0 for n, m, s in zip(grid, window, mixer.shift, strict=True)]
    padded = [math.ceil(n / m) * m for n, m in zip(grid, window, strict=True)]

    def tile(cell: tuple[int, ...]) -> list[int]:
        return [(c - s) // m for c, s, m in zip(cell, shift, window, strict=True)]

    offsets = {offset: i for i, offset in enumerate(itertools.product(*(range(1 - m, m) for m in window)))}
    cells = list(itertools.product(*map(range, grid)))
    plane = list(itertools.product(*map(range, padded)))
    out = torch.zeros(len(x), len(cells), mixer.value_dim, dtype=x.dtype)
    for b in range(len(x)):
        projected = {}
        for cell in plane:
            token = x[(b, *cell)] if cell in cells else x.new_zeros(DIM)
            projected[cell] = mixer.qkv(token).split([mixer.key_dim, mixer.key_dim, mixer.value_dim])
        rows = []
        for query in cells:
            keys = [key for key in plane if tile(key) == tile(query)]
            if mixer.mask_padding:
                keys = [key for key in keys if key in cells]
            if mask is not None:
                keys = [key for key in keys if key not in cells or mask[(b, *key)]]
            if not keys:
                rows.append(x.new_zeros(mixer.value_dim))
                continue
            answers = []
            for head in range(heads):
                q = projected[query][0].chunk(heads)[head]
                logits = []
                for key in keys:
                    logit = (q * projected[key][1].chunk(heads)[head]).sum() / math.sqrt(len(q))
                    if "relative_position_bias_table" in params:
                        offset = tuple(a - c for a, c in zip(query, key, strict=True))
                        logit = logit + params["relative_position_bias_table"][offsets[offset], head]
                    logits.append(logit)
                weights = torch.stack(logits).softmax(0)
                values = torch.stack([projected[key][2].chunk(heads)[head] for key in keys])
                answers.append((weights[:, None] * values).sum(0))
            rows.append(torch.cat(answers))
        out[b] = torch.stack(rows)
    return mixer.proj(out).reshape(x.shape)


def assert_same_with_gradients(
    mixer: nn.Module, ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], x: Tensor
) -> None:
    x.requires_grad_()
    leaves = {"x": x, **dict(mixer.named_parameters())}
    expected, out = theirs(x), ours(x)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    w = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(9))
    wanted = torch.autograd.grad((expected * w).sum(), list(leaves.values()))
    got = torch.autograd.grad((out * w).sum(), list(leaves.values()))
    for name, a, b in zip(leaves, got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")
    with torch.no_grad():  # the fused form
        torch.testing.assert_close(ours(x), expected, rtol=1e-10, atol=1e-10)


# grid, window, shift
WINDOWS = [
    ((5, 7), (4, 3), (2, 1)),
    ((5, 7), (4, 3), (0, 0)),
    ((4, 6), (4, 3), (0, 2)),
    ((8, 6), (4, 3), (3, 2)),
    ((1, 1), (4, 3), (2, 1)),
    ((3, 2), (4, 5), (1, 3)),
    ((3, 7), (5, 4), (2, 2)),
    ((9,), (4,), (3,)),
    ((3, 2, 3), (2, 3, 2), (1, 2, 1)),
]


@pytest.mark.parametrize("mask_padding", [True, False], ids=["padding_masked", "padding_seen"])
@pytest.mark.parametrize("masked", [False, True], ids=["all_real", "masked"])
@pytest.mark.parametrize(("grid", "window", "shift"), WINDOWS)
def test_equals_the_loops(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], masked: bool, mask_padding: bool
) -> None:
    mixer = make(window=window, shift=shift, mask_padding=mask_padding)
    x = random_map(*grid)
    mask = torch.rand(x.shape[:-1], generator=torch.Generator().manual_seed(2)) > 0.6 if masked else None
    assert_same_with_gradients(mixer, lambda x: mixer(x, mask=mask), lambda x: looped(mixer, x, mask), x)


@pytest.mark.parametrize(
    "options",
    [
        {"shift_covered_axes": True},
        {"shift_covered_axes": True, "mask_padding": False},
        {"relative_position_bias": False},
        {"qkv_bias": False, "mask_padding": False},
        {"key_dim": 4, "value_dim": 10, "num_heads": 1, "mask_padding": False},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_equal_the_loops(options: dict[str, Any]) -> None:
    for grid in ((3, 8), (3, 4)):
        mixer = make(window=(4, 5), shift=(1, 3), **options)
        assert_same_with_gradients(mixer, mixer, lambda x, mixer=mixer: looped(mixer, x), random_map(*grid))


def test_windows_of_masked_tokens_answer_the_bias_of_proj() -> None:
    mixer = make(window=(4, 3), shift=(2, 1))
    x, mask = random_map(6, 7).requires_grad_(), torch.ones(2, 6, 7, dtype=torch.bool)
    mask[0, :2] = False  # whole tiles, cut off by the shift from the rest of their window
    out = mixer(x, mask=mask)
    torch.testing.assert_close(out[0, :2], mixer.proj.bias.expand(2, 7, -1), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.isfinite().all()
    assert not gradient[0, :2].any()


def test_drops_attention_weights_only_in_training() -> None:
    mixer, x = make(window=(4, 3), attn_drop=1.0), random_map(5, 7)
    torch.testing.assert_close(mixer(x), looped(mixer, x), rtol=1e-10, atol=1e-10)
    mixer.train()
    nothing = mixer.proj.bias.expand(x.shape)
    torch.testing.assert_close(mixer(x), nothing)
    with torch.no_grad():
        torch.testing.assert_close(mixer(x), nothing)
    halved = make(window=(4, 3), attn_drop=0.5).train()
    assert not torch.equal(halved(x), halved(x))


# Recorded outputs and gradients.


def assert_golden_mixer(case: Golden, mixer: WindowAttention, grid: tuple[int, int], prefix: str = "") -> None:
    """A bare window attention: `grid` is what the recorded tokens are the rows of."""
    params = load(mixer, case, prefix)
    (name, tokens), *_ = case.group("in").items()
    x = tokens.clone().requires_grad_()
    out = mixer(x.reshape(len(x), *grid, -1)).reshape(x.shape)
    assert_golden(case, out, {name: x}, params, tol=1e-10)


def load(mixer: WindowAttention, case: Golden, prefix: str) -> Params:
    """Our parameters by the recorded names, with the recorded values."""
    recorded = {key.removeprefix(prefix): t for key, t in case.group("param").items() if key.startswith(prefix)}
    mixer.double().load_state_dict(recorded)
    return {prefix + key: parameter for key, parameter in mixer.named_parameters()}


def assert_golden_block(case: Golden, mixer: WindowAttention, grid: tuple[int, int]) -> None:
    """x + attention(norm(x)), then x + mlp(norm(x)), by the names of microsoft's and timm's blocks."""
    params = load(mixer, case, "attn.")
    params |= {key: t.requires_grad_() for key, t in case.group("param").items() if key not in params}
    x = case.group("in")["x"].clone().requires_grad_()

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])

    y = x.reshape(len(x), *grid, -1)
    y = y + mixer(norm(y, "norm1"))
    hidden = F.gelu(F.linear(norm(y, "norm2"), params["mlp.fc1.weight"], params["mlp.fc1.bias"]))
    y = y + F.linear(hidden, params["mlp.fc2.weight"], params["mlp.fc2.bias"])
    assert_golden(case, y.reshape(case.out.shape), {"x": x}, params, tol=1e-10)


@pytest.mark.parametrize("case", golden("attention", "swin1_window_attn"))
def test_golden_microsoft_window(case: Golden) -> None:
    dim, window, heads = case.args
    assert_golden_mixer(case, WindowAttention(dim, window=window, num_heads=heads, **case.kwargs), window)


@pytest.mark.parametrize("case", golden("attention", "swin1_block"))
def test_golden_microsoft_block(case: Golden) -> None:
    dim, grid = case.args
    m, s, heads = case.kwargs.get("window_size", 7), case.kwargs.get("shift_size", 0), case.kwargs["num_heads"]
    assert set(case.kwargs) <= {"window_size", "shift_size", "num_heads"}
    assert_golden_block(case, WindowAttention(dim, window=(m, m), shift=(s, s), num_heads=heads), grid)


@pytest.mark.parametrize("case", golden("attention", "swin1_timm"))
def test_golden_timm(case: Golden) -> None:
    if case.row["cls"].endswith("WindowAttention"):
        dim, heads = case.args
        window = case.kwargs.get("window_size", 7)
        window = (window, window) if isinstance(window, int) else window
        assert_golden_mixer(case, WindowAttention(dim, window=window, num_heads=heads), window)
        return
    sizes = {"num_heads": 4, "window_size": 7, "shift_size": 0, "dynamic_mask": False}
    assert set(case.kwargs) <= set(sizes)
    sizes |= dict(zip(("dim", "grid", "num_heads"), case.args, strict=False)) | case.kwargs
    dim, grid, heads, m, s = (sizes[name] for name in ("dim", "grid", "num_heads", "window_size", "shift_size"))
    mixer = WindowAttention(
        dim, window=(m, m), shift=(s, s), num_heads=heads, mask_padding=False, shift_before_padding=True
    )
    assert_golden_block(case, mixer, grid)


@pytest.mark.parametrize("case", golden("attention", "swin1_mmseg"))
def test_golden_mmseg(case: Golden) -> None:
    dim, heads = case.args
    m, s, grid = case.kwargs["window_size"], case.kwargs.get("shift_size", 0), case.kwargs["hw_shape"]
    mixer = WindowAttention(
        dim, window=(m, m), shift=(s, s), num_heads=heads, mask_padding=False, shift_covered_axes=True
    )
    assert_golden_mixer(case, mixer, grid, prefix="w_msa.")


# The ports, with copied weights, on sizes that no window divides.

ODD_MAPS = [((10, 13), 4, 2), ((5, 9), 4, 1), ((9, 11), 7, 3), ((4, 11), 4, 2), ((14, 7), 7, 3), ((6, 3), 4, 0)]
odd_maps = pytest.mark.parametrize(("grid", "m", "s"), ODD_MAPS)


def copied(source: nn.Module, **options: Any) -> WindowAttention:
    mixer = make(num_heads=3, mask_padding=False, **options)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3)
    weights = {key: t for key, t in source.state_dict().items() if key != "relative_position_index"}
    mixer.load_state_dict(weights)
    return mixer


@odd_maps
def test_equals_timm(grid: tuple[int, int], m: int, s: int) -> None:
    swin = pytest.importorskip("timm.models.swin_transformer")
    block = swin.SwinTransformerBlock(DIM, grid, 3, window_size=m, shift_size=s).double().eval()
    ours = copied(block.attn, window=block.window_size, shift=block.shift_size, shift_before_padding=True)
    assert_same_output_and_input_gradient(ours, block._attn, grid)


@odd_maps
def test_equals_torchvision(grid: tuple[int, int], m: int, s: int) -> None:
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    theirs = swin.ShiftedWindowAttention(DIM, [m, m], [s, s], 3).double().eval()
    assert_same_output_and_input_gradient(copied(theirs, window=(m, m), shift=(s, s)), theirs, grid)


@odd_maps
def test_equals_mmseg(grid: tuple[int, int], m: int, s: int) -> None:
    swin = pytest.importorskip("mmseg.models.backbones.swin")
    theirs = swin.ShiftWindowMSA(DIM, 3, m, s, dropout_layer={"type": "DropPath", "drop_prob": 0.0}).double().eval()
    ours = copied(theirs.w_msa, window=(m, m), shift=(s, s), shift_covered_axes=True)
    assert_same_output_and_input_gradient(ours, lambda x: theirs(x.flatten(1, 2), grid).reshape(x.shape), grid)


def assert_same_output_and_input_gradient(
    ours: WindowAttention, theirs: Callable[[Tensor], Tensor], grid: tuple[int, int]
) -> None:
    x = random_map(*grid).requires_grad_()
    out, expected, w = ours(x), theirs(x), random_map(*grid, seed=9)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    got, wanted = (torch.autograd.grad((y * w).sum(), x)[0] for y in (out, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


# What is kept between calls.


@pytest.fixture
def plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that keeps its bias; the walk over groups of windows makes a bias group by group."""
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")


def fresh_output(mixer: WindowAttention, x: Tensor) -> Tensor:
    """What a module that has kept nothing answers."""
    fresh = make(seed=7, window=mixer.window, shift=mixer.shift).to(x.dtype)
    fresh.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        return fresh(x)


@pytest.mark.usefixtures("plain_form")
def test_the_bias_is_made_once_while_weights_and_grid_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Size] = []

    def counted(relative: Tensor, hidden: Tensor | None) -> Tensor:
        made.append(relative.shape)
        return original(relative, hidden)

    original = module.window_bias
    monkeypatch.setattr(module, "window_bias", counted)
    mixer, x = make(window=(4, 3), shift=(2, 1)), random_map(5, 7)
    with torch.no_grad():
        for _ in range(3):
            mixer(x)
        assert len(made) == 1
        mixer(random_map(6, 7))
        assert len(made) == 2
    mixer(x)
    mixer(x)
    assert len(made) == 4, "a bias that needs a gradient belongs to one graph"
    with torch.no_grad():
        mixer(x, mask=torch.ones(2, 5, 7, dtype=torch.bool))
    assert len(made) == 5


@torch.no_grad()
def step(mixer: WindowAttention) -> None:
    with torch.enable_grad():
        optimizer = torch.optim.AdamW(mixer.parameters(), lr=0.3)
        mixer(random_map(5, 7)).square().sum().backward()
        optimizer.step()


def swap_data(mixer: WindowAttention) -> None:
    """As averaging hooks do: in place through `.data`, which bumps no version, before the mode is set."""
    table = mixer.relative_position_bias_table
    assert table is not None
    table.data.copy_(torch.randn_like(table))
    mixer.eval()


CHANGES: dict[str, Callable[[WindowAttention], object]] = {
    "optimizer step": step,
    "load_state_dict": lambda mixer: mixer.load_state_dict(make(seed=3, window=(4, 3), shift=(2, 1)).state_dict()),
    "load_state_dict(assign=True)": lambda mixer: mixer.load_state_dict(
        make(seed=3, window=(4, 3), shift=(2, 1)).state_dict(), assign=True
    ),
    "in place": lambda mixer: nn.init.trunc_normal_(mixer.relative_position_bias_table),
    "through .data": swap_data,
    "train and back": lambda mixer: (mixer.train(), step(mixer), mixer.eval()),
}


@pytest.mark.parametrize("kernels", ["on", "off"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_kept_bias_is_never_stale(
    change: Callable[[WindowAttention], object], kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONATTN_KERNELS", kernels)
    mixer, x = make(window=(4, 3), shift=(2, 1)), random_map(5, 7)
    with torch.no_grad():
        before = mixer(x)
    change(mixer)
    with torch.no_grad():
        assert not torch.allclose(mixer(x), before)
        assert torch.equal(mixer(x), fresh_output(mixer, x))


@pytest.mark.usefixtures("plain_form")
@torch.no_grad()
def test_a_new_parameter_at_an_old_address_is_new() -> None:
    mixer, x = make(window=(4, 3), shift=(2, 1)), random_map(5, 7)
    for _ in range(4):
        for _ in range(2):  # the second may take the place of the one that the last round ended with
            mixer.relative_position_bias_table = nn.Parameter(torch.randn(35, 2, dtype=torch.float64))
        assert torch.equal(mixer(x), fresh_output(mixer, x))


@pytest.mark.usefixtures("plain_form")
@torch.no_grad()
def test_the_kept_bias_follows_the_dtype() -> None:
    mixer, x = make(window=(4, 3), shift=(2, 1)), random_map(5, 7)
    mixer(x)
    mixer.float()
    x = x.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert mixer(x).dtype == torch.bfloat16
    assert torch.equal(mixer(x), fresh_output(mixer, x))


@pytest.mark.usefixtures("plain_form")
@torch.no_grad()
def test_a_captured_graph_shares_nothing_with_other_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would read what is kept after that is gone, and others would read what its replays have yet to fill."""
    mixer, x = make(window=(4, 3), shift=(2, 1)), random_map(5, 7)
    expected, kept = mixer(x), (mixer._kept_bias._last, mixer._kept_layout._last)
    made: list[str] = []
    for name in ("window_layout", "window_bias"):
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, name=name, of=original, **kwargs: made.append(name) or of(*args, **kwargs)
        )
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for capturing in (True, True, False):
        made.clear()
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda capturing=capturing: capturing)
        assert torch.equal(mixer(x), expected)
        assert {"window_layout", "window_bias"} == set(made) if capturing else not made
        assert (mixer._kept_bias._last, mixer._kept_layout._last) == kept


@pytest.mark.usefixtures("plain_form")
def test_copies_and_pickles_keep_nothing() -> None:
    mixer, x = make(window=(4, 3), shift=(2, 1)), random_map(5, 7)
    with torch.no_grad():
        mixer(x)
        for other in (copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer))):
            assert other._kept_bias._last is None
            assert torch.equal(other(x), mixer(x))
            nn.init.trunc_normal_(other.relative_position_bias_table)
            assert not torch.equal(other(x), mixer(x))
    assert len(pickle.dumps(mixer)) == len(pickle.dumps(make(window=(4, 3), shift=(2, 1))))


@pytest.mark.usefixtures("plain_form")
def test_trains_after_inference_mode() -> None:
    mixer, x = make(window=(4, 3), shift=(2, 1)), random_map(5, 7)
    for parameter in mixer.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():
        mixer(x)
    x.requires_grad_()
    mixer(x).sum().backward()  # saves the kept layout and the kept bias
    assert x.grad is not None
    with torch.inference_mode():
        born_there = make(window=(4, 3), shift=(2, 1))
        assert torch.equal(born_there(x), mixer(x))


def test_state_dict_has_timm_s_names() -> None:
    assert {key: tuple(t.shape) for key, t in make(window=(4, 3)).state_dict().items()} == {
        "relative_position_bias_table": (7 * 5, 2),
        "qkv.weight": (3 * DIM, DIM),
        "qkv.bias": (3 * DIM,),
        "proj.weight": (DIM, DIM),
        "proj.bias": (DIM,),
    }
    assert "relative_position_bias_table" not in make(relative_position_bias=False).state_dict()
    table = WindowAttention(DIM, num_heads=4, window=(13, 13)).relative_position_bias_table
    assert table is not None
    assert 0.015 < table.std() < 0.025


# Mistakes.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"window": (0, 7)},
            r"window=\(0, 7\) must hold one integer of 1 or more per axis of the grid \(one to three\), such",
        ),
        ({"window": (7, 3.5)}, r"window=\(7, 3.5\) must hold one integer"),
        ({"window": ()}, r"window=\(\) must hold"),
        (
            {"shift": (7, 0)},
            r"shift=\(7, 0\) must be from 0 to window - 1 on every axis .*\(7, 7\); Swin's is \(3, 3\)",
        ),
        ({"shift": (0, -1)}, r"shift=\(0, -1\) must be from 0"),
        ({"window": (4, 4), "shift": (2,)}, r"shift=\(2,\) and window=\(4, 4\) differ in length; give both one entry"),
        ({"grid": (3, 8, 8)}, r"window=\(7, 7\) has 2 entries, the grid \(3, 8, 8\) has 3 axes; give one per axis"),
        ({"num_heads": 5}, r"num_heads=5 does not divide dim=12; use 1, 2, 3, 4, 6 or 12"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build_attention({"type": "WindowAttention", "num_heads": 2, **options}, DIM)
    assert "\n" not in str(error.value)


def test_one_number_for_all_axes_is_named() -> None:
    with pytest.raises(TypeError, match=r"window=7 must hold one integer per axis of the grid: \(7, 7\)"):
        build_attention({"type": "WindowAttention", "num_heads": 2, "window": 7}, DIM)


def test_a_map_with_another_number_of_axes_is_named() -> None:
    message = r"expects x of shape \[B, \*grid, C\] with 2 axes .* window=\(7, 7\), got \[2, 3, 4, 5, 12\]; give window"
    with pytest.raises(ValueError, match=message):
        make()(random_map(3, 4, 5))
    with pytest.raises(ValueError, match=r"with 3 axes .* window=\(2, 2, 2\), got \[2, 4, 5, 12\]"):
        make(window=(2, 2, 2), shift=(0, 0, 0))(random_map(4, 5))
