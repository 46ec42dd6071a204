"""Which attention a model has, what it was given, and the maps that are drawn of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.naive import randomised, tensor
from visionattn.analysis.attention_matrix import attention_matrix
from visionattn.analysis.attention_record import Recorded, first_picture, recording
from visionattn.analysis.attention_views import views_of
from visionattn.attention.build import build_attention
from visionattn.blocks.cross_view import CrossViewBlock
from visionattn.blocks.plugin import AttentionPlugin

DIM = 16


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, DIM, 4, stride=4)
        self.plugin = AttentionPlugin(DIM, {"type": "EfficientAttention", "num_heads": 2}, norm=True)
        self.pair = CrossViewBlock(DIM, {"type": "SoftmaxAttention", "num_heads": 2})

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        left, right = self.pair(self.plugin(self.stem(left)), self.plugin(self.stem(right)))
        return left + right


def recorded() -> tuple[list[Recorded], list[Tensor], Tensor, Tensor]:
    network = randomised(Network()).eval()
    left, right = tensor(1, 3, 24, 32), tensor(1, 3, 24, 32, seed=1)
    with recording(network) as calls, first_picture(network) as pictures, torch.no_grad():
        out = network(left, right)
    assert torch.equal(network(left, right), out), "the recording changed what the network computes"
    assert not any(module._forward_pre_hooks for module in network.modules())
    return calls, pictures, left, right


def test_first_calls_and_the_first_picture() -> None:
    calls, pictures, left, _ = recorded()
    assert [call.name for call in calls] == ["plugin.attn", "pair.attn"]
    assert [tuple(call.x.shape) for call in calls] == [(1, 6, 8, DIM), (12, 8, DIM)]
    assert [call.rows for call in calls] == [False, True]
    assert calls[0].context is None
    assert calls[1].context is not None
    torch.testing.assert_close(calls[1].context, calls[1].x.roll(6, 0))  # the other view's rows
    assert torch.equal(pictures[0], left)


def test_views_of_efficient_attention_are_templates_then_queries() -> None:
    calls, *_ = recorded()
    views = views_of(calls[0], [(0.0, 0.0), (0.99, 0.5)], (24, 32))
    assert len(views) == 8 + 2
    assert views[0].title.startswith("head ")
    assert [view.queries for view in views[-2:]] == [((0.0, 0.0),), ((0.99, 0.5),)]
    weights = attention_matrix(calls[0].mixer, calls[0].x)[0].mean(0)
    for view, query in zip(views[-2:], (0, 3 * 8 + 7), strict=True):
        np.testing.assert_allclose(view.weights.flatten(), weights[query].numpy(), rtol=1e-5)
    assert all(view.weights.sum() == pytest.approx(1, rel=1e-5) for view in views)


def test_views_along_rows_are_of_the_other_picture() -> None:
    calls, *_ = recorded()
    (view,) = views_of(calls[1], [(0.3, 0.5)], (24, 32))
    assert view.view == 1
    assert view.weights.shape == (6, 8)
    known = np.isfinite(view.weights)
    assert known.sum() == 8
    assert known[3].all(), "the query's own row"
    assert view.weights[3].sum() == pytest.approx(1, rel=1e-5)
    call = calls[1]
    assert call.context is not None
    expected = attention_matrix(call.mixer, call.x[3:4], call.context[3:4])[0].mean(0)[2]
    np.testing.assert_allclose(view.weights[3], expected.numpy(), rtol=1e-5)


def call_of(name: str, x: Tensor, **options: object) -> Recorded:
    mixer = randomised(build_attention({"type": name, **options}, DIM, tuple(x.shape[1:-1])))
    return Recorded("attn", mixer, x, None, None, False)  # type: ignore[arg-type]


def test_windows_come_together_first() -> None:
    views = views_of(call_of("WindowAttention", tensor(1, 6, 8, DIM), window=(3, 4)), [(0.5, 0.5)], (24, 32))
    assert [view.title for view in views] == ["every window's middle", ""]
    assert views[0].weights.sum() == pytest.approx(4, rel=1e-5)
    assert (views[1].weights > 0).sum() == 12


def test_a_sequence_is_a_map_behind_its_prefix_tokens() -> None:
    call = call_of("SoftmaxAttention", tensor(1, 5 + 48, DIM))
    (view,) = views_of(call, [(0.99, 0.0)], (24, 32))
    expected = attention_matrix(call.mixer, call.x)[0].mean(0)[5 + 7, 5:]
    np.testing.assert_allclose(view.weights, expected.reshape(6, 8).numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match=r"its tokens are a grid \(47,\), and where these lie"):
        views_of(call_of("SoftmaxAttention", tensor(1, 47, DIM)), [(0.5, 0.5)], (24, 32 * 29))


def test_pooled_keys_are_a_coarser_map() -> None:
    (view,) = views_of(call_of("NonLocal", tensor(1, 6, 9, DIM), sub_sample=True), [(0.5, 0.5)], (24, 36))
    assert view.weights.shape == (3, 4)


@pytest.mark.parametrize("name", ["AFTSimple", "LambdaLayer"])
def test_channels_and_lambdas_are_drawn_as_their_mean(name: str) -> None:
    call = call_of(name, tensor(1, 6, 8, DIM))
    (view,) = views_of(call, [(0.99, 0.0)], (24, 32))
    expected = attention_matrix(call.mixer, call.x)[0].mean(0)[7]
    np.testing.assert_allclose(view.weights, expected.reshape(6, 8).numpy(), rtol=1e-5, atol=1e-7)


def test_what_has_no_matrix_says_so() -> None:
    with pytest.raises(TypeError, match="ChannelAttention has no attention matrix"):
        views_of(call_of("ChannelAttention", tensor(1, 6, 8, DIM)), [(0.5, 0.5)], (24, 32))
