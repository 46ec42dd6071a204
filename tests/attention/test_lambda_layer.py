"""Lambda layers: the paper's sums in loops, the norms worked out by hand, golden vectors of two public copies."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor, nn
from torch.func import functional_call

from visionattn.attention.lambda_layer import LambdaLayer, LambdaLayerGlobal, LambdaMixer
from visionattn.attention.token_norm import FrozenBatchNorm, normalized, token_norm

DIM = 6
FORMS: list[tuple[type[LambdaMixer], dict[str, Any]]] = [
    (LambdaLayer, {"num_heads": 2, "key_dim": 3, "kernel_size": 3}),
    (LambdaLayer, {"num_heads": 1, "key_dim": 2, "kernel_size": 9, "depth": 2, "kernel_bias": True}),
    (LambdaLayer, {"num_heads": 3, "key_dim": 2, "kernel_size": 1, "norm_groups": 2}),
    (LambdaLayerGlobal, {"num_heads": 2, "key_dim": 3}),
    (LambdaLayerGlobal, {"num_heads": 3, "key_dim": 2, "depth": 2, "frozen_norm": True}),
]
every_form = pytest.mark.parametrize(("form", "options"), FORMS, ids=[f"{f.__name__}-{o}" for f, o in FORMS])


def made(form: type[LambdaMixer], grid: tuple[int, ...], options: dict[str, Any]) -> LambdaMixer:
    mixer = randomised(form(DIM, grid, **options)).eval()
    for number, norm in enumerate((mixer.norm_q, mixer.norm_v)):
        for name, buffer in norm.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(tensor(*buffer.shape, seed=number + len(name)).abs() + 0.2)
    return mixer


def naive_norm(
    norm: nn.Module, name: str, parameters: Parameters, tokens: list[dict[Any, Tensor]]
) -> list[dict[Any, Tensor]]:
    """Tokens of every item by position, channel by channel."""
    weight = parameters.get(f"{name}.weight", getattr(norm, "weight", None))
    bias = parameters.get(f"{name}.bias", getattr(norm, "bias", None))
    answers: list[dict[Any, Tensor]] = [{} for _ in tokens]
    for item, places in enumerate(tokens):
        for place, token in places.items():
            channels = []
            for channel in range(len(token)):
                if isinstance(norm, nn.GroupNorm):
                    width = len(token) // norm.num_groups
                    first = channel // width * width
                    seen = torch.cat([t[first : first + width] for t in places.values()])
                elif norm.training and isinstance(norm, nn.BatchNorm1d):
                    seen = torch.stack([t[channel] for others in tokens for t in others.values()])
                else:
                    seen = None
                if seen is None:
                    mean, variance = norm.running_mean[channel], norm.running_var[channel]
                else:
                    mean = seen.sum() / len(seen)
                    variance = ((seen - mean) ** 2).sum() / len(seen)
                normal = (token[channel] - mean) / (variance + 1e-5).sqrt()
                channels.append(normal * weight[channel] + bias[channel])
            answers[item][place] = torch.stack(channels)
    return answers


def embedding(mixer: LambdaMixer, parameters: Parameters, t: tuple[int, ...], m: tuple[int, ...]) -> Tensor | None:
    """E_tm [K, U]; None beyond the kernel."""
    offset = [b - a for a, b in zip(t, m, strict=True)]
    table = parameters["kernel" if isinstance(mixer, LambdaLayer) else "table"]
    index = [o + n // 2 for o, n in zip(offset, table.shape[2:], strict=True)]
    if any(not 0 <= i < n for i, n in zip(index, table.shape[2:], strict=True)):
        return None
    return table[(slice(None), slice(None), *index)]


def naive_mixer(
    mixer: LambdaMixer,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    """Every query, head, key and position in turn; padded ones are not even read, and answered with 0."""
    grid, depth = tuple(x.shape[1:-1]), mixer.depth

    def projected(tokens: Tensor, real: Tensor | None) -> list[dict[Any, tuple[Tensor, ...]]]:
        places = [[p for p in positions(grid) if real is None or real[item][p]] for item in range(len(x))]
        return [
            {p: linear(parameters, "qkv", tokens[i][p]).split(mixer.widths) for p in places[i]} for i in range(len(x))
        ]

    asking = projected(x, mask)
    split = asking if context is None else projected(context, context_mask)
    places = [list(tokens) for tokens in split]
    queries = naive_norm(mixer.norm_q, "norm_q", parameters, [{p: t[0] for p, t in s.items()} for s in asking])
    values = naive_norm(mixer.norm_v, "norm_v", parameters, [{p: t[2] for p, t in s.items()} for s in split])
    rows = []
    for item in range(len(x)):
        v = {m: values[item][m].view(depth, -1) for m in places[item]}
        content = torch.zeros(mixer.key_dim, x.shape[-1] // mixer.num_heads, dtype=x.dtype)
        for u in range(depth):
            for key in range(mixer.key_dim):
                logits = [split[item][m][1].view(depth, -1)[u, key] for m in places[item]]
                shares = softmax(logits)
                content[key] += sum(s * v[m][u] for s, m in zip(shares, places[item], strict=True))
        for t in positions(grid):
            if t not in queries[item]:
                rows.append(torch.zeros_like(x[item][t]))
                continue
            function = content.clone()
            if "kernel_bias" in parameters:
                function += parameters["kernel_bias"][:, None]
            for m in places[item]:
                if (e := embedding(mixer, parameters, t, m)) is not None:
                    function += e @ v[m]
            heads = queries[item][t].view(mixer.num_heads, mixer.key_dim)
            rows.append(torch.cat([function.T @ head for head in heads]))
    return torch.stack(rows).reshape(x.shape)


class RealOnly(nn.Module):
    """The mixer's answers to real tokens, 0 for the others."""

    def __init__(self, mixer: LambdaMixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(
        self, x: Tensor, mask: Tensor, context: Tensor | None = None, context_mask: Tensor | None = None
    ) -> Tensor:
        return self.mixer(x, context, mask, context_mask) * mask[..., None]


def check(mixer: LambdaMixer, **inputs: Tensor | None) -> None:
    module: nn.Module = mixer if inputs.get("mask") is None else RealOnly(mixer)

    def naive(parameters: Parameters, **kwargs: Tensor) -> Tensor:
        return naive_mixer(mixer, {name.removeprefix("mixer."): t for name, t in parameters.items()}, **kwargs)

    assert_equals_naive(module, naive, inputs)


@every_form
@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 1, 3)], ids=str)
def test_equals_loops(form: type[LambdaMixer], options: dict[str, Any], grid: tuple[int, ...]) -> None:
    check(made(form, grid, options), x=tensor(2, *grid, DIM))


