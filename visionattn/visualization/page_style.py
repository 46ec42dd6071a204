"""How the pages look: on white and on black, on a wide screen and on a telephone."""

STYLE = """\
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f7f9; --ink: #1d2330; --muted: #5d6675; --rule: #d9dde4;
  --accent: #0b6bb5; --good: #12805c; --bad: #c0392b;
  --line-0: #0b6bb5; --line-1: #d0560f; --line-2: #12805c; --line-3: #a8498a; --line-4: #9a7400; --line-5: #4d5a6b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --panel: #1d2128; --ink: #e6e9ee; --muted: #9aa4b2; --rule: #343b46;
    --accent: #62b0ef; --good: #4cc79a; --bad: #f08070;
    --line-0: #62b0ef; --line-1: #f39a5b; --line-2: #4cc79a; --line-3: #e08fc6; --line-4: #e3bd4a; --line-5: #a9b5c4;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 1200px; margin: 0 auto; padding: 24px 20px 64px; }
header p { max-width: none; margin: 0; color: var(--muted); overflow-wrap: anywhere; }
h1 { margin: 0 0 4px; font-size: 1.7rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 40px 0 12px; padding-bottom: 6px; border-bottom: 1px solid var(--rule); font-size: 1.2rem; }
h3 { margin: 24px 0 8px; font-size: 1rem; }
p { margin: 0 0 12px; max-width: 75ch; }
.note { margin-top: 10px; color: var(--muted); font-size: 0.9rem; }
.warning { color: var(--bad); }

.figures { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0 0; }
.figures div { flex: 1 1 130px; padding: 12px 14px; background: var(--panel); border-radius: 8px; }
.figures dt { color: var(--muted); font-size: 0.85rem; }
.figures dd { margin: 2px 0 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }

.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th { padding: 4px 12px 6px 0; border-bottom: 2px solid var(--rule); color: var(--muted); font-weight: 600; }
td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--rule); }
th, td { text-align: left; vertical-align: baseline; white-space: nowrap; }
th.n, td.n { padding-left: 12px; text-align: right; }
td.wrap { white-space: normal; overflow-wrap: anywhere; }
.swatch {
  display: inline-block; width: 0.85em; height: 0.85em; margin-right: 0.5em;
  border: 1px solid var(--rule); border-radius: 2px; vertical-align: -0.06em;
}
.bar {
  display: inline-block; width: clamp(48px, 11vw, 140px); height: 0.75em; background: var(--panel); border-radius: 2px;
}
.fill { display: block; height: 100%; min-width: 1px; background: var(--accent); border-radius: 2px; }
.legend {
  display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 16px; padding: 0; list-style: none; font-size: 0.92rem;
}

.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); gap: 20px 28px; }
.charts figure { margin: 0; }
.charts svg { display: block; width: 100%; height: auto; }
.charts h3 { margin: 0 0 2px; }

.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(520px, 100%), 1fr)); gap: 16px; }
.cards.wide { grid-template-columns: 1fr; }
.cards figure { margin: 0; padding: 10px 12px 12px; background: var(--panel); border-radius: 8px; }
figcaption { margin-bottom: 8px; font-size: 0.88rem; overflow-wrap: anywhere; }
figcaption b { font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(150px, 100%), 1fr)); gap: 8px; }
.tiles .title { display: block; color: var(--muted); font-size: 0.8rem; }
.tiles img { display: block; width: 100%; height: auto; border-radius: 4px; }

.matrix td, .matrix th {
  min-width: 2.6em; padding: 3px 5px; border: 1px solid var(--paper); text-align: right; font-size: 0.8rem;
}
.matrix th { border-bottom: 0; }
.matrix thead th { vertical-align: bottom; writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; }
.matrix thead th:first-child { writing-mode: horizontal-tb; transform: none; }

details { margin: 0 0 12px; }
summary { cursor: pointer; color: var(--accent); }
pre {
  max-height: 70vh; margin: 8px 0 0; padding: 12px 14px; overflow: auto; background: var(--panel); border-radius: 8px;
  font: 0.82rem/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
}
@media print { details > * { display: block; } main { padding: 0; } }
"""
