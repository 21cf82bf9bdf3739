"""Owns the plot: grouped horizontal bars as SVG, written by hand."""
import html
import math

from . import copiers

GIB = 1 << 30
COLOURS = {"nbdcopy": "#0072b2", "qemu-img": "#e69f00", "qemu-img-tnone": "#f0d58c", "v2v-pod": "#009e73",
           "v2v-pod-nj": "#7fceb9",
           # benches/transports.py: by transport and copier
           "https-nbdcopy": "#0072b2", "https-v2v-pod": "#009e73", "vddk-nbdcopy": "#e69f00", "vddk-v2v-pod": "#d55e00"}
LEFT, RIGHT, TOP, WIDTH = 170, 110, 92, 960
BAR, GAP = 15, 16
INNER = WIDTH - LEFT - RIGHT
STYLE = (
    "text{font:12px 'DejaVu Sans',Arial,sans-serif;fill:#222}.title{font-size:17px;font-weight:bold}"
    ".row{font-weight:bold;text-anchor:end}.small{font-size:11px;fill:#555}.end{text-anchor:end}"
    ".mid{text-anchor:middle}.grid{stroke:#ddd}.axis{stroke:#888}.whisker{stroke:#222;fill:none}"
    ".figure{paint-order:stroke;stroke:#fff;stroke-width:3px}.limit{stroke:#c2185b;stroke-width:2;stroke-dasharray:4 2}"
)


def text(x, y, words, kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{html.escape(words)}</text>'


def stroke(x1, y1, x2, y2, kind):
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" class="{kind}"/>'


def bar(x, y, width, height, copier):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" fill="{COLOURS[copier]}"/>'


def speed(line, seconds):
    return line["size"] / GIB / seconds


def axis(lines):
    """(end, step) of the axis in GiB/s. Rows of the empty image are not asked: they would dwarf all others."""
    shown = [line for line in lines if not line["row"].endswith("-zero")] or lines
    speeds = [speed(line, line["seconds"]["min"]) for line in shown]
    speeds += [speed(line, line["limit_seconds"]) for line in shown if line["limit_seconds"]]
    top = max(speeds)
    power = 10 ** math.floor(math.log10(top / 5))
    step = next(power * by for by in (1, 2, 5, 10) if top / (power * by) <= 7)
    return step * math.ceil(top / step), step


def draw(table, subtitle, title="Copies of disk images, to the end of the flush", names=copiers.ALL):
    """The whole plot of the table's copiers of these names; the limits, if any, are ticks across their group."""
    lines = [line for line in table if line["copier"] in names]
    end, step = axis(lines)
    groups = {}
    for line in lines:
        groups.setdefault(line["row"], []).append(line)
    body, y = [], TOP
    for name, group in groups.items():
        body += draw_group(name, group, y, end)
        y += len(group) * BAR + GAP
    bottom = y - GAP / 2
    grid = []
    for number in range(round(end / step) + 1):
        x = LEFT + INNER * number * step / end
        grid.append(stroke(x, TOP - 6, x, bottom, "grid" if number else "axis"))
        grid.append(text(x, bottom + 16, f"{number * step:g}", "mid"))
    grid.append(text(LEFT + INNER / 2, bottom + 36, "GiB/s of the virtual size; more is better", "mid"))
    height = bottom + 52
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}">',
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
        text(20, 28, title, "title"),
        text(20, 46, subtitle, "small"),
        *legend([which for which in names if any(line["copier"] == which for line in lines)],
                any(line["limit_seconds"] for line in lines)),
        *grid,
        *body,
        "</svg>\n",
    ])


def legend(names, limits):
    parts, x = [], 20
    for name in names:
        parts += [bar(x, 58, 12, 12, name), text(x + 17, 68, name)]
        x += 40 + 7.5 * len(name)
    if limits:
        words = "limit: the slower of reading and writing alone"
        parts += [stroke(x + 5, 56, x + 5, 72, "limit"), text(x + 14, 68, words)]
        x += 320
    return parts + [stroke(x, 64, x + 20, 64, "whisker"), text(x + 26, 68, "min to max")]


def draw_group(name, group, y, end):
    """One row: its name, a bar for each copier, the tick of its limit."""

    def place(value):
        return LEFT + INNER * min(value, end) / end

    middle = y + len(group) * BAR / 2
    parts = [text(LEFT - 10, middle, name, "row")]
    tops = [y + number * BAR for number in range(len(group))]
    for line, top in zip(group, tops):
        parts += draw_bar(line, top, place)
    if group[0]["limit_seconds"]:
        limit = speed(group[0], group[0]["limit_seconds"])
        parts.append(text(LEFT - 10, middle + 14, f"limit {limit:.2f}", "small end"))
        if limit <= end:
            parts.append(stroke(place(limit), y - 4, place(limit), y + len(group) * BAR + 2, "limit"))
    return parts + [draw_figure(line, top, place, end) for line, top in zip(group, tops)]


def draw_bar(line, y, place):
    """A bar and its whisker."""
    middle = y + BAR / 2 - 1
    value, least, most = (place(speed(line, line["seconds"][key])) for key in ("median", "max", "min"))
    parts = [bar(LEFT, y, value - LEFT, BAR - 2, line["copier"])]
    if least < most:  # not with one round, nor when all of it is beyond the axis
        parts.append(stroke(least, middle, most, middle, "whisker"))
        parts += [stroke(x, middle - 3, x, middle + 3, "whisker") for x in (least, most)]
    return parts


def draw_figure(line, y, place, end):
    """The figure of a bar, drawn last so that no line goes through it; `»`: the bar goes on beyond the axis."""
    value, most = (speed(line, line["seconds"][key]) for key in ("median", "min"))
    mark = "» " if value > end else ""
    return text(place(most) + 6, y + BAR - 4, f"{mark}{value:.{2 if value >= 0.1 else 3}f}", "small figure")
