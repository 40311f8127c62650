"""The page's colours and its style sheet. Pure.

The palette is blue, orange, teal and grey, which every kind of colour blindness tells apart; lines differ by dashes and
marks by shape besides. Every ink has a contrast of at least 4.5 on every ground of its scheme, which a test holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

GROUNDS: Final = ("ground", "panel")
LIGHT: Final[Mapping[str, str]] = {
    "ground": "#ffffff",
    "panel": "#f4f5f7",
    "ink": "#1a1d21",
    "soft": "#565d66",
    "blue": "#0a58a8",
    "orange": "#a44a00",
    "teal": "#00665a",
    "grey": "#616871",
    "red": "#b3261e",
}
DARK: Final[Mapping[str, str]] = {
    "ground": "#14171b",
    "panel": "#1d2126",
    "ink": "#e9ecef",
    "soft": "#a4acb5",
    "blue": "#73b7ff",
    "orange": "#f5a55b",
    "teal": "#57cdb9",
    "grey": "#a2aab3",
    "red": "#ff8f85",
}
RULES: Final = {"light": "#d9dde2", "dark": "#343a41"}
"""Of lines that only part; nothing is read from them."""


def sheet() -> str:
    """All of the page's CSS."""
    light, dark = _variables(LIGHT, RULES["light"]), _variables(DARK, RULES["dark"])
    schemes = f":root{{color-scheme:light dark;{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return schemes + _BODY + _CHARTS + _TABLES + _NARROW + f"@media print{{:root{{{light}}}{_PRINT}}}"


def _variables(palette: Mapping[str, str], rule: str) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in {**palette, "rule": rule}.items())


