"""R-Transformer: windows run one by one, torch's own cells, golden vectors of the official code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from visionattn.attention.r_transformer import RTransformer, RTransformerLSTM, RTransformerRNN
from visionattn.ops.local_recurrence import GRU, LSTM, RNN, Recurrence, local_recurrence

DIM = 4
CELLS = {RTransformer: nn.GRU, RTransformerLSTM: nn.LSTM, RTransformerRNN: nn.RNN}
KINDS = {"GRU": GRU, "LSTM": LSTM, "RNN": RNN}


def naive_cell(form: type[RTransformer], parameters: Parameters, name: str, tokens: list[Tensor]) -> Tensor:
    """The last hidden state of a run over the tokens, by the equations in torch's documentation."""
    weight_ih, weight_hh = parameters[f"{name}.weight_ih"], parameters[f"{name}.weight_hh"]
    bias_ih, bias_hh = parameters[f"{name}.bias_ih"], parameters[f"{name}.bias_hh"]
    hidden = cell = torch.zeros(DIM, dtype=torch.float64)
    for token in tokens:
        given, own = weight_ih @ token + bias_ih, weight_hh @ hidden + bias_hh
        if form is RTransformer:
            reset = (given[:DIM] + own[:DIM]).sigmoid()
            update = (given[DIM : 2 * DIM] + own[DIM : 2 * DIM]).sigmoid()
            new = (given[2 * DIM :] + reset * own[2 * DIM :]).tanh()
            hidden = (1 - update) * new + update * hidden
        elif form is RTransformerLSTM:
            gates = given + own
            enter, forget, leave = gates[:DIM].sigmoid(), gates[DIM : 2 * DIM].sigmoid(), gates[3 * DIM :].sigmoid()
            cell = forget * cell + enter * gates[2 * DIM : 3 * DIM].tanh()
            hidden = leave * cell.tanh()
        else:
            hidden = (given + own).tanh()
    return hidden


def normed(parameters: Parameters, name: str, token: Tensor) -> Tensor:
    centred = token - token.mean()
    scaled = centred / (centred.square().mean() + 1e-5).sqrt()
    return scaled * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]