@every_form
def test_masked_equals_loops(form: type[LambdaMixer], options: dict[str, Any]) -> None:
    check(made(form, (3, 3), options), x=tensor(2, 3, 3, DIM), mask=random_mask(2, 3, 3))


@every_form
def test_in_training_padding_enters_no_statistic(form: type[LambdaMixer], options: dict[str, Any]) -> None:
    mixer = made(form, (3, 3), options).train()
    check(mixer, x=tensor(2, 3, 3, DIM))
    check(mixer, x=tensor(2, 3, 3, DIM), mask=random_mask(2, 3, 3))


@every_form
@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 1, 3)], ids=str)
def test_another_map_of_the_same_grid_equals_loops(
    form: type[LambdaMixer], options: dict[str, Any], grid: tuple[int, ...]
) -> None:
    x, context = (tensor(2, *grid, DIM, seed=seed) for seed in (0, 1))
    check(made(form, grid, options), x=x, context=context)
    check(made(form, grid, options), x=x, context=context, context_mask=random_mask(2, *grid))


@every_form
def test_in_training_each_map_s_padding_enters_no_statistic(form: type[LambdaMixer], options: dict[str, Any]) -> None:
    """The norm of queries goes by the map's tokens, that of values by the context's."""
    masks = {"mask": random_mask(2, 3, 3), "context_mask": random_mask(2, 3, 3, seed=4)}
    check(made(form, (3, 3), options).train(), x=tensor(2, 3, 3, DIM), context=tensor(2, 3, 3, DIM, seed=1), **masks)


def test_a_map_twice_as_fine_says_as_much_as_the_one_it_was_learned_on() -> None:
    """A constant table sums values: over four times as many positions, each counts a quarter."""
    mixer = made(LambdaLayerGlobal, (4, 4), {"num_heads": 1, "key_dim": 2})
    nn.init.ones_(mixer.table)
    v = tensor(1, 1, 4, 4, 3)
    fine = v.repeat_interleave(2, 2).repeat_interleave(2, 3)
    coarse = mixer.position_lambdas(v)
    torch.testing.assert_close(mixer.position_lambdas(fine)[:, :16], coarse)


