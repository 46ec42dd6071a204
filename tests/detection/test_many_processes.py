"""Detectors under DDP: a process whose images have no object waits for nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ranks import in_ranks
from tiny_detection import HEADS, batch, tiny_detector
from torch.nn.parallel import DistributedDataParallel

from visionattn.engine.sync_bn import synchronised


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


def test_synchronised_batch_norm_sees_the_images_of_all_processes(tmp_path: Path) -> None:
    """One image in each of two processes: the norms' statistics are those of one process with both images."""
    resnet = {"type": "visionattn.TimmBackbone", "model_name": "resnet18", "timm_options": {"channels": (8, 8, 16, 16)}}
    both = batch()
    both["inputs"] = [image[:, :64, :64] for image in both["inputs"]]  # of one size, or the padding would differ
    for sample in both["data_samples"]:
        sample.masks = sample.masks[:, :64, :64]

    def statistics(data: dict[str, Any], sync: bool) -> dict[str, torch.Tensor]:
        model = tiny_detector("faster_rcnn", resnet).train()
        if sync:
            model = synchronised(model, "cpu")
        sum(model(**model.data_preprocessor(data, training=True), mode="loss").values()).backward()
        return {name: value for name, value in model.named_buffers() if name.endswith(("running_mean", "running_var"))}

    def train(rank: int) -> dict[str, torch.Tensor]:
        torch.distributed.init_process_group("gloo")
        return statistics({name: values[rank : rank + 1] for name, values in both.items()}, sync=True)

    joint = statistics(both, sync=False)
    assert len(joint) == 2 * 21  # of all norms
    for found in (rank.result for rank in in_ranks(train, tmp_path)):
        assert found.keys() == joint.keys()
        for name, value in joint.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
