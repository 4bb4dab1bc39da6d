"""What was measured, as tables in Markdown."""
import datetime
import os
import platform
import statistics

import load
import peer
from workloads import WORKLOADS

US, BASE, LOGGING = "scopegate", "nginx", "nginx-logs"
DASH = "–"


def cell(value, digits):
    return DASH if value is None else f"{value:,.{digits}f}"


def table(corner, heads, rows):
    lines = [f"| {corner} | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    return lines + [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows]


class Results:
    """The rows of a run: each is a peer, a workload, a round, and what was measured."""

    def __init__(self, rows):
        self.rows = [row for row in rows if "error" not in row]
        self.failed = [row for row in rows if "error" in row]

    def peers(self, kind):
        seen = {row["peer"] for row in self.rows if WORKLOADS[row["workload"]].kind == kind}
        return [name for name in peer.KINDS if name in seen]

    def workloads(self, kind):
        seen = {row["workload"] for row in self.rows}
        return [name for name, workload in WORKLOADS.items() if workload.kind == kind and name in seen]

    def all(self, peer_name, workload, field):
        return [row[field] for row in self.rows
                if row["peer"] == peer_name and row["workload"] == workload and field in row]

    def best(self, peer_name, workload, field):
        """The lowest: nothing makes a request cheaper, and much makes it dearer."""
        return min(self.all(peer_name, workload, field), default=None)

    def ratio(self, peer_name, base, workload):
        ours, theirs = self.best(peer_name, workload, "cpu_us"), self.best(base, workload, "cpu_us")
        return ours / theirs if ours is not None and theirs else None


def cpu(results):
    peers, workloads = results.peers("cpu"), results.workloads("cpu")
    if not workloads:
        return []
    out = ["### CPU a request", ""]
    if BASE in peers:
        workloads.sort(key=lambda name: -(results.ratio(US, BASE, name) or 0))
        out += [f"As a ratio to {BASE} in this run, the rows where we lose first:", ""]
        out += table("", peers, [(WORKLOADS[name].title, [cell(results.ratio(other, BASE, name), 2) for other in peers])
                                 for name in workloads])
        out.append("")
    if US in peers and LOGGING in peers:
        out += table("", workloads, [(f"{US}, of {LOGGING}",
                                      [cell(results.ratio(US, LOGGING, name), 2) for name in workloads])])
        out.append("")
    out += ["In µs, the lowest of all rounds:", ""]
    out += table("", peers, [(WORKLOADS[name].title,
                              [cell(results.best(other, name, "cpu_us"), 1) for other in peers])
                             for name in workloads])
    apart = sorted(statistics.median(values) / min(values) for other in peers for name in workloads
                   if len(values := results.all(other, name, "cpu_us")) > 1 and min(values))
    if apart:
        out += ["", "How noisy it was: the median of a cell's rounds lies above its lowest by "
                f"{statistics.median(apart) - 1:.0%} in the middle of all cells, by {apart[-1] - 1:.0%} at most."]
    return out + [""]


def latency(results, settings):
    peers, workloads = results.peers("latency"), results.workloads("latency")
    if not workloads:
        return []
    out = ["### Latency", "",
           f"µs of p50 / p99 / p99.9 at {settings['rate']:,} requests a second over 16 connections, counted from when "
           "a request was due; the lowest of each over the rounds.", ""]
    points = ("p50_us", "p99_us", "p999_us")

    def three(other, name, base=None):
        values = [results.best(other, name, point) for point in points]
        if None in values:
            return DASH
        if base:
            bases = [results.best(base, name, point) for point in points]
            if None in bases:
                return DASH
            values = [value - less for value, less in zip(values, bases)]
        return " / ".join(f"{value:,.0f}" for value in values)
    out += table("besides", peers, [(WORKLOADS[name].title, [three(other, name) for other in peers])
                                    for name in workloads])
    if "direct" in peers:
        others = [name for name in peers if name != "direct"]
        out += ["", "What that adds to `direct`, the upstream without a proxy:", ""]
        out += table("besides", others, [(WORKLOADS[name].title, [three(other, name, "direct") for other in others])
                                         for name in workloads])
    return out + [""]


def memory(results, settings):
    peers = results.peers("memory")
    if not peers:
        return []
    fields = (("kib_a_connection", f"KiB a connection, {settings['idle']:,} idle after one request each", 1, 1),
              ("kib_a_tls_connection", "KiB a TLS connection, the same", 1, 1),
              ("kib_a_tunnel", "KiB a tunnel, idle after one frame", 1, 1),
              ("fresh_kib", f"fresh, {settings['keys']:,} keys, PSS MiB", 1024, 1),
              ("start_ms", "start, ms", 1, 0))

    def value(other, field, unit, digits):
        best = results.best(other, "idle", field)
        return cell(best / unit if best is not None else None, digits)
    return ["### Memory, and the start", "",
            *table("", peers, [(title, [value(other, field, unit, digits) for other in peers])
                               for field, title, unit, digits in fields]), ""]


def complaints(results):
    """A figure with errors behind it is none; where there were any, the reader must know."""
    out, counted = [], {}
    for row in results.rows:
        if row.get("errors"):
            counted[row["peer"], row["workload"]] = counted.get((row["peer"], row["workload"]), 0) + row["errors"]
    out += [f"- {name}, {workload}: {count:,} requests failed" for (name, workload), count in sorted(counted.items())]
    out += [f"- {row['peer']}, {row['workload']}: not measured: {row['error']}" for row in results.failed]
    return ["### What went wrong", "", *out, ""] if out else []


def machine():
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release().split("-")[0],
            "date": datetime.date.today().isoformat()}


def tools():
    """Versions of the load generators."""
    def number(argv):
        said = peer.said(argv).split()
        return said[1].split("/")[-1] if len(said) > 1 else "not found"
    return [f"wrk {number(['wrk', '-v'])}", f"h2load {number(['h2load', '--version'])}",
            f"oha {number([load.oha_binary() or 'oha', '--version'])}"]


def page(run):
    """All of a run's tables."""
    settings, facts = run["settings"], run["machine"]
    results = Results(run["rows"])
    pinned = ("pinned to one core, load and upstream to another" if settings["pinned"] else "nothing pinned")
    versions = dict.fromkeys([*run["peers"].values(), *run["tools"]])
    out = [f"{settings['threads']} worker{'s' if settings['threads'] > 1 else ''} a peer, {pinned}; "
           f"{settings['keys']:,} keys; rounds: {settings['rounds']} of {settings['seconds']} s, "
           f"of latency {settings['long_rounds']} of {settings['latency_seconds']} s.",
           f"{facts['cores']} cores of {facts['cpu']}, Linux {facts['kernel']}, {facts['date']}.",
           "; ".join(versions) + ".", ""]
    out += cpu(results) + latency(results, settings) + memory(results, settings) + complaints(results)
    return "\n".join(out).rstrip() + "\n"
