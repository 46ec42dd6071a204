"""The table of mechanisms in the docs is the registry's."""

from __future__ import annotations

from pathlib import Path

from visionattn.attention.base import ContextMixer, SameGridMixer
from visionattn.attention.build import attention_class, list_attention

PAGE = Path(__file__).parents[1] / "docs" / "mechanisms.md"


def test_every_mechanism_has_its_row() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in PAGE.read_text().splitlines() if line.startswith("| `")}
    assert sorted(rows) == sorted(list_attention()), "run  python tools/mechanism_table.py"
    for name, row in rows.items():
        claims = attention_class(name).claims
        assert claims.paper in row
        mixer = attention_class(name)
        cross = "same grid" if issubclass(mixer, SameGridMixer) else "yes" if issubclass(mixer, ContextMixer) else ""
        cells = [cell.strip() for cell in row.split("|")[2:5]]
        assert cells == [claims.cost.replace("^2", "²"), cross, "yes" if claims.causal else ""], name