def test_the_table_is_drawn_as_wide_as_asked_for() -> None:
    """At first, with queries and values of unit variance, an answer's is table_std^2 * key_dim * tokens."""
    torch.manual_seed(0)
    paper = LambdaLayerGlobal(32, (16, 16))
    torch.manual_seed(0)
    narrow = LambdaLayerGlobal(32, (16, 16), table_std=1 / 64)
    torch.testing.assert_close(64 * narrow.table, paper.table)
    assert paper.table.std().item() == pytest.approx(1, abs=0.02)
    x = tensor(2, 16, 16, 32).float()
    assert narrow(x).std().item() == pytest.approx(1, rel=0.25)
    assert paper(x).std().item() == pytest.approx(64, rel=0.25)
    for wrong in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match=rf"table_std={wrong} must be positive and finite; 1\.0 is the paper's"):
            LambdaLayerGlobal(32, (16, 16), table_std=wrong)


def test_a_frozen_norm_takes_a_batch_norms_checkpoint_and_trains_nothing() -> None:
    norm, frozen = nn.BatchNorm1d(4), token_norm(4, None, frozen=True)
    norm(tensor(30, 4).float() * 3 + 1)
    frozen.load_state_dict(norm.state_dict())
    assert not list(frozen.parameters())
    x = tensor(2, 5, 4, seed=1).float()
    before = frozen.running_mean.clone()
    torch.testing.assert_close(normalized(frozen.train(), x, None), normalized(norm.eval(), x, None))
    assert torch.equal(frozen.running_mean, before)
    assert isinstance(frozen, FrozenBatchNorm)


@pytest.mark.parametrize("case", golden("attention", "lambda"))
def test_golden(case: Golden) -> None:
    inputs, params, buffers = case.leaves("in"), case.leaves("param"), case.group("buffer")
    x, kwargs = inputs["x"].movedim(1, -1), case.kwargs
    sizes = {
        "num_heads": kwargs.get("heads", kwargs.get("Nh", 4)),
        "key_dim": kwargs.get("dim_k", kwargs.get("dk", 16)),
        "depth": kwargs.get("dim_u", kwargs.get("du", 1)),
    }
    qkv = (params[f"to_{name}.weight"] for name in "qkv" if f"to_{name}.weight" in params)
    state = {"qkv.weight": (torch.cat([*qkv]) if "to_q.weight" in params else params["conv_qkv.weight"]).flatten(1)}
    state |= {name: t for name, t in (params | buffers).items() if name.startswith("norm_")}
    mixer: LambdaMixer
    if "rel_pos_emb" in params:
        table = params["rel_pos_emb"].movedim((-2, -1), (0, 1))
        grid = tuple((n + 1) // 2 for n in table.shape[2:])
        mixer, state["table"] = LambdaLayerGlobal(x.shape[-1], grid, **sizes), table
    else:
        name = "pos_conv" if "pos_conv.weight" in params else "lambda_conv"
        reach = params[f"{name}.weight"].shape[-1]
        mixer = LambdaLayer(x.shape[-1], kernel_size=reach, kernel_bias=True, **sizes)
        state |= {"kernel": params[f"{name}.weight"].squeeze(2), "kernel_bias": params[f"{name}.bias"]}
    out = functional_call(mixer.double().eval(), state, (x,), strict=True)
    assert_golden(case, out.movedim(-1, 1), inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="LambdaLayerGlobal learns every offset on the map: give it a grid"):
        LambdaLayerGlobal(DIM, num_heads=2)
    with pytest.raises(ValueError, match="num_heads=4 does not divide dim=6; use 1, 2, 3 or 6"):
        LambdaLayer(DIM)
    with pytest.raises(ValueError, match="kernel_size=4 must be odd, such as 5"):
        LambdaLayer(DIM, num_heads=2, kernel_size=4)
    with pytest.raises(ValueError, match="depth=0 must be 1 or more"):
        LambdaLayer(DIM, num_heads=2, depth=0)
    with pytest.raises(ValueError, match=r"norm_groups=5 does not divide a norm's width of 32; use 1 or another"):
        LambdaLayer(DIM, num_heads=2, norm_groups=5)
    with pytest.raises(ValueError, match="frozen_norm freezes a batch norm, but norm_groups=2 asks for a group norm"):
        LambdaLayer(DIM, num_heads=2, norm_groups=2, frozen_norm=True)
    with pytest.raises(ValueError, match=r"LambdaLayer expects x of shape \[B, H, W, 6\]"):
        LambdaLayer(DIM, num_heads=2)(torch.zeros(1, 9, DIM))
