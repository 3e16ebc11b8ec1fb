// The report's style sheet: system fonts, one measure of width, light and dark by the reader's setting, one column at
// 360 px, and a print form. Better is blue and worse is orange (told apart by every common form of colour vision),
// always with a sign or an arrow beside the colour. Text on its ground has a contrast of at least 4.5 : 1.

export const STYLE = `
:root{color-scheme:light dark;
--paper:#faf9f6;--card:#fff;--ink:#1c1b19;--soft:#5d5a54;--line:#e2dfd8;--faint:#f1efe9;
--better:#1f5fa8;--better-ground:#e3edf8;--worse:#a84c05;--worse-ground:#fbeadb;--third:#4d7a3a;--quiet:#8a867d;--focus:#1f5fa8;
--sans:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
--serif:ui-serif,"Iowan Old Style","Palatino Linotype",Palatino,Georgia,"Times New Roman",serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
@media(prefers-color-scheme:dark){:root{
--paper:#14161a;--card:#1c1f25;--ink:#eae8e3;--soft:#a8a59d;--line:#30343c;--faint:#23272e;
--better:#86b9f2;--better-ground:#1d3350;--worse:#f2a566;--worse-ground:#44290f;--third:#9ccb86;--quiet:#8b887f;--focus:#86b9f2}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
@media(prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--sans);font-variant-numeric:tabular-nums}
.page{max-width:1180px;margin:0 auto;padding:0 clamp(16px,4vw,40px) 64px}
a{color:var(--better);text-underline-offset:.15em}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:2px solid var(--focus);outline-offset:3px;border-radius:4px}
.skip{position:absolute;left:-9999px}.skip:focus{left:16px;top:8px;background:var(--card);padding:8px 12px;z-index:1}
small,.quiet{color:var(--soft)}
header.top{padding:clamp(28px,5vw,56px) 0 0}
.eyebrow{display:flex;flex-wrap:wrap;gap:4px 14px;margin:0 0 14px;color:var(--soft);font-size:.875rem}
.eyebrow b{color:var(--ink);font-weight:600}
h1{font:600 clamp(1.75rem,4.4vw,2.9rem)/1.14 var(--serif);letter-spacing:-.012em;margin:0;max-width:32ch;text-wrap:balance}
h2{font:600 1.6rem/1.2 var(--serif);letter-spacing:-.006em;margin:0 0 6px}
h3{font:600 1.1rem/1.3 var(--sans);margin:32px 0 4px}
h4{font:600 .9375rem/1.3 var(--sans);margin:20px 0 8px}h4 small{font-weight:400;margin-left:6px}
p{margin:8px 0;max-width:70ch;text-wrap:pretty}
section{padding-top:36px;margin-top:40px;border-top:1px solid var(--line);scroll-margin-top:8px}
.lead{color:var(--soft);margin:0 0 14px}
nav{margin-top:28px}nav ul{display:flex;flex-wrap:wrap;gap:6px 18px;list-style:none;margin:0;padding:0;font-size:.9375rem}
.hero{display:grid;grid-template-columns:minmax(210px,auto) minmax(0,1fr);gap:16px 48px;align-items:center;margin-top:30px;padding:26px 30px;background:var(--card);border:1px solid var(--line);border-radius:14px}
.primary .number{font:600 clamp(3.4rem,8vw,5rem)/1 var(--serif);letter-spacing:-.03em;display:block}
.primary.better .number{color:var(--better)}.primary.worse .number{color:var(--worse)}
.primary .range{display:block;font-size:1.15rem;margin-top:6px}
.primary .what{display:block;color:var(--soft);font-size:.9rem;max-width:28ch;margin-top:6px}
.forest{min-width:0}.forest-row{display:grid;grid-template-columns:12.5rem minmax(0,1fr) 10.5rem;gap:14px;align-items:center;padding:7px 0;border-bottom:1px solid var(--line);font-size:.9375rem}
.forest-row small{white-space:nowrap}.forest-row .value{text-align:right;white-space:nowrap}
.axis{font-size:.8125rem;color:var(--soft);margin:8px 0 0}
.findings{list-style:none;margin:22px 0 0;padding:0;display:grid;gap:9px;max-width:84ch}
.findings li{padding-left:30px;position:relative}
.findings .sign{position:absolute;left:0;top:.1em;width:21px;height:21px;border-radius:50%;display:grid;place-items:center;font-size:.6875rem;background:var(--faint);color:var(--soft)}
.findings .better .sign{background:var(--better-ground);color:var(--better)}.findings .worse .sign{background:var(--worse-ground);color:var(--worse)}
.box{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--quiet);border-radius:8px;padding:14px 20px;margin:18px 0}
.box.worse{border-left-color:var(--worse);background:var(--worse-ground)}.box.better{border-left-color:var(--better)}
.box ul{margin:6px 0;padding-left:1.15em}.box ul.wide{columns:2 420px;column-gap:44px}.box li{margin:0 0 10px;break-inside:avoid}.box p:first-child{margin-top:0}.box p:last-child{margin-bottom:0}
.cards{list-style:none;margin:0;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(238px,1fr));gap:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px 11px;break-inside:avoid;display:flex;flex-direction:column}
.card .title{display:flex;gap:8px;justify-content:space-between;align-items:baseline}.card .title b{line-height:1.25}
.place{color:var(--soft);font-size:.8125rem;margin:1px 0 9px}
.columns{display:grid;grid-auto-flow:column;grid-auto-columns:minmax(0,1fr);gap:8px;margin-top:auto}
.column{display:grid;gap:6px;align-content:start}.kind{font-size:.75rem;color:var(--soft)}
.column.after .kind{color:var(--ink);font-weight:600}
.column img,.missing{display:block;width:100%;height:auto;aspect-ratio:1;background:#fff;border-radius:6px;border:1px solid var(--line)}
.missing{background:var(--faint)}
table td.left{text-align:left}.numbers{font-size:.8125rem;line-height:1.4;margin-top:3px;display:flex;flex-wrap:wrap;gap:0 12px;justify-content:space-between}.credit{font-size:.75rem;line-height:1.4;color:var(--soft);margin-top:6px}
.chip{white-space:nowrap;font-size:.8125rem;font-weight:600;border-radius:99px;padding:1px 8px;background:var(--faint);color:var(--soft)}
.chip.better{background:var(--better-ground);color:var(--better)}.chip.worse{background:var(--worse-ground);color:var(--worse)}
.chip span{font-size:.625rem;vertical-align:.1em}
details.more{margin:18px 0}summary{cursor:pointer;font-weight:600;padding:6px 0;color:var(--better)}details[open]>summary{margin-bottom:10px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:16px;margin:14px 0}.charts.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr))}
.chart{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:13px 14px 10px;break-inside:avoid;min-width:0}
.chart figcaption{display:flex;flex-wrap:wrap;gap:2px 12px;align-items:baseline;justify-content:space-between;margin-bottom:7px;font-size:.9375rem}
.legend{display:flex;flex-wrap:wrap;gap:2px 12px;font-size:.8125rem;color:var(--soft)}.key{display:inline-flex;gap:5px;align-items:center;white-space:nowrap}
.chart>svg{display:block;width:100%;height:auto;overflow:visible}.note{font-size:.8125rem;line-height:1.45;color:var(--soft);margin:7px 0 0}
.swatch{width:22px;height:12px;flex:none}.patch{width:16px;height:10px;background:var(--faint);border:1px solid var(--line);border-radius:2px}
svg .rule{stroke:var(--line);stroke-width:1}svg .tick{fill:var(--soft);font:11px var(--sans)}
svg .band{fill:var(--better);opacity:.1}.patch{background:color-mix(in srgb,var(--better) 12%,transparent)}
svg .edge{fill:none;stroke:var(--better);stroke-width:1;stroke-dasharray:3 3;opacity:.7}svg .limit{fill:none;stroke:var(--worse);stroke-width:1.4;stroke-dasharray:5 4}svg .mark{fill:none;stroke:var(--worse);stroke-width:1.6;stroke-dasharray:2 3}
svg .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}svg .line.raw{stroke-width:1;opacity:.42;stroke-dasharray:none!important}
svg .line.main{stroke:var(--better)}svg .line.second{stroke:var(--worse);stroke-dasharray:6 4}svg .line.third{stroke:var(--third);stroke-dasharray:2 4}svg .line.quiet{stroke:var(--quiet)}
svg .whisker{fill:none;stroke-width:1.4;opacity:.6}svg .whisker.main{stroke:var(--better)}svg .whisker.second{stroke:var(--worse)}svg .whisker.third{stroke:var(--third)}
svg .dot{stroke:var(--card);stroke-width:1}svg .dot.main{fill:var(--better)}svg .dot.second{fill:var(--worse)}svg .dot.third{fill:var(--third)}svg .dot.quiet{fill:var(--quiet)}
svg.interval{display:block;width:140px;height:16px}svg.interval.tall{width:100%;height:26px}
svg .zero{stroke:var(--quiet);stroke-width:1}svg .bar{stroke-width:3;stroke-linecap:round;stroke:var(--quiet)}svg .bar.better{stroke:var(--better)}svg .bar.worse{stroke:var(--worse)}
svg .point{fill:var(--quiet)}svg .point.better{fill:var(--better)}svg .point.worse{fill:var(--worse)}svg .point.hollow{fill:var(--card);stroke:var(--quiet);stroke-width:1.6}
svg.dumbbell{display:block;width:100%;height:auto;margin-top:8px}svg .track{stroke:var(--line);stroke-width:2;stroke-linecap:round}
.scroll{overflow-x:auto;margin:14px 0;background:var(--card);border:1px solid var(--line);border-radius:10px}
table{border-collapse:collapse;width:100%;font-size:.9rem}caption{text-align:left;font-weight:600;padding:12px 16px 8px}
th,td{padding:7px 16px;text-align:left;vertical-align:middle;border-top:1px solid var(--line)}thead th{color:var(--soft);font-weight:500;font-size:.8125rem;border-top:0;white-space:nowrap}
tbody th{font-weight:500}.numeric td{white-space:nowrap}.numbers-table td,.numbers-table thead th{text-align:right}.numbers-table thead th:first-child,.numbers-table .left,.numbers-table thead th.left{text-align:left}.groups thead th:first-child{width:44%}.groups thead th:last-child{width:19%}.slices thead th:first-child{width:24%}.pairs td:nth-child(2),.pairs td:nth-child(3),.pairs tbody th,.files td:nth-child(2){white-space:nowrap}
.shares td:last-child{white-space:nowrap}.shares th,.shares td{padding-left:14px;padding-right:14px}.measure{white-space:nowrap}.explain{display:block;font-weight:400;font-size:.8125rem;color:var(--soft)}
.flag{font-weight:600;white-space:nowrap}.flag.better{color:var(--better)}.flag.worse{color:var(--worse)}
.share{display:inline-block;vertical-align:middle;width:72px;height:8px;border-radius:4px;background:var(--faint);margin-right:8px;overflow:hidden}.share i{display:block;height:100%;background:var(--better)}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,230px),1fr));gap:12px 28px;margin:14px 0;padding:0}
.facts div{border-top:1px solid var(--line);padding-top:7px}.facts dt{font-size:.8125rem;color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;overflow-x:auto;font:.8125rem/1.55 var(--mono);margin:12px 0}code{font:.875em var(--mono);overflow-wrap:anywhere}
.pair-grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:0 18px;align-items:start}
footer{margin-top:48px;padding-top:18px;border-top:1px solid var(--line);color:var(--soft);font-size:.875rem}
@media(max-width:820px){.hero{grid-template-columns:minmax(0,1fr);padding:20px}.forest-row{grid-template-columns:minmax(0,1fr) auto;gap:2px 12px}.forest-row .interval{grid-row:2;grid-column:1/-1}}
@media(max-width:480px){.cards{grid-template-columns:minmax(0,1fr)}table{font-size:.78rem}thead th{font-size:.72rem}th,td{padding:7px 5px}th:first-child{padding-left:11px}caption{padding:12px 12px 8px;max-width:calc(100vw - 36px)}.explain{display:none}.numbers-table thead th:first-child{width:auto}}
@media print{:root{--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc;--faint:#eee;--better:#1f5fa8;--better-ground:#fff;--worse:#a84c05;--worse-ground:#fff;--third:#3d6a2a;color-scheme:light}
body{font-size:10pt}.page{max-width:none;padding:0}nav,.skip{display:none}.cards{grid-template-columns:repeat(4,1fr)}.scroll{overflow:visible}.scroll:has(.groups),tr,.box{break-inside:avoid}caption,thead{break-after:avoid}section{break-inside:auto}h2,h3,h4{break-after:avoid}
details::details-content{content-visibility:visible;height:auto}pre{white-space:pre-wrap}}
`;
