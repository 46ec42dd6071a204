"""What has to move, and how many inputs it takes to leave the caches."""

from __future__ import annotations

import pytest
import torch

from visionattn.analysis.kernel_bench.bandwidth import _bytes, cache_bytes, fewest_bytes, rotation, size_of


def test_the_published_floor_of_efficient_attention() -> None:
    # Batch 8, 8 heads of 64, 64 x 64 tokens, bfloat16, at 3.0 TB/s: 45 us forward, 78 us backward.
    q, k, v = (torch.empty(8, 8, 64 * 64, 64, dtype=torch.bfloat16, device="meta") for _ in range(3))
    forward = fewest_bytes([q, k, v], [], torch.empty_like(q), training=False)
    both = fewest_bytes([q, k, v], [], torch.empty_like(q), training=True)
    assert forward / 3.0e12 * 1e6 == pytest.approx(45, rel=0.01)
    assert (both - forward) / 3.0e12 * 1e6 == pytest.approx(78, rel=0.01)


def test_weights_are_read_and_their_gradients_written() -> None:
    x, weight, out = torch.empty(2, 5), torch.empty(3, 5), torch.empty(2, 3)
    assert fewest_bytes([x], [weight], out, training=False) == 4 * (10 + 15 + 6)
    assert fewest_bytes([x], [weight], out, training=True) == 4 * (10 + 15 + 6) + 4 * (2 * (10 + 15) + 6)


@pytest.mark.parametrize(("of_set", "cache", "sets"), [(100, 10, 2), (100, 150, 3), (100, 10_000, 8), (0, 10, 8)])
def test_rotation(of_set: int, cache: int, sets: int) -> None:
    assert rotation(of_set, cache) == sets


def test_sizes() -> None:
    assert size_of([torch.empty(3, dtype=torch.float16), torch.empty(2, 2)]) == 22
    assert [_bytes(text) for text in ("48K\n", "2048K", "32M", "512")] == [48 << 10, 2 << 20, 32 << 20, 512]
    assert cache_bytes(torch.device("cpu")) >= 2**16
