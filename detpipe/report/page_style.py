"""The look of the report: light or dark as the reader's system is, and fit for a phone."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --ink: #1c2330; --soft: #606b7d; --line: #e1e4ea; --accent: #3b6fe0;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #12151b; --card: #1b2029; --ink: #e6e9ef; --soft: #98a3b5; --line: #2d3441; --accent: #6f9bff; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
header, main, footer { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 36px; }
h1 { margin: 0; font-size: 30px; line-height: 1.2; letter-spacing: -0.02em; overflow-wrap: anywhere; }
header p { margin: 4px 0 20px; color: var(--soft); overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 20px; letter-spacing: -0.01em; }
h3 { margin: 24px 0 6px; font-size: 15px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); gap: 12px; }
.cards div, section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.cards div { padding: 14px 16px; }
.cards b { display: block; font-size: 25px; line-height: 1.25; white-space: nowrap; }
.cards b, table { font-variant-numeric: tabular-nums; }
.cards span { color: var(--soft); font-size: 12.5px; line-height: 1.35; display: block; }
.cards div:first-child { background: var(--accent); border-color: var(--accent); }
.cards div:first-child b, .cards div:first-child span { color: #fff; }
@media (prefers-color-scheme: dark) { .cards div:first-child { background: #2c55b8; border-color: #2c55b8; } }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 18px 0; font-size: 14px; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { padding: 20px 22px; margin: 0 0 18px; }
.note, .none, footer { color: var(--soft); font-size: 13.5px; }
.note { margin: 6px 0 12px; }
.none { font-style: italic; margin: 4px 0; }
.scroll, .plot { overflow-x: auto; }
.plot svg { display: block; width: 100%; min-width: 460px; max-width: 800px; height: auto; margin: 0 auto; }
.plot text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif !important; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: 5px 12px 5px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: 13px; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 120px; }
.numbers td:first-child, .numbers th:first-child { text-align: right; min-width: 0; }
.settings td, .settings th { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.settings td:first-child { width: 40%; color: var(--soft); }
.chip { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 9px; }
.bar {
  display: inline-block; width: min(150px, 20vw); height: 8px; margin-right: 10px; border-radius: 4px;
  background: var(--line); vertical-align: 1px; overflow: hidden;
}
.bar i { display: block; height: 100%; background: var(--accent); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 16px; align-items: start; }
.gallery.small { grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); }
figure { margin: 0; min-width: 0; }
figure img {
  display: block; width: 100%; height: auto; aspect-ratio: 4 / 3; object-fit: contain;
  border-radius: 8px; background: var(--page);
}
.small img { aspect-ratio: 1; }
.mosaic img { width: auto; max-width: 100%; aspect-ratio: auto; image-rendering: pixelated; }
figcaption { margin-top: 5px; font-size: 13px; line-height: 1.35; color: var(--soft); overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; }
details { border-bottom: 1px solid var(--line); padding: 6px 0; }
details:last-child { border-bottom: 0; }
.gallery + details { margin-top: 14px; }
details .gallery { margin-top: 10px; }
summary { cursor: pointer; font-weight: 500; overflow-wrap: anywhere; }
summary small { color: var(--soft); font-weight: 400; }
ul { margin: 6px 0; padding-left: 20px; overflow-wrap: anywhere; }
footer { padding-top: 6px; padding-bottom: 36px; }
@media (max-width: 560px) {
  header, main, footer { padding-left: 12px; padding-right: 12px; }
  section { padding: 16px 14px; }
  .cards { grid-template-columns: 1fr 1fr; }
  .gallery.small { grid-template-columns: 1fr 1fr; }
}
@media print { body { background: #fff; } section { break-inside: avoid; } nav { display: none; } }
"""
