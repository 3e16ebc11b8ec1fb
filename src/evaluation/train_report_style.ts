// What the training page adds to the reports' shared style sheet: the figures at its top, the grid of samples, the strip
// of training pictures and lines to copy.

export const TRAIN_STYLE = `
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,150px),1fr));gap:18px 28px;margin:30px 0 0;padding:24px 28px;background:var(--card);border:1px solid var(--line);border-radius:14px}
.figures div{min-width:0}.figures dt{font-size:.8125rem;color:var(--soft)}.figures dd{margin:2px 0 0;font:600 1.55rem/1.2 var(--serif);letter-spacing:-.01em}.figures dd small{display:block;font:400 .8125rem/1.4 var(--sans);letter-spacing:0;margin-top:3px}
.cards.samples{grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr))}
.prompt{font-weight:600;line-height:1.3;overflow-wrap:anywhere;display:-webkit-box;-webkit-line-clamp:4;-webkit-box-orient:vertical;overflow:hidden}
.column img{aspect-ratio:auto}.sample .columns{margin-top:4px;align-items:end}
.grid{width:auto;min-width:100%}.grid caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);padding:0}
.grid thead th{border-top:0;text-align:left;padding:12px 6px 4px}.grid td{border-top:0;padding:0 6px 14px;vertical-align:top;min-width:112px;max-width:232px}
.grid-box{padding:0 10px}
.grid .row-head th{padding:12px 6px 6px;font-weight:500;border-top:1px solid var(--line)}.grid .row-head span{position:sticky;left:6px;display:inline-block;max-width:min(70ch,calc(100vw - 84px));overflow-wrap:anywhere}
.grid img,.grid .missing{display:block;width:100%;height:auto;border-radius:6px;border:1px solid var(--line);background:#fff}.grid .missing{aspect-ratio:1;background:var(--faint)}
.examples{list-style:none;margin:14px 0;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(128px,1fr));gap:16px 14px;align-items:start}
.examples img,.examples .missing{display:block;width:100%;height:auto;border-radius:6px;border:1px solid var(--line);background:#fff}.examples .missing{aspect-ratio:1;background:var(--faint)}
.examples .caption{font-size:.8125rem;line-height:1.4;margin-top:5px;overflow-wrap:anywhere}
.copy{user-select:all;-webkit-user-select:all;margin:6px 0 4px}.copy code{overflow-wrap:normal;font-size:1em}
pre:focus-visible{outline:2px solid var(--focus);outline-offset:3px}
.sets tbody th,.dropped tbody th{overflow-wrap:anywhere;min-width:15ch}.buckets th,.sets td:last-child,.dropped td:nth-child(n+3),.dropped code{white-space:nowrap}.dropped td:nth-child(2){min-width:20ch}
@media(max-width:480px){.figures{grid-template-columns:repeat(2,minmax(0,1fr));padding:18px;gap:16px}.figures dd{font-size:1.25rem}.grid td{min-width:104px}.grid .row-head span{max-width:calc(100vw - 68px)}.examples{grid-template-columns:repeat(auto-fill,minmax(104px,1fr))}}
@media print{.copy{user-select:auto}.grid-box{overflow:visible}.grid td{min-width:0}}
`;
