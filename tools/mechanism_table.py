"""Writes the table of docs/mechanisms.md from the registry.

python tools/mechanism_table.py
"""

from __future__ import annotations

from pathlib import Path

from visionattn.attention.listing import listed_mechanisms

PAGE = Path(__file__).parents[1] / "docs" / "mechanisms.md"
BEGIN, END = "<!-- table: tools/mechanism_table.py -->", "<!-- end of table -->"


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


def table() -> str:
    lines = ["| mechanism | cost | looks at another map | causal form | grids | paper |", "|---|---|---|---|---|---|"]
    for row in listed_mechanisms():
        grids = ", ".join(f"{dims}-D" for dims in row.grids)
        cost = row.cost.replace("^2", "²")
        causal = "yes" if row.causal else ""
        lines.append(f"| `{row.name}` | {cost} | {row.cross} | {causal} | {grids} | {row.paper} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
