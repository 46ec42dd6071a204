"""The interpreter that the kernels are tested in sees what a GPU would not forgive."""

from __future__ import annotations

import torch
from kernel_interpreter import interpreted

SAID = {
    "reads_beside": "reads beside the tensors that it was given",
    "writes_beside": "writes beside the tensors that it was given",
    "writes_the_same": "writes what another program wrote or read",
    "writes_what_the_next_reads": "reads what another program wrote",
    "writes_what_the_last_read": "writes what another program wrote or read",
    "writes_twice": "writes one number twice at once",
}


def test_each_fault_is_named() -> None:
    found = interpreted("interpreted_faults.py", "all")
    assert found.pop("sound") == [0.0] * 8
    product = 37 * torch.tensor(6 / 37)
    assert found.pop("a_float")[0] == product.item() < 6
    assert {name: fault.split("'")[1] for name, fault in found.items()} == {
        name: f"{name} {fault}" for name, fault in SAID.items()
    }
