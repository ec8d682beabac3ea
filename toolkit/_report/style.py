"""How a report looks: system fonts, light and dark, narrow screens, paper. Blue and orange are told
apart by everyone.
"""

from __future__ import annotations

CSS = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2330;--faint:#5b6575;--line:#dde2ea;
--soft:#f5f7fa;--accent:#0b62a8;
--computed:#0072b2;--reused:#7fbde3;--failed:#d55e00;--good:#0072b2;--part:#8a6100;
--bad:#b34700;
--good-bg:#e9f3fa;--part-bg:#fdf5e0;--bad-bg:#fcede3}
@media (prefers-color-scheme:dark){:root{--bg:#12161d;--fg:#e4e8ef;--faint:#9ba6b7;
--line:#2c3442;--soft:#1a202a;--accent:#7cc0f2;
--computed:#4aa3df;--reused:#27597d;--failed:#f08a3c;--good:#7cc0f2;--part:#e8bf5a;
--bad:#ff9f5c;
--good-bg:#142737;--part-bg:#2b2412;--bad-bg:#33200f}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:64rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1,h2,h3{line-height:1.2;overflow-wrap:anywhere}
h1{font-size:2rem;margin:0 0 .75rem;letter-spacing:-.01em}
h2{font-size:1.25rem;margin:2.75rem 0 .75rem;padding-top:1.25rem;
border-top:1px solid var(--line)}
h2.small{border:0;padding:0;margin:1.25rem 0 .4rem;font-size:.85rem;color:var(--faint);
font-weight:600}
h3{font-size:1rem;margin:1.5rem 0 .5rem}
p{margin:.5rem 0}.faint,.eyebrow{color:var(--faint);font-size:.875rem}.eyebrow{
margin:0 0 .25rem;overflow-wrap:anywhere}
.asked{font-size:1.1rem;max-width:46rem}
.skip,.spoken{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);
white-space:nowrap}
.skip:focus{position:static;width:auto;height:auto;clip-path:none}
.banner{display:flex;gap:.75rem;align-items:center;padding:.75rem 1rem;border-radius:.5rem;
border:1px solid;margin:.75rem 0}
.sign{font-size:1.25rem;font-weight:700;line-height:1}
.good{color:var(--good);background:var(--good-bg)}.part{color:var(--part);
background:var(--part-bg)}
.bad{color:var(--bad);background:var(--bad-bg)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.75rem;
margin:0}
.tiles div{display:flex;flex-direction:column;background:var(--soft);
border:1px solid var(--line);border-radius:.5rem;
padding:.7rem .9rem}
.tiles dt{color:var(--faint);font-size:.85rem;font-weight:400}
.tiles dd{margin:0;font-size:1.15rem;font-weight:600;white-space:nowrap;
font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.925rem}
.caption{color:var(--faint);font-size:.875rem;margin:0 0 .5rem}
th,td{text-align:left;vertical-align:top;padding:.5rem .9rem .5rem 0;
border-bottom:1px solid var(--line)}
thead th{color:var(--faint);font-weight:600;font-size:.8rem;vertical-align:bottom}
tbody th{font-weight:600;white-space:nowrap}td.words{min-width:14rem}tbody th .faint{
font-weight:400}
.number{font-variant-numeric:tabular-nums;white-space:nowrap}
.bar{display:flex;height:.45rem;width:7rem;margin-top:.35rem;border-radius:.25rem;
overflow:hidden;background:var(--line)}
.bar .computed{background:var(--computed)}.bar .reused{background:var(--reused)}.bar .failed{
background:var(--failed)}
pre,code{
font:.85rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{margin:.5rem 0;padding:.75rem 1rem;background:var(--soft);border:1px solid var(--line);
border-radius:.5rem;
overflow-x:auto;color:var(--fg)}
pre.command{white-space:pre-wrap;overflow-wrap:anywhere;color:var(--accent);font-weight:600}
dd code{overflow-wrap:anywhere}
dl{margin:.25rem 0}dl>div{display:grid;grid-template-columns:minmax(7rem,11rem) minmax(0,1fr);
gap:.25rem 1rem;padding:.25rem 0}
dl:not(.tiles)>div+div{border-top:1px solid var(--line)}
dt{color:var(--faint);font-size:.875rem;overflow-wrap:anywhere}dd{margin:0;min-width:0}dd dl{
margin:0}ol{margin:0;
padding-left:1.2rem}
.plain{list-style:none;margin:0;padding:0}
.box{border:1px solid;border-radius:.5rem;padding:.5rem 1rem;margin:.6rem 0}.box .faint{
color:inherit}.box pre{
white-space:pre-wrap}
.figure svg,.figure img{max-width:100%;height:auto}
summary{cursor:pointer;padding:.5rem 0;color:var(--accent)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
@media (max-width:36rem){main{padding:1.25rem .9rem 3rem}h1{font-size:1.5rem}
dl:not(.tiles)>div{grid-template-columns:1fr;gap:0}.tiles{
grid-template-columns:repeat(2,minmax(0,1fr))}.tiles dd{
font-size:1.1rem}}
@media print{:root{--bg:#fff;--fg:#000;--faint:#444;--line:#bbb;--soft:#fff;--accent:#000;
color-scheme:light}
main{max-width:none;padding:0}.scroll,pre{overflow:visible}pre{white-space:pre-wrap;
overflow-wrap:anywhere}
section,tr,.box,.figure{break-inside:avoid}section:last-child{break-inside:auto}
.banner,.bar span{print-color-adjust:exact}
.skip{display:none}}
"""
