#include "reckon/base/error.h"
#include "reckon/report/palette.h"
#include "reckon/report/sections.h"

namespace reckon {
std::string palette_style(bool dark) {
  std::string out = text(":root {{ color-scheme: {}; --paper: #{:06x};", dark ? "dark" : "light", dark ? kNight : kPaper);
  out += dark ? " --ink: #e6e9ee; --soft: #a3abb8; --line: #333a45; --panel: #1c2027; --bar: #6d8fc4; --accent: #8db6ee; --good: #63d297; "
                "--bad: #ff9a8b;"
              : " --ink: #1a1f29; --soft: #5a6473; --line: #d9dee6; --panel: #f5f7fa; --bar: #8aa6d1; --accent: #2b3a91; --good: #14713f; "
                "--bad: #b3261e;";
  const auto colours = [&](char name, const CategoryColour* table, int count) {
    for (int i = 0; i < count; ++i) {
      const uint32_t fill = dark ? table[i].dark : table[i].light;
      out += text(" --{}{}: #{:06x}; --on-{}{}: #{:06x};", std::string(1, name), i, fill, std::string(1, name), i, text_on(fill));
    }
  };
  colours('c', kCategoryColours, kCategories);
  colours('p', kPassColours, kPasses);
  out += " }\n";
  for (int i = 0; i < (dark ? 0 : kCategories); ++i)
    out += text(".c{} {{ fill: var(--c{}); background: var(--c{}); }} .on.c{} {{ fill: var(--on-c{}); }}\n", i, i, i, i, i);
  for (int i = 0; i < (dark ? 0 : kPasses); ++i)
    out += text(".p{} {{ fill: var(--p{}); background: var(--p{}); }} .on.p{} {{ fill: var(--on-p{}); }}\n", i, i, i, i, i);
  return out;
}

const char* const kPageStyle = R"css(
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { margin: 0; font-size: 30px; line-height: 1.2; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 0 0 14px; font-size: 20px; font-weight: 650; }
h3 { margin: 22px 0 8px; font-size: 15px; font-weight: 650; }
section { margin-top: 44px; }
.kind { margin: 0 0 2px; color: var(--soft); font-size: 13px; letter-spacing: .04em; text-transform: uppercase; }
.facts { margin: 4px 0 0; color: var(--soft); overflow-wrap: anywhere; }
.where { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; }
.verdict { margin: 22px 0 10px; font-size: 20px; }
.fits b, .same { color: var(--good); }
.over b, .off { color: var(--bad); }
.proof { margin: 14px 0 0; }
.none, .note, figcaption, footer { color: var(--soft); }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; overflow-wrap: anywhere; }
pre { margin: 10px 0 0; padding: 14px; background: var(--panel); overflow-x: auto; white-space: pre-wrap; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--soft); }
footer { margin-top: 48px; padding-top: 14px; border-top: 1px solid var(--line); font-size: 13px; }

.chip { display: inline-block; width: 11px; height: 11px; margin-right: 6px; border-radius: 2px; vertical-align: -1px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 10px 0 0; padding: 0; list-style: none; font-size: 14px; }
.legend b { font-weight: 600; } .legend i, td i { font-style: normal; color: var(--soft); }
.legend li { white-space: nowrap; }
svg.bar { display: block; background: var(--panel); border-radius: 4px; overflow: hidden; }
.gap { fill: var(--line); background: var(--line); } .free { background: var(--panel); box-shadow: inset 0 0 0 1px var(--line); } .limit { fill: var(--ink); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 12px; margin: 24px 0 0; }
.tiles div { padding: 12px 14px; background: var(--panel); border-radius: 6px; }
.tiles dt { color: var(--soft); font-size: 13px; } .tiles dd { margin: 0; font-size: 21px; font-weight: 600; }
small { display: block; color: var(--soft); font-size: 12px; font-weight: 400; }

