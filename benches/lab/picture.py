#!/usr/bin/env python3
"""Draws growth.json: a row an axis, CPU a request on the left, memory on the right, both from zero, so that what is
flat looks flat.

    picture.py growth.json > growth.svg
"""
import json
import math
import re
import sys
from html import escape

WIDTH = 980
ROW = 250  # height of an axis' row
TOP = 74  # what stands above the first row
PLOT = 150  # height of a plot
LEFTS = (58, 570)  # where the two plots of a row begin
SPANS = (300, 240)  # how wide they are
LABEL = 14  # the least distance of two labels of lines

# Two lines of one panel must be told apart in both themes, by eyes that tell few colours apart too (Okabe and Ito).
LIGHT = ("#0072b2", "#d55e00", "#007a5a", "#a04a7c", "#6b5b00")
DARK = ("#56b4e9", "#ff9d4d", "#3fc79a", "#e69ac6", "#e5d04a")


def style():
    def theme(ground, ink, soft, grid, colours):
        rules = [f".ground,.hollow{{fill:{ground}}}", f"text{{fill:{ink}}}", f".soft{{fill:{soft}}}",
                 f".grid{{stroke:{grid}}}", f".axis{{stroke:{soft}}}"]
        for number, colour in enumerate(colours):
            rules += [f".l{number}{{stroke:{colour}}}", f".p{number}{{fill:{colour};stroke:{ground}}}",
                      f".t{number}{{fill:{colour}}}"]
        return "".join(rules)
    return ("text{font:12px system-ui,'Segoe UI',Helvetica,Arial,'DejaVu Sans',sans-serif}"
            ".title{font-size:19px;font-weight:600}.row{font-size:15px;font-weight:600}.soft{font-size:12px}"
            ".line{fill:none;stroke-width:2;stroke-linejoin:round}.grid,.axis{stroke-width:1}"
            ".refused,.hollow{stroke-width:1.6}"
            + theme("#ffffff", "#1f2328", "#59636e", "#e4e7eb", LIGHT)
            + "@media (prefers-color-scheme:dark){" + theme("#0d1117", "#e6edf3", "#9198a1", "#262c34", DARK) + "}")


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def steps(highest):
    """Round values from zero to a little above the highest, at most seven of them."""
    size = 10 ** math.floor(math.log10(highest))
    step = next(size * part for part in (0.1, 0.2, 0.5, 1, 2, 5) if highest * 1.08 / (size * part) <= 6)
    return [step * number for number in range(math.ceil(highest * 1.08 / step) + 1)]


def number(value):
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def places(axis, lowest, highest):
    """Where the x axis is labelled: powers of ten, or of two where bytes are counted."""
    if axis["name"] == "headers":
        known = [(100, "100 B"), (1024, "1 KiB"), (4096, "4 KiB"), (16384, "16 KiB")]
    else:
        known = [(10 ** power, words) for power, words in enumerate(("1", "10", "100", "1k", "10k", "100k", "1M"))]
    return [(x, words) for x, words in known if lowest <= x <= highest]


def apart(wanted, lowest, highest):
    """Heights near the wanted ones, but no two closer than a label is high."""
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    given = [0.0] * len(wanted)
    floor = lowest
    for place in order:
        given[place] = floor = max(wanted[place], floor)
        floor += LABEL
    ceiling = highest
    for place in reversed(order):
        given[place] = ceiling = min(given[place], ceiling)
        ceiling -= LABEL
    return given


