# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the report page looks, and the few lines that filter it. Constants; nothing is fetched from anywhere."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--line:#d9dde3;--text:#1c2330;--soft:#5b6573;--track:#e6e9ee;
--healthy:#1a7a49;--degraded:#9a6207;--unhealthy:#c8323c;--unknown:#66707e;--accent:#2b62c4}
@media(prefers-color-scheme:dark){:root{--page:#12161c;--card:#1b2129;--line:#323b47;--text:#e4e9f0;--soft:#9aa6b5;--track:#2b333e;
--healthy:#3fb37f;--degraded:#e0a33c;--unhealthy:#f0707a;--unknown:#8a96a5;--accent:#7ba7f5}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
main{max-width:1280px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:22px;margin:0}h2{font-size:17px;margin:32px 0 10px}h3{font-size:15px;margin:0}
p{margin:4px 0}.soft,time{color:var(--soft)}small{font-size:13px}
header{display:flex;flex-wrap:wrap;gap:4px 16px;align-items:baseline;justify-content:space-between}
a{color:var(--accent)}code{font-size:13px;overflow-wrap:anywhere}
.card,.item,.s{background:var(--card);border:1px solid var(--line);border-radius:8px}
.card{padding:14px 16px}
.items{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:8px;align-items:start}
.item{padding:10px 14px;min-width:0;border-left:5px solid var(--degraded)}.item.alarm{border-left-color:var(--unhealthy)}
.item.ok{border-left-color:var(--healthy)}
.item ul{margin:6px 0;padding-left:18px}.item li{overflow-wrap:anywhere}.tag{font-size:12px;font-weight:600;text-transform:uppercase;letter-spacing:.04em}
.alarm .tag{color:var(--unhealthy)}.warning .tag{color:var(--degraded)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin-top:16px}
.tile b{display:block;font-size:22px;line-height:1.25}
.chart{position:relative;padding-left:48px;margin:10px 0 4px}.chart svg{display:block;width:100%;height:150px;overflow:visible}
.chart .y{position:absolute;left:0;width:42px;text-align:right;font-size:12px;color:var(--soft);transform:translateY(-50%)}
.dates{display:flex;justify-content:space-between;padding-left:48px;font-size:12px;color:var(--soft)}
.key{display:inline-block;width:12px;height:12px;border-radius:2px;vertical-align:-1px;margin:0 5px 0 14px}.key:first-child{margin-left:0}
.find{display:flex;flex-wrap:wrap;gap:8px 14px;align-items:center;margin:10px 0}
input{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:6px;padding:6px 10px;width:min(100%,360px)}
.servers{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,290px),1fr));gap:8px;align-items:start}
.s{padding:8px 12px;border-left:5px solid var(--c);min-width:0;content-visibility:auto;contain-intrinsic-size:auto 96px}
.s summary{list-style:none;cursor:pointer}.s summary::-webkit-details-marker{display:none}
.s .top{display:flex;justify-content:space-between;gap:8px}.s .top b{overflow-wrap:anywhere}
.s .state{color:var(--c);font-size:13px;font-weight:600}
.healthy{--c:var(--healthy)}.degraded{--c:var(--degraded)}.unhealthy{--c:var(--unhealthy)}.unknown{--c:var(--unknown)}
.bar{height:9px;border-radius:5px;background:var(--track);overflow:hidden;margin:5px 0}.bar i{display:block;height:100%;background:var(--c)}
.thin{display:grid;grid-template-columns:1fr 1fr;gap:0 12px;font-size:12px;color:var(--soft)}.thin .bar{height:4px;margin:2px 0 4px}
.thin .bar i{background:var(--soft)}
.hours{display:block;width:100%;height:7px;margin-top:5px;background:var(--track);
-webkit-mask:repeating-linear-gradient(90deg,#000 0 calc(100%/24 - 2px),transparent 0 calc(100%/24));
mask:repeating-linear-gradient(90deg,#000 0 calc(100%/24 - 2px),transparent 0 calc(100%/24))}
.s dl{display:grid;grid-template-columns:auto minmax(0,1fr);gap:2px 10px;margin:8px 0 2px;font-size:13px}.s dt{color:var(--soft)}
.s dd{margin:0;overflow-wrap:anywhere}
.s ul{margin:4px 0;padding-left:16px;font-size:12px;max-height:220px;overflow:auto;overflow-wrap:anywhere}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13px}
th,td{text-align:left;padding:4px 12px 4px 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right}td:first-child{white-space:nowrap}
[hidden]{display:none!important}
@media(max-width:700px){main{padding:14px 10px 40px}
.events thead{display:none}.events tr{display:block;border-bottom:1px solid var(--line);padding:5px 0}.events td{display:inline;border:0;padding:0 6px 0 0}}
@media print{.find{display:none}}
"""

# The page is whole without it. Words of the filter are all to be found in what a card says of itself; the address keeps them.
SCRIPT = """
(function(){
var box=document.getElementById('filter'),told=document.getElementById('shown'),cards=document.querySelectorAll('.s');
if(!box)return;
box.parentNode.hidden=false;
function show(){
var words=box.value.toLowerCase().split(/\\s+/).filter(Boolean),count=0;
cards.forEach(function(card){
var found=words.every(function(word){return card.dataset.find.indexOf(word)>=0});
card.hidden=!found;if(found)count++;
});
told.textContent=count+' of '+cards.length+' servers';
}
box.addEventListener('input',function(){show();history.replaceState(null,'',box.value?'#q='+encodeURIComponent(box.value):location.pathname)});
function ask(){var asked=/^#q=(.*)/.exec(location.hash);if(asked){try{box.value=decodeURIComponent(asked[1])}catch(e){}}show()}
window.addEventListener('hashchange',ask);ask();
})();
"""
