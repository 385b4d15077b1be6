"""How the report's page looks: ink on paper by day, the reverse by night, one column on a phone."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --ink: #24292d; --quiet: #616a70; --line: #dedad1; --wash: #f3f0e9;
  --tokenizer: #616a70; --pretrain: #2a6a92; --midtrain: #98590a; --sft: #3d7540; --rl: #99386b; --warn: #98590a;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "URW Palladio L", P052, Georgia, "Noto Serif", serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16191b; --ink: #dfddd6; --quiet: #9ba3a7; --line: #33393c; --wash: #1e2224;
    --tokenizer: #9ba3a7; --pretrain: #7ab6d9; --midtrain: #dda758; --sft: #8fc38a; --rl: #dd92b9; --warn: #dda758;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.6 var(--sans);
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
main { max-width: 46rem; margin: 0 auto; padding: 3.5rem 1.25rem 5rem; }
h1, h2 { font-family: var(--serif); font-weight: 500; line-height: 1.2; text-wrap: balance; }
h1 { font-size: 2.3rem; margin: 0 0 .2rem; }
h2 { font-size: 1.45rem; margin: 3.6rem 0 .8rem; }
h3 { font-size: 1rem; font-weight: 600; margin: 1.8rem 0 .4rem; }
p { margin: .6rem 0; }
a { color: inherit; }
.quiet, figcaption, .note { color: var(--quiet); font-size: .875rem; }
.lead { font: 1.18rem/1.65 var(--serif); margin: 1.6rem 0; text-wrap: pretty; }
.warn { border-left: 3px solid var(--warn); padding: .1rem 0 .1rem 1rem; margin: 1.5rem 0; }
.warn ul { margin: .4rem 0; padding-left: 1.1rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1px; margin: 2rem 0 0;
  padding: 0; background: var(--line); border: 1px solid var(--line); border-radius: .6rem; overflow: hidden; }
.tiles div { background: var(--paper); padding: .9rem 1rem; }
.tiles dt { color: var(--quiet); font-size: .8rem; }
.tiles dd { margin: 0; font: 1.6rem/1.3 var(--serif); }
.tiles dd small { display: block; color: var(--quiet); font: .78rem/1.4 var(--sans); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: 1.4rem 0 0; }
nav a { color: var(--quiet); font-size: .875rem; text-underline-offset: .2em; text-decoration-color: var(--line); }
figure { margin: 1.2rem 0 2rem; }
figure svg { display: block; width: 100%; height: auto; }
figure .narrow { display: none; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; font-weight: 500; color: var(--quiet); font-size: .8rem; }
td, th { padding: .5rem .7rem .5rem 0; border-bottom: 1px solid var(--line); vertical-align: baseline; }
td:last-child, th:last-child { padding-right: 0; }
.number { text-align: right; }
td small, th small, dd small { display: block; color: var(--quiet); font-size: .78rem; font-weight: 400; }
td.number, th.number { white-space: nowrap; }
th .stage { font-size: .9rem; }
.stage { font-weight: 600; }
.figure { margin: 1.9rem 0; }
.figure h3, .figure .note { margin: 0; }
.figure table { margin-top: .3rem; table-layout: fixed; }
.figure td, .figure th { padding: .14rem .9rem .14rem 0; border: 0; vertical-align: middle; }
.figure .who { width: 5.4rem; font-size: .875rem; }
.figure .value { width: 5rem; text-align: right; font-weight: 500; }
.figure .range { width: 11.5rem; color: var(--quiet); font-size: .8rem; }
.track { position: relative; height: .85rem; min-width: 4rem; }
.track::before { content: ""; position: absolute; left: 0; right: 0; top: 50%; border-top: 1px solid var(--line); }
.track i { position: absolute; top: calc(50% - .2rem); height: .4rem; border-radius: .2rem; background: currentColor;
  opacity: .32; }
.track b { position: absolute; top: calc(50% - .3rem); width: .6rem; height: .6rem; margin-left: -.3rem;
  border-radius: 50%; background: currentColor; }
.lapse { list-style: none; margin: 0; padding: 0; }
.lapse .stage { font-size: .8rem; line-height: 2; }
.lapse li { display: grid; grid-template-columns: 6rem 1fr; gap: 0 1rem; padding: .5rem 0;
  border-top: 1px solid var(--line); }
.text, .turn, .prompt { unicode-bidi: isolate; }
.lapse .text { font-family: var(--serif); white-space: pre-wrap; }
.prompt { font: italic 500 1.05rem/1.5 var(--serif); }
.chat { margin: 1.4rem 0 2.2rem; display: flex; flex-direction: column; gap: .5rem; }
.chat p { margin: 0; }
.turn { max-width: 88%; padding: .55rem .9rem; border-radius: 1rem; white-space: pre-wrap; }
.user { align-self: flex-end; background: var(--wash); border-bottom-right-radius: .25rem; }
.assistant { align-self: flex-start; border: 1px solid var(--line); border-bottom-left-radius: .25rem; }
.system { align-self: center; color: var(--quiet); font-size: .875rem; }
.tool { display: block; white-space: normal; font: .82rem/1.5 var(--mono); color: var(--quiet); margin: .15rem 0; }
.tool b { font-weight: 600; color: var(--ink); }
.tool summary { cursor: pointer; }
.tool pre { font: inherit; white-space: pre-wrap; margin: .4rem 0; padding-left: .8rem;
  border-left: 2px solid var(--line); }
details > summary { cursor: pointer; }
dl.facts { display: grid; grid-template-columns: 11rem 1fr; gap: .35rem 1rem; margin: 0; font-size: .9rem; }
dl.facts dt { color: var(--quiet); }
dl.facts dd { margin: 0; }
code { font: .88em var(--mono); }
@media (max-width: 38rem) {
  main { padding: 2rem 1rem 3rem; }
  h1 { font-size: 1.9rem; }
  .lead { font-size: 1.08rem; }
  figure .wide { display: none; }
  figure .narrow { display: block; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .stack thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  .stack tr { display: block; padding: .7rem 0; border-bottom: 1px solid var(--line); }
  .stack td, .stack th[scope=row] { display: flex; justify-content: space-between; gap: 1rem; border: 0;
    padding: .12rem 0; text-align: right; }
  .stack th[scope=row] { text-align: left; padding-bottom: .3rem; }
  .stack td::before { content: attr(data-label); color: var(--quiet); font-size: .85rem; text-align: left; }
  .stack td small { display: inline; }
  .stack td small::before { content: " · "; }
  .figure tr { display: grid; grid-template-columns: 4.6rem 1fr 4rem; align-items: center; padding: .2rem 0; }
  .figure td, .figure th { padding: 0; width: auto !important; }
  .figure .range { grid-column: 2 / 4; text-align: right; }
  .lapse li { grid-template-columns: 1fr; }
  .turn { max-width: 94%; }
  dl.facts { grid-template-columns: 1fr; gap: 0; }
  dl.facts dd { margin-bottom: .6rem; }
}
@media print { main { max-width: none; padding: 0; } nav { display: none; } h2 { break-after: avoid; } }
"""
