"""What a model costs, as a whole and by part."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from visionattn.analysis import Cost, count_macs, measure_cost
from visionattn.analysis.macs import published_form
from visionattn.blocks import AttentionPlugin, TransformerBlock


class Net(nn.Module):
    """Two stages; a branch that only training would use; the answer is a list and a dict of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        blocks = [AttentionPlugin(16, "EfficientAttention", norm=True) for _ in range(2)]
        self.stages = nn.ModuleList([nn.Sequential(*blocks), nn.Sequential(Tokens(), Tokens())])
        self.unused = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        x = self.norm(self.stem(x)).relu()
        for stage in self.stages:
            x = stage(x)
        return [{"map": x}]


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = TransformerBlock(16, {"type": "SoftmaxAttention", "num_heads": 2}, mlp_ratio=2.0, drop_path=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.movedim(1, -1)).movedim(-1, 1)


N, C = 20 * 24, 16
EFFICIENT = 6 * N * C * C
SOFTMAX = 4 * N * C * C + 2 * N * N * C
MLP = 2 * N * C * 2 * C
STEM = N * 3 * C * 9


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().train()


@pytest.fixture(scope="module")
def cost(net: Net) -> Cost:
    return measure_cost(net, torch.randn(1, 3, 20, 24), repeats=3)


def test_totals(cost: Cost, net: Net) -> None:
    assert cost.macs == STEM + 2 * EFFICIENT + 2 * (SOFTMAX + MLP)
    assert cost.attention_macs == 2 * EFFICIENT + 2 * SOFTMAX
    assert cost.macs_here == cost.macs + 2 * C * C  # small maps: the published equations, and a product for the biases
    assert cost.parameters == cost.trained_parameters == sum(p.numel() for p in net.parameters())
    assert cost.weight_bytes == 4 * cost.parameters + 4 * 32 + 8  # and the running statistics
    assert cost.uncounted == {}
    assert cost.training is not None
    assert cost.training.saved_bytes is not None
    assert cost.training.peak_bytes > cost.training.saved_bytes > 0
    assert cost.inference.fastest_ms <= cost.inference.ms <= cost.inference.slowest_ms
    assert cost.inference.repeats == 3
    assert cost.machine["threads"] == torch.get_num_threads()


def test_rows(cost: Cost) -> None:
    rows = {row.name: row for row in cost.rows}
    assert [name for name in rows if rows[name].depth <= 1] == ["", "stem", "norm", "stages.0", "stages.1", "unused"]
    assert rows[""].macs == cost.macs
    assert rows[""].saved_bytes == cost.training.saved_bytes
    assert rows["stem"].macs == STEM
    assert rows["stem"].attention_macs == 0
    assert rows["stages.0"].macs == rows["stages.0"].attention_macs == 2 * EFFICIENT
    assert rows["stages.0.1"].macs == EFFICIENT
    assert rows["stages.1.0"].macs == SOFTMAX + MLP
    assert rows["stages.1.0"].attention_macs == SOFTMAX
    assert rows["unused"].macs == 0
    assert rows["unused"].ms == 0
    assert rows["unused"].parameters == 68
    for name, row in rows.items():
        below = [other for other in rows.values() if other.depth == row.depth + 1 and other.name.startswith(name)]
        if below:
            assert sum(other.macs for other in below) == row.macs
            assert sum(other.saved_bytes for other in below) <= row.saved_bytes
            assert sum(other.ms for other in below) <= row.ms


def test_json(cost: Cost) -> None:
    content = json.loads(json.dumps(cost.as_dict()))
    assert content["macs"] == cost.macs
    assert content["rows"][0]["kind"] == "model"
    assert content["shape"] == [1, 3, 20, 24]


def test_the_model_is_left_as_it_was(net: Net) -> None:
    net.stages[0].eval()
    net.stem.weight.grad = torch.ones_like(net.stem.weight)
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    first = measure_cost(net, torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)), repeats=3)
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(net.stem.weight.grad, torch.ones_like(net.stem.weight))
    assert net.norm.weight.grad is None
    assert not any("forward" in vars(m) or m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert first.shape == (1, 3, 8, 8)


def test_inference_alone_and_frozen_weights() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    model[0].requires_grad_(False)
    cost = measure_cost(model, torch.randn(2, 3, 6, 6), training=False, repeats=1)
    assert cost.training is None
    assert cost.rows[0].saved_bytes is None
    assert (cost.parameters, cost.trained_parameters) == (36, 20)
    assert cost.macs == cost.macs_here == 2 * 36 * (12 + 16)


def test_what_swin_v2_keeps_is_counted_once() -> None:
    """Its bias comes from a small network, and is kept while the weights stand still."""
    model = nn.Sequential(TransformerBlock(8, {"type": "WindowAttentionV2", "num_heads": 2})).eval()
    x = torch.randn(1, 7, 7, 8)
    with torch.no_grad():
        model(x)
    cost = measure_cost(model, x, training=False, repeats=1)
    network = 13 * 13 * (2 * 512 + 512 * 2)
    assert cost.macs - cost.macs_here == network
    with published_form():
        model.eval()
        assert count_macs(lambda: model(x)).total == cost.macs