_BODY: Final = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);overflow-wrap:anywhere;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
main>section>*{max-width:1080px;margin-inline:auto}
header,footer{max-width:1128px;margin-inline:auto}
header{padding:40px 24px 8px}
header p.over{margin:0 0 12px;color:var(--soft);font-size:14px}
h1{margin:0;font-size:clamp(20px,3vw,27px);line-height:1.3;font-weight:650;letter-spacing:-.01em;text-wrap:pretty;max-width:36em}
h2{margin:0;font-size:22px;line-height:1.3;font-weight:650}
h3{margin:0 0 4px;font-size:17px;line-height:1.35;font-weight:650}
h4{margin:0 0 4px;font-size:14px;font-weight:650}
p{margin:0 0 12px;max-width:72ch}
.aside{color:var(--soft)}
.aside{font-size:14px}
.verdict{display:inline-flex;align-items:center;gap:8px;margin:0 0 12px;padding:3px 12px 3px 10px;border:1.5px solid;
border-radius:99px;font-size:14px;font-weight:600;line-height:1.5}
.verdict svg{width:14px;height:14px;flex:none}
.good{color:var(--teal)}.not_better{color:var(--red)}.not_enough_data{color:var(--soft)}
main>section{padding:28px 24px 40px}
main>section>header{padding:0 0 8px;margin-bottom:20px;border-bottom:2px solid var(--ink)}
main>section>header p{margin:4px 0 0;max-width:none;color:var(--soft);font-size:14px}
#operations{background:var(--panel);border-top:1px solid var(--rule)}
.part{margin-top:40px!important}.part>p:last-child{margin:0}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:0 40px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(230px,1fr));margin-block:0;padding:0;
background:var(--ground);border:1px solid var(--rule);border-radius:8px;overflow:hidden}
.tiles div{padding:14px 18px;box-shadow:1px 1px 0 0 var(--rule)}
.tiles dt{color:var(--soft);font-size:13px;line-height:1.35}
.tiles dd{margin:2px 0 0;font-size:24px;font-weight:600;line-height:1.25;font-variant-numeric:tabular-nums;
letter-spacing:-.01em}
.tiles dd.long{font-size:17px;line-height:1.4;padding:3px 0}
.tiles dd small{display:block;color:var(--soft);font-size:12.5px;font-weight:400;line-height:1.4;letter-spacing:0}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:0 40px;margin:0;
font-size:14px}
.facts div{display:flex;justify-content:space-between;gap:16px;padding:5px 0;border-bottom:1px solid var(--rule)}
.facts dt{color:var(--soft);min-width:7em}.facts dd{margin:0;text-align:right;font-variant-numeric:tabular-nums}
footer{padding:20px 24px 40px;color:var(--soft);font-size:13px}
a{color:var(--blue)}
:focus-visible{outline:2px solid var(--blue);outline-offset:2px}
"""

_CHARTS: Final = """
figure{margin:0}
.legend{display:flex;flex-wrap:wrap;gap:2px 20px;margin:4px 0 0;padding:0;list-style:none;font-size:13.5px}
.legend li{display:flex;align-items:center;gap:8px}
.legend svg{width:26px;height:12px;flex:none}
.frame{padding:40px 14px 44px 46px}
.frame.bare{padding-left:0}
.frame>svg,.spark svg{display:block;overflow:visible}
svg{fill:none}
text{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}
text.name{font-size:12.5px}
text.who{fill:var(--ink);font-size:13px;stroke:var(--ground);stroke-width:4;paint-order:stroke}
path,line,circle{vector-effect:non-scaling-stroke}
.grid{stroke:var(--rule)}
.axis{stroke:var(--soft)}
path.blue,path.orange,path.grey,path.teal{stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.blue{stroke:var(--blue)}.orange{stroke:var(--orange)}.grey{stroke:var(--grey)}.teal{stroke:var(--teal)}
.red{stroke:var(--red)}
path.orange{stroke-dasharray:7 4}.spark path{stroke-dasharray:none;stroke-width:1.5}
.spark path.fill{stroke:none}path.grey{stroke-dasharray:2 4}
line.red{stroke-width:1.5;stroke-dasharray:4 3}
line.aim,path.aim{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:5 4}
path.interval{stroke:var(--blue);stroke-width:5;stroke-opacity:.2}
path.fill{fill:var(--blue);fill-opacity:.16}
path.fill.warm{fill:var(--orange)}
circle.dot{fill:var(--blue)}
circle.out{fill:var(--ground);stroke:var(--orange);stroke-width:1.8}
circle.mean{fill:var(--blue);stroke:var(--ground);stroke-width:1.5}
rect.champion{fill:var(--blue)}rect.fallback{fill:var(--orange)}
rect.lane{fill:var(--rule);opacity:.55}
path.mark{fill:var(--red)}
.processes{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:24px 40px}
.process{display:grid;grid-template-columns:1fr 1fr;gap:4px 16px;align-content:start}
.process h4{grid-column:1/-1;margin:0}
.spark{border-bottom:1px solid var(--soft)}
.process p{margin:0;font-size:12px;line-height:1.35;color:var(--soft);font-variant-numeric:tabular-nums}
"""

_TABLES: Final = """
.scroll{overflow-x:auto;margin:8px 0 0}
details .scroll{max-height:360px;overflow-y:auto}
table{width:100%;border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{padding:6px 0 6px 16px;border-bottom:1px solid var(--rule);text-align:left;vertical-align:baseline;
overflow-wrap:normal}
tr>:first-child{padding-left:0}
thead th{color:var(--soft);font-weight:500;font-size:13px;border-bottom-color:var(--soft);white-space:nowrap;
vertical-align:bottom}
tbody th{font-weight:500;min-width:7em;max-width:20em;overflow-wrap:anywhere}
td{max-width:36em}
.num{text-align:right;white-space:nowrap}
.tag{display:inline-block;padding:0 7px;border:1px solid;border-radius:99px;font-size:12px;
line-height:1.5;white-space:nowrap;color:var(--soft)}
.tag.serves{color:var(--blue)}.tag.bad{color:var(--red)}
.bar{display:block;height:4px;margin:3px 0 0 auto;border-radius:2px;background:var(--orange);min-width:2px}
.bar.none{background:none}
details{margin-top:12px;font-size:14px}
summary{cursor:pointer;color:var(--blue);width:fit-content}
"""

_NARROW: Final = """
@media (max-width:600px){
header{padding:24px 16px 4px}main>section{padding:24px 16px 32px}footer{padding:16px 16px 32px}
.part{margin-top:32px!important}
.tiles{grid-template-columns:1fr 1fr}.tiles div{padding:10px 12px}.tiles dd{font-size:20px}
.tiles div:last-child:nth-child(odd){grid-column:1/-1}
.frame{padding-right:10px}
th,td{padding-left:12px}
tr>th:first-child{position:sticky;left:0;padding-right:8px;background:var(--ground)}
#operations tr>th:first-child{background:var(--panel)}
}
"""

_PRINT: Final = (
    "body{font-size:11pt}details{display:none}.part,.process,figure,tr{break-inside:avoid}"
    "#operations{background:none;break-before:page}.scroll{overflow:visible}main>section,header{padding-inline:0}"
)