figure { margin: 0 0 18px; } figcaption { margin-top: 6px; font-size: 13px; }
.plot { display: grid; grid-template-columns: 68px 1fr; }
.y { position: relative; } .y span { position: absolute; right: 8px; transform: translateY(50%); color: var(--soft); font-size: 12px; white-space: nowrap; }
.area { position: relative; height: 300px; border-bottom: 1px solid var(--soft); touch-action: pan-y; }
.line .area { height: 220px; }
.area svg { display: block; width: 100%; height: 100%; overflow: visible; }
.grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; fill: none; }
.f { stroke: var(--paper); stroke-width: .8; vector-effect: non-scaling-stroke; }
rect.f { stroke: none; }
.peak { position: absolute; bottom: 0; width: 0; border-left: 1.5px dashed var(--ink); pointer-events: none; }
.peak b { position: absolute; bottom: 100%; left: -1px; padding: 1px 0 2px 0; font-size: 13px; font-weight: 650; line-height: 1.2; white-space: nowrap; }
.peak.left b { left: auto; right: 0; }
.cursor { position: absolute; top: 0; bottom: 0; width: 0; border-left: 1.5px solid var(--ink); pointer-events: none; }
.bands { position: relative; grid-column: 2; height: 22px; overflow: hidden; }
.bands span { position: absolute; top: 0; height: 22px; padding-left: 5px; border-left: 1px solid var(--soft); color: var(--soft); font-size: 12px; line-height: 22px; overflow: hidden; white-space: nowrap; }
.x { grid-column: 2; display: flex; justify-content: space-between; color: var(--soft); font-size: 12px; }
.line path:not(.grid) { fill: none; stroke-width: 1.75; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.line path.s0 { stroke: var(--c6); } .line path.s1 { stroke: var(--c1); } .chip.s0 { background: var(--c6); } .chip.s1 { background: var(--c1); }
.line path.dots { stroke-width: 7; stroke-linecap: round; }
.key { margin-right: 14px; white-space: nowrap; } output { margin-left: 14px; color: var(--ink); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 24px; }

.scrub { margin-left: 68px; } .scrub input { display: block; width: 100%; margin: 0 0 8px; accent-color: var(--accent); }
.moment { margin: 6px 0 26px; padding: 14px 16px; background: var(--panel); border-radius: 6px; }
.moment .when { margin: 0 0 8px; }
.two { display: grid; grid-template-columns: 220px 1fr; gap: 20px; }
.two ul { margin: 0; padding: 0; list-style: none; font-size: 14px; } .two li { display: flex; align-items: baseline; } .two li b { margin-left: auto; font-weight: 600; }
.two > * { min-width: 0; }

.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 14px; }
th { padding: 4px 12px 4px 0; color: var(--soft); font-size: 12px; font-weight: 500; text-align: left; vertical-align: bottom; border-bottom: 1px solid var(--line); white-space: nowrap; }
td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: top; }
.n { text-align: right; } td small { font-size: 11px; }
.moment td { border-bottom-color: var(--line); } .moment tr:last-child td { border-bottom: 0; }
.sum td { font-weight: 600; } .rest td { color: var(--soft); } .first td { border-top: 2px solid var(--line); }
td.bar { width: 170px; min-width: 130px; } td.bar span { display: inline-block; height: 11px; min-width: 1px; max-width: calc(100% - 56px); margin-right: 6px; border-radius: 1px; vertical-align: -1px; } td.bar i { font-size: 12px; }
.plain { background: var(--bar); }
svg.map { display: block; }
.map rect { stroke: var(--paper); stroke-width: 1.5; } .map .box { fill: var(--panel); stroke: var(--line); } .map .d1 { fill: var(--paper); }
.map text { font-size: 11.5px; pointer-events: none; } .map .head { fill: var(--ink); font-weight: 600; } .map .head .amount { font-weight: 400; } .map .amount { opacity: .85; }

@media (max-width: 640px) {
  main { padding: 20px 14px 32px; }
  h1 { font-size: 25px; } .verdict { font-size: 18px; }
  .plot { grid-template-columns: 56px 1fr; } .scrub { margin-left: 56px; } .area { height: 240px; }
  .y span { right: 5px; font-size: 11px; }
  .two, .pair { grid-template-columns: 1fr; gap: 12px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; } .tiles dd { font-size: 17px; }
  .map .wide { display: none; }
  table { font-size: 13px; } th, td { padding-right: 9px; }
  td:first-child, th:first-child { white-space: normal; overflow-wrap: anywhere; }
  td:first-child { min-width: 118px; }
  td.bar { width: 58px; min-width: 58px; } td.bar span { display: none; } th { white-space: normal; }
  .sticky td:first-child, .sticky th:first-child { position: sticky; left: 0; background: var(--paper); }
}
@media (max-width: 1000px) { .map .desktop { display: none; } }
@media print {
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  body { font-size: 11px; } main { max-width: none; padding: 0; }
  section { margin-top: 26px; } h2 { break-after: avoid; }
  figure, .tiles, .moment, tr, .verdict { break-inside: avoid; }
  .scrub, .cursor { display: none; } .area { height: 230px; } .line .area { height: 170px; }
  .map .desktop { display: none; }
  figcaption, .legend, .two ul, small, .y span, .bands span, .x, td.bar i, .facts, .kind, footer { font-size: 10px; } .where, code, pre { font-size: 9px; } h1 { font-size: 22px; } h2 { font-size: 15px; } h3 { font-size: 12px; } .verdict { font-size: 15px; }
  .tiles { grid-template-columns: repeat(5, 1fr); gap: 6px; margin-top: 14px; } .tiles div { padding: 7px 9px; } .tiles dd { font-size: 14px; } .tiles dt { font-size: 10px; } .tiles small { font-size: 9px; } .two { grid-template-columns: 170px 1fr; }
  table { font-size: 10px; } th { font-size: 9px; } th, td { padding-top: 2px; padding-bottom: 2px; padding-right: 7px; } td.bar { width: 110px; min-width: 90px; } .scroll { overflow: visible; }
  a { color: inherit; }
}
@page { margin: 14mm; }
)css";
}  // namespace reckon
