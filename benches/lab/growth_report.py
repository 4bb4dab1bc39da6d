"""What was measured, as data and as tables."""
import statistics


def point_of(axis, point):
    best = min(point.bursts, key=lambda burst: burst["cpu_us"])
    return {
        "x": point.x,
        "cpu_us": round(best["cpu_us"], 2),
        "median_us": round(statistics.median(burst["cpu_us"] for burst in point.bursts), 2),
        "rounds_us": [round(burst["cpu_us"], 2) for burst in point.bursts],
        "settled": point.settled(),
        "requests_a_second": round(best["rate"]),
        "fresh_kib": point.gate.fresh_kib,
        "memory_kib": point.bursts[-1][axis.memory],
        "start_ms": point.gate.start_ms,
    }


def result(axes, machine, rounds, seconds):
    told = []
    for axis in axes:
        series = []
        for name in axis.series():
            points = [point for point in axis.points if point.series == name]
            series.append({
                "name": name,
                "points": [point_of(axis, point) for point in points if point.bursts],
                "missing": [{"x": point.x, "why": point.trouble or point.last_trouble or "there was no time left"}
                            for point in points if not point.bursts],
            })
        told.append({
            "name": axis.name, "title": axis.title, "unit": axis.unit, "each": axis.each,
            "note": axis.note, "memory": axis.memory,
            # The lines of one axis may ask the same gates, and then its memory is one line.
            "one_gate": len(axis.gates()) < len(axis.points),
            "series": series, "notes": axis.troubles,
        })
    return {"machine": machine, "rounds": rounds, "seconds": seconds, "axes": told}


def mib(kib):
    return f"{kib / 1024:.1f}" if kib < 100 * 1024 else f"{kib / 1024:,.0f}"


def cpu(point):
    return f"{'' if point['settled'] else '~'}{point['cpu_us']:.1f} ({point['median_us']:.1f})"


def memory_series(axis):
    """The lines whose memory is worth telling apart."""
    return axis["series"][:1] if axis["one_gate"] else axis["series"]


def table(axis):
    """A row a place on the axis; columns of CPU a line, then of memory."""
    lines, memories = axis["series"], memory_series(axis)
    label = (lambda text, series: text) if len(lines) == 1 else (lambda text, series: f"{text}, {series['name']}")
    heads = [label("CPU µs", series) for series in lines]
    single = len(memories) == 1
    if single:
        heads += ["fresh, MiB", f"{axis['memory']} load, MiB", "start, ms"]
    else:
        heads += [f"MiB {axis['memory']} load, {series['name']}" for series in memories]
    rows = [[axis["unit"], *heads], ["--:"] * (len(heads) + 1)]
    for x in sorted({point["x"] for series in lines for point in series["points"] + series["missing"]}):
        def of(series):
            return next((point for point in series["points"] if point["x"] == x), None)
        row = [f"{x:,}"]
        for series in lines:
            point = of(series)
            row.append(cpu(point) if point else "–")
        for series in memories:
            point = of(series)
            row.append(mib(point["memory_kib"]) if point else "–")
            if single:
                row.insert(-1, mib(point["fresh_kib"]) if point else "–")
                row.append(f"{point['start_ms']:,}" if point else "–")
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def slope(axis):
    """From the first to the last place of each line: the factor of the CPU, and the bytes of memory a step."""
    told = []
    memories = memory_series(axis)
    for series in axis["series"]:
        points = series["points"]
        if len(points) < 2:
            continue
        first, last = points[0], points[-1]
        text = (f"- {series['name']}: {first['cpu_us']:.1f} µs at {first['x']:,}, {last['cpu_us']:.1f} µs at "
                f"{last['x']:,}, ×{last['cpu_us'] / first['cpu_us']:.2f}")
        if series in memories:
            # A connection is open in the last point, and not in a fresh process: those are the two to compare.
            each = (last["memory_kib"] - first["memory_kib"]) * 1024 / (last["x"] - first["x"])
            text += f"; memory {each:+,.0f} B a {axis['each']}"
        told.append(text)
    return told


def markdown(told):
    machine = told["machine"]
    parts = [
        "# How it grows",
        f"{machine['version']}; {machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, "
        f"{machine['date']}. Everything on, one worker. CPU µs (user and system) a request: the lowest of "
        f"{told['rounds']} or more rounds of {told['seconds']:g} s, in brackets the median; ~ where "
        "the two lowest differ by more than 3 %. Memory is PSS.",
    ]
    for axis in told["axes"]:
        parts += [f"## {axis['title']}", axis["note"], table(axis)]
        notes = slope(axis) + [f"- {note}" for note in axis["notes"]]
        for series in axis["series"]:
            notes += [f"- {series['name']}, {missing['x']:,}: not measured, {missing['why']}"
                      for missing in series["missing"]]
        if notes:
            parts.append("\n".join(notes))
    return "\n\n".join(parts) + "\n"