def naive_mixer(mixer: RTransformer, parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Every window of every position on its own; a padded position is read as zeros, and is no key."""
    grid, heads, rows = tuple(x.shape[1:-1]), mixer.num_heads, []
    order = list(positions(grid))
    nothing = torch.zeros(DIM, dtype=torch.float64)
    for item in range(len(x)):
        real = {p for p in order if mask is None or mask[item][p]}
        read = {p: normed(parameters, "norm1", x[item][p]) if p in real else nothing for p in order}
        local, qkv = {}, {}
        for p in order:
            answers = []
            for axis in range(len(grid)):
                for kind, way in (("forwards", -1), ("backwards", 1)):
                    if kind == "backwards" and mixer.causal:
                        continue
                    window = []
                    for back in reversed(range(mixer.window)):  # the farthest first, its own position last
                        there = (*p[:axis], p[axis] + way * back, *p[axis + 1 :])
                        window.append(read.get(there, nothing))
                    answers.append(naive_cell(type(mixer), parameters, f"{kind}.{axis}", window))
            local[p] = torch.stack(answers).sum(0)
            qkv[p] = linear(parameters, "qkv", normed(parameters, "norm2", x[item][p] + local[p])).chunk(3)
        for number, p in enumerate(order):
            keys = [k for k in order[: number + 1 if mixer.causal else None] if k in real]
            heard = []
            for head in range(heads):
                part = slice(head * DIM // heads, (head + 1) * DIM // heads)
                shares = softmax([qkv[p][0][part] @ qkv[k][1][part] / math.sqrt(DIM // heads) for k in keys])
                values = [share * qkv[k][2][part] for share, k in zip(shares, keys, strict=True)]
                heard.append(sum(values, torch.zeros(DIM // heads, dtype=torch.float64)))
            rows.append(local[p] + linear(parameters, "proj", torch.cat(heard)))
    return torch.stack(rows).reshape(x.shape)


@pytest.mark.parametrize("form", CELLS)
@pytest.mark.parametrize("options", [{}, {"causal": True}], ids=str)
@pytest.mark.parametrize("grid", [(5,), (2, 3), (2, 1, 2)], ids=str)
def test_equals_loops(form: type[RTransformer], options: dict[str, Any], grid: tuple[int, ...]) -> None:
    mixer = randomised(form(DIM, grid, num_heads=2, window=3, **options))
    for mask in (None, random_mask(1, *grid)):
        inputs = {"x": tensor(1, *grid, DIM), "mask": mask}
        assert_equals_naive(mixer, lambda parameters, **kwargs: naive_mixer(mixer, parameters, **kwargs), inputs)


@pytest.mark.parametrize("form", CELLS)
def test_cells_are_torchs(form: type[RTransformer]) -> None:
    """As long a window as the line: the last position's answer is torch's own."""
    network = CELLS[form](DIM, DIM, batch_first=True).double()
    tensors = Recurrence(*(getattr(network, f"{name}_l0") for name in Recurrence._fields))
    x = tensor(2, 6, DIM)
    ours = local_recurrence(x, tensors, form.cell, window=6)[:, -1]
    torch.testing.assert_close(ours, network(x)[0][:, -1], rtol=1e-12, atol=1e-12)
    assert {name: p.shape for name, p in form(DIM, num_heads=1).forwards[0].named_parameters()} == {
        name: getattr(network, f"{name}_l0").shape for name in Recurrence._fields
    }


def test_a_causal_one_sees_nothing_of_later_positions() -> None:
    mixer = randomised(RTransformer(DIM, (3, 4), num_heads=2, causal=True))
    x, changed = tensor(1, 3, 4, DIM), tensor(1, 3, 4, DIM)
    changed[:, 1, 2:], changed[:, 2] = 7.0, -5.0
    one, other = mixer(x).flatten(1, 2), mixer(changed).flatten(1, 2)
    torch.testing.assert_close(one[:, :6], other[:, :6], rtol=0, atol=1e-12)
    assert (one[:, 6:] - other[:, 6:]).abs().amax(-1).min() > 1e-6


class OfficialNorm(nn.Module):
    """The reference's: the unbiased deviation, and 1e-6 added to it."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.bias


def local_rnn(row: dict[str, Any]) -> bool:
    return bool(row["cls"] == "LocalRNN")


@pytest.mark.parametrize("case", golden("attention", "rtransformer", local_rnn))
def test_golden_local_networks(case: Golden) -> None:
    inputs, params = case.leaves("in"), case.leaves("param")
    tensors = Recurrence(*(params[f"rnn.{name}_l0"] for name in Recurrence._fields))
    out = local_recurrence(inputs["x"], tensors, KINDS[case.kwargs["rnn_type"]], case.kwargs["ksize"])
    assert_golden(case, out, inputs, params, tol=1e-10)


@pytest.mark.parametrize("case", golden("attention", "rtransformer", lambda row: not local_rnn(row)))
def test_golden_block(case: Golden) -> None:
    """The whole block: the mixer with the official norms, its residual, and the perceptron behind it.

    Of N local layers the last is the mixer's; those before it are run here.
    """
    inputs, params, kwargs = case.leaves("in"), case.leaves("param"), case.kwargs
    form = next(form for form, cell in CELLS.items() if cell.__name__ == kwargs["rnn_type"])

    def norm(name: str) -> OfficialNorm:
        return OfficialNorm(params[f"{name}.norm.a_2"], params[f"{name}.norm.b_2"])

    layers = [
        Recurrence(*(params[f"layers.{number}.local_rnn.rnn.{name}_l0"] for name in Recurrence._fields))
        for number in range(kwargs["N"])
    ]
    x = inputs["x"]
    for number, layer in enumerate(layers[:-1]):
        x = x + local_recurrence(norm(f"layers.{number}.connection")(x), layer, form.cell, kwargs["ksize"])
    mixer = form(case.args[0], (x.shape[1],), window=kwargs["ksize"], causal=True, num_heads=kwargs["h"])
    mixer.norm1, mixer.norm2 = norm(f"layers.{len(layers) - 1}.connection"), norm("connections.0")
    last = norm("connections.1")
    state = {f"forwards.0.{name}": t for name, t in layers[-1]._asdict().items()}
    for kind in ("weight", "bias"):
        state[f"qkv.{kind}"] = torch.cat([params[f"pooling.linears.{n}.{kind}"] for n in range(3)])
        state[f"proj.{kind}"] = params[f"pooling.linears.3.{kind}"]
    x = x + functional_call(mixer, state, (x,), strict=True)
    hidden = F.relu(F.linear(last(x), params["feed_forward.w_1.weight"], params["feed_forward.w_1.bias"]))
    out = x + F.linear(hidden, params["feed_forward.w_2.weight"], params["feed_forward.w_2.bias"])
    assert_golden(case, out, inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="window=0 must be 1 or more; with 1 a network reads its own position alone"):
        RTransformer(DIM, num_heads=2, window=0)
    with pytest.raises(ValueError, match="num_heads=3 does not divide dim=4; use 1, 2 or 4"):
        RTransformer(DIM, num_heads=3)
    with pytest.raises(ValueError, match=r"RTransformerLSTM expects x of shape \[B, H, W, 4\]"):
        RTransformerLSTM(DIM, num_heads=2)(torch.zeros(1, 9, DIM))
