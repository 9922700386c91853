"""ORC on the scheduler's own HTTP server: a page beside Dask's dashboard, its figures, and metrics beside Dask's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import tornado.web

if TYPE_CHECKING:
    from agent.scheduler.extension import Extension

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>ORC</title>
<style>
:root{color-scheme:light dark;--line:#8884}body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
h1{font-size:1.3rem;margin:0}h2{font-size:1rem;margin:1.6rem 0 .4rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem .7rem;border-bottom:1px solid var(--line)}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.tiles{display:flex;gap:1rem;flex-wrap:wrap;margin-top:1rem}.tile{border:1px solid var(--line);border-radius:.5rem;padding:.5rem 1rem;min-width:8rem}
.tile b{display:block;font-size:1.4rem}.bar{background:#4c8dff;height:.6rem;border-radius:.3rem}.late{color:#c60}small{opacity:.7}
</style>
<h1>ORC <small id="mode"></small></h1><div class="tiles" id="tiles"></div>
<h2>Worker pools</h2><table id="pools"></table><h2>Held tasks: why, and what releases them</h2><table id="held"></table>
<p><small>From the governor, each second. <a href="../status">Dask's dashboard</a> · <a href="../metrics">metrics</a></small></p>
<script>
const esc=s=>String(s).replace(/[&<>"]/g,c=>({"&":"&amp;","<":"&lt;",">":"&gt;",'"':"&quot;"}[c]));
const row=(cells,tag="td")=>"<tr>"+cells.map(c=>{const n=typeof c==="number";return `<${tag} class="${n?"n":""}">${c&&c.html!==undefined?c.html:esc(n?c.toLocaleString():c)}</${tag}>`}).join("")+"</tr>";
const head=(cells,figures)=>"<tr>"+cells.map(c=>`<th class="${figures.includes(c)?"n":""}">${esc(c)}</th>`).join("")+"</tr>";
const usd=x=>({html:`<span style="float:right">${x.toFixed(2)}</span>`});
const span=s=>s<60?s.toFixed(0)+" s":s<3600?(s/60).toFixed(0)+" min":(s/3600).toFixed(1)+" h";
async function look(){try{const f=await (await fetch("figures")).json();const g=f.governor;
 const age=g?Date.now()/1000-g.at:1e9;
 mode.innerHTML=esc(f.mode)+(age>5?' · <span class="late">no governor is heard: what runs goes on, what is held waits</span>':"");
 const tile=(n,t)=>`<div class="tile"><b>${n}</b>${t}</div>`;
 const held=g?g.held.reduce((a,h)=>a+h.tasks,0):"?";
 tiles.innerHTML=tile(f.bound.toLocaleString(),"bound in all")+tile(g?g.running:"?","running")+tile(held,"held")+tile(g?g.moves:"?","moved after a loss")+tile(g?"$"+g.spent_usd.toFixed(4):"?","spent on leases")+(g&&g.spooled?tile(g.spooled,"records wait for the database"):"");
 if(!g)return;
 pools.innerHTML=head(["pool","kind","$ an hour","workers","in use","bound","placed","taken away"],["$ an hour","bound","placed","taken away"])+g.pools.map(p=>row([p.pool,p.kind,usd(p.usd_per_hour),{html:`${p.workers}${p.starting?" +"+p.starting+" starting":""} of ${p.max}`},{html:`<div style="min-width:8rem"><div class="bar" style="width:${100*Math.min(1,p.workers/Math.max(1,p.max))}%"></div></div>`},p.bound,p.placed,p.taken])).join("");
 document.getElementById("held").innerHTML=g.held.length?head(["task","tasks","reason","since","why","released by"],["tasks"])+g.held.map(h=>row([h.task,h.tasks,h.reason,span(h.seconds),h.why,h.release])).join(""):"<tr><td>nothing waits</td></tr>";
}catch(e){mode.textContent="the scheduler does not answer"}}
const mode=document.getElementById("mode"),tiles=document.getElementById("tiles"),pools=document.getElementById("pools");
look();setInterval(look,1000);
</script></html>"""


class _Page(tornado.web.RequestHandler):
    def get(self) -> None:
        self.write(PAGE)


class _Figures(tornado.web.RequestHandler):
    def initialize(self, extension: Extension) -> None:
        self.extension = extension

    def get(self) -> None:
        e = self.extension
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps({"mode": e.mode, "epoch": e.epoch, "bound": e.binding.bound, "governor": e.figures}))


def serve(extension: Extension) -> None:
    """Add the page to the scheduler's HTTP server, where it has one, and the metrics to its `/metrics`."""
    application = getattr(extension.scheduler, "http_application", None)
    if application is not None:
        routes: list[Any] = [(r"/orc/?", tornado.web.RedirectHandler, {"url": "/orc/page", "permanent": False})]
        routes += [(r"/orc/page", _Page), (r"/orc/figures", _Figures, {"extension": extension})]
        application.add_handlers(r".*", routes)
    try:
        from prometheus_client import REGISTRY
    except ImportError:  # Dask itself has no metrics then
        return
    if _Collector.registered is None:
        _Collector.registered = _Collector(extension)
        REGISTRY.register(_Collector.registered)
    # several schedulers may follow each other in one process; the newest is told of, as Dask does it
    _Collector.registered.extension = extension


class _Collector:
    """What the extension counts; read when Prometheus asks Dask for its metrics."""

    registered: _Collector | None = None

    def __init__(self, extension: Extension) -> None:
        self.extension = extension

    def collect(self) -> Iterator[Any]:
        """See `prometheus_client.registry.Collector`."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        e = self.extension
        yield CounterMetricFamily("orc_scheduler_bound", "Tasks bound to workers", value=e.binding.bound)
        yield CounterMetricFamily(
            "orc_scheduler_withdrawals", "Tasks asked back from workers", value=e.binding.withdrawals
        )
        yield GaugeMetricFamily("orc_scheduler_tasks", "Tasks held or bound", value=len(e.tasks))
        yield GaugeMetricFamily(
            "orc_scheduler_inner_tasks", "Tasks that governed tasks submitted", value=len(e.inner.tasks)
        )
        yield GaugeMetricFamily("orc_scheduler_untold_deltas", "Deltas no governor has on record", value=len(e.deltas))
        longest = GaugeMetricFamily(
            "orc_scheduler_longest_hold_seconds", "Longest stretch of the scheduler's loop by ORC", labels=("doing",)
        )
        for what, ms in sorted(e.longest.items()):
            longest.add_metric([what], ms / 1000)
        yield longest
        waits = sorted(e.binding.waits_ms)
        if waits:
            ready = GaugeMetricFamily(
                "orc_scheduler_ready_to_bound_seconds", "From ready to bound, the newest tasks", labels=("quantile",)
            )
            ready.add_metric(["0.5"], waits[len(waits) // 2] / 1000)
            ready.add_metric(["0.99"], waits[int(len(waits) * 0.99)] / 1000)
            yield ready
