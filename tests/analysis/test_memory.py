"""Bytes kept for a backward, and the peak."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from visionattn.analysis.memory import peak_extra_bytes, process_peak_bytes, saved_bytes

CPU = torch.device("cpu")


def test_what_is_saved_is_known_by_hand() -> None:
    model = nn.Sequential(nn.Linear(10, 20), nn.GELU(), nn.Linear(20, 5))
    x = torch.randn(7, 10)
    kept = saved_bytes(lambda: model(x), (*model.parameters(), x))
    assert kept.total() == 4 * 7 * (20 + 20)  # the input of GELU and of the last layer; weights and image are there
    assert saved_bytes(lambda: model(x), model.parameters()).total() == 4 * 7 * (10 + 20 + 20)


def test_views_of_one_storage_count_once_and_whole() -> None:
    x = torch.randn(4, 6, requires_grad=True)

    def run() -> torch.Tensor:
        a, b = (x * 1.0).exp().chunk(2)  # exp keeps its answer, the product below two halves of it
        return a * b

    assert saved_bytes(run, [x]).total() == 4 * 24


def test_places_and_checkpointing() -> None:
    layer = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU())
    x = torch.randn(5, 8)
    plain = saved_bytes(lambda: layer(x), (*layer.parameters(), x), lambda: "here")
    assert plain["here"] == plain.total() == 4 * 40 * 3
    with_checkpoint = saved_bytes(lambda: checkpoint(layer, x, use_reentrant=False), (*layer.parameters(), x))
    assert with_checkpoint.total() == 0


def test_peak_of_known_allocations() -> None:
    def run() -> torch.Tensor:
        first = torch.ones(250_000)
        second = first + 1
        del first
        return second.sum()

    assert 2e6 <= peak_extra_bytes(run, CPU) < 2.01e6
    assert (process_peak_bytes() or 1e9) > 1e7
