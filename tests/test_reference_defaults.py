"""Golden rows that leave defaults unsaid: which keywords go, and the table against the references installed here."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from golden import golden
from reference_defaults import DEFAULTS, without_defaults
from timm.models.mlp_mixer import SpatialGatingBlock
from timm.models.swin_transformer import SwinTransformerBlock


def test_only_what_equals_the_default_goes() -> None:
    row: dict[str, Any] = {"family": "lat", "cls": "SelfAttention", "args": [32]}
    given = {"heads": 4, "causal": True, "blindspot_size": 1, "n_local_attn_heads": 0, "dim_head": None}
    assert without_defaults(row | {"kwargs": given})["kwargs"] == {"heads": 4, "causal": True, "dim_head": None}
    stranger = row | {"family": "another", "kwargs": given}
    assert without_defaults(stranger) == stranger


@pytest.mark.parametrize(
    ("family", "form"), [("gmlp_timm_block", SpatialGatingBlock), ("swin1_timm", SwinTransformerBlock)]
)
def test_the_table_is_timms(family: str, form: type) -> None:
    parameters = inspect.signature(form).parameters
    table = DEFAULTS[family, form.__name__]
    assert table
    assert table == {name: parameters[name].default for name in table}


def test_a_file_that_says_a_default_comes_twice() -> None:
    """Of every family that has such a file; the suite's own adapters run on what comes."""
    cases = {family: golden("attention", family) for family in {family for family, _ in DEFAULTS}}
    names = [str(case.id) for of_family in cases.values() for case in of_family if case.values[0] is not None]
    if not names:
        pytest.skip("no golden vectors")
    twice = [name for name in names if name.endswith("-unsaid")]
    assert twice
    assert {name.removesuffix("-unsaid") for name in twice} <= set(names)