class Panel:
    """One plot. A line is (name, [(x, y, settled), ...], [(x, why it is missing), ...])."""

    def __init__(self, axis, left, top, width, lines):
        self.axis, self.left, self.top, self.width = axis, left, top, width
        self.lines = [line for line in lines if line[1]]
        xs = [place[0] for _, points, missing in self.lines for place in points + missing]
        self.low, self.high = (min(xs), max(xs)) if xs else (1, 10)
        self.ticks = steps(max([y for _, points, _ in self.lines for _, y, _ in points] + [1e-9]))

    def x(self, value):
        if self.low == self.high:
            return self.left + self.width / 2
        return self.left + self.width * math.log(value / self.low) / math.log(self.high / self.low)

    def y(self, value):
        return self.top + PLOT * (1 - value / self.ticks[-1])

    def draw(self):
        right, bottom = self.left + self.width, self.top + PLOT
        parts = []
        for value in self.ticks:
            parts.append(line(self.left, self.y(value), right, self.y(value), "grid" if value else "axis"))
            parts.append(text(self.left - 8, self.y(value) + 4, number(value), "soft", "end"))
        for value, words in places(self.axis, self.low, self.high):
            parts.append(line(self.x(value), bottom, self.x(value), bottom + 4, "axis"))
            parts.append(text(self.x(value), bottom + 18, words, "soft", "middle"))
        parts.append(text(self.left + self.width / 2, bottom + 36, self.axis["unit"], "soft", "middle"))
        for colour, (_, points, missing) in enumerate(self.lines):
            parts += self.line(colour, points, missing)
        return parts + self.labels()

    def line(self, colour, points, missing):
        way = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y, _ in points)
        parts = [f'<polyline points="{way}" class="line l{colour}"/>']
        for x, y, settled in points:
            kind = f"p{colour}" if settled else f"hollow l{colour}"
            parts.append(f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3.6" class="{kind}"/>')
        # What was refused is a cross at the height where the line ends.
        for x, _ in missing:
            x, y = self.x(x), self.y(points[-1][1])
            parts.append(line(x - 4, y - 4, x + 4, y + 4, f"refused l{colour}"))
            parts.append(line(x - 4, y + 4, x + 4, y - 4, f"refused l{colour}"))
        return parts

    def labels(self):
        """The name of each line at its end, in its colour."""
        wanted = [self.y(points[-1][1]) + 4 for _, points, _ in self.lines]
        heights = apart(wanted, self.top + 4, self.top + PLOT)
        parts = []
        for colour, ((name, _, missing), height) in enumerate(zip(self.lines, heights)):
            status = missing and re.search(r"answered with (\d+)", missing[0][1])
            words = f"{name} (×: {status.group(1)})" if status else name
            parts.append(text(self.left + self.width + 10, height, words, f"t{colour}"))
        return parts


def lines_of(axis):
    """The lines of the two panels."""
    cpu = [(series["name"], [(point["x"], point["cpu_us"], point["settled"]) for point in series["points"]],
            [(missing["x"], missing["why"]) for missing in series["missing"]]) for series in axis["series"]]
    load = f"{axis['memory']} load"
    if axis["one_gate"] or len(axis["series"]) == 1:
        points = axis["series"][0]["points"]
        memory = [(name, [(point["x"], point[key] / 1024, True) for point in points], [])
                  for name, key in ((load, "memory_kib"), ("fresh", "fresh_kib"))]
    else:
        memory = [(series["name"], [(point["x"], point["memory_kib"] / 1024, True) for point in series["points"]], [])
                  for series in axis["series"]]
    return cpu, memory


def draw(result):
    height = TOP + ROW * len(result["axes"])
    machine = result["machine"]
    unsettled = any(not point["settled"] for axis in result["axes"] for series in axis["series"]
                    for point in series["points"])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="How CPU a request and memory grow">',
        f"<style>{style()}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        text(16, 32, "How scopegate grows", "title"),
        text(16, 54, f"{machine['version']}, one worker, everything on; {machine['cpu']}; {machine['date']}. "
                     f"The lowest of {result['rounds']} rounds or more"
                     + ("; hollow: may be noise." if unsettled else "."), "soft"),
    ]
    for place, axis in enumerate(result["axes"]):
        top = TOP + ROW * place
        cpu, memory = lines_of(axis)
        parts.append(text(16, top + 18, axis["title"], "row"))
        for left, width, lines, what in ((LEFTS[0], SPANS[0], cpu, "CPU a request, µs"),
                                         (LEFTS[1], SPANS[1], memory, f"Memory {axis['memory']} load, MiB (PSS)")):
            parts.append(text(left - 8 if left != LEFTS[0] else 150, top + 18, what, "soft"))
            parts += Panel(axis, left, top + 34, width, lines).draw()
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    with open(sys.argv[1]) as source:
        sys.stdout.write(draw(json.load(source)))
