"""Detectors under DDP: a process whose images have no object waits for nobody."""

from __future__ import annotations

from pathlib import Path

import torch
from ranks import in_ranks
from tiny_detection import HEADS, batch, tiny_detector
from torch.nn.parallel import DistributedDataParallel


def test_images_without_objects_in_one_process(tmp_path: Path) -> None:
    """Two steps of each detector; process 0 has never an object. Both end with the same weights."""

    def train(rank: int) -> dict[str, list[float]]:
        torch.distributed.init_process_group("gloo")
        ends = {}
        for head in HEADS:
            model = tiny_detector(head)
            wrapped = DistributedDataParallel(model)  # an unused parameter would be an error in the next step
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            for _ in range(2):
                data = model.data_preprocessor(batch(rank == 1), training=True)
                losses = wrapped(**data, mode="loss")
                optimizer.zero_grad()
                sum(losses.values()).backward()
                optimizer.step()
            ends[head] = [weight.detach().double().sum().item() for weight in model.parameters()]
        return ends

    first, second = (rank.result for rank in in_ranks(train, tmp_path))
    assert first.keys() == HEADS.keys()
    for head in HEADS:
        assert first[head] == second[head]
        start = [weight.detach().double().sum().item() for weight in tiny_detector(head).parameters()]
        assert sum(a != b for a, b in zip(first[head], start, strict=True)) > 0.8 * len(start)
