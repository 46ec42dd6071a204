"""Plain data stays what it is, everything else becomes plain data or is refused by name."""

from __future__ import annotations

import enum
import io
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub

from visionattn.engine.plain import plain, plain_items, plain_message_hub, plain_scheduler, restore_message_hub


class _Colour(str, enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.5, None, True, "x"], 3: (1, {2})}, {"a": [1, 2.5, None, True, "x"], 3: (1, {2})}),
        (ConfigDict(a=ConfigDict(b=1)), {"a": {"b": 1}}),
        (OrderedDict(a=1), {"a": 1}),
        (deque([1, 2]), [1, 2]),
        (np.float32(0.5), 0.5),
        (np.str_("x"), "x"),
        (Path("a") / "b", "a/b"),
        (_Colour.RED, "red"),
        (torch.float16, torch.float16),
    ],
)
def test_values_become_plain(value: Any, expected: Any) -> None:
    result = plain(value)
    assert result == expected
    assert type(result) is type(expected)


def test_tensors_and_arrays_become_plain_tensors() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    assert type(plain(parameter)) is torch.Tensor
    assert not plain(parameter).requires_grad
    assert torch.equal(plain(np.arange(6).reshape(2, 3)[:, ::-1]), torch.tensor([[2, 1, 0], [5, 4, 3]]))


def test_a_modules_versions_stay() -> None:
    state = plain(torch.nn.BatchNorm1d(2).state_dict())
    assert state._metadata == {"": {"version": 2}}


def test_what_has_no_plain_form_is_named() -> None:
    with pytest.raises(TypeError, match=r"^run\.hooks\[1\]\.f is a builtins\.function, which a checkpoint cannot hold"):
        plain({"hooks": [1, {"f": lambda: 0}]}, "run")
    assert plain_items({"a": 1, "f": len}, "meta") == {"a": 1}
    assert plain_scheduler({"last_step": 3, "anneal": len}) == {"last_step": 3}
    with pytest.raises(TypeError, match=r"param_schedulers\.odd"):
        plain_scheduler({"odd": object()})


def test_a_message_hub_comes_back_through_a_file() -> None:
    hub = MessageHub.get_instance("plain_out")
    for step in range(5):
        hub.update_scalar("train/loss", 0.1 * step, count=step + 1)
    hub.update_scalar("train/hidden", 1.0, resumed=False)
    hub.update_info("best", {"mIoU": np.float64(0.3)})
    hub.update_info("odd", object())
    file = io.BytesIO()
    torch.save(plain_message_hub(hub), file)
    file.seek(0)
    other = MessageHub.get_instance("plain_in")
    restore_message_hub(other, torch.load(file, weights_only=True))
    for mine, theirs in zip(other.get_scalar("train/loss").data, hub.get_scalar("train/loss").data, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    other.update_scalar("train/loss", 7.0)
    assert other.get_scalar("train/loss").current() == 7.0
    assert other.runtime_info == {"best": {"mIoU": 0.3}}
    assert "train/hidden" not in other.log_scalars
    assert set(plain_message_hub(other)["resumed_keys"]) == {"train/loss", "best"}
