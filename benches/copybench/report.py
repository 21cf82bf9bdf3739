"""Owns the words: the machine, the table and the goals as text, and the files under benches/results."""
import dataclasses
import datetime
import json
import os
import platform
import shutil
import subprocess

from . import copiers, plot

HEAD = (
    f"{'row':<16} {'copier':<15} {'seconds (min-max)':>22} {'MiB/s':>7} {'x nbdcopy (min-max)':>20} {'x peer':>7}"
    f" {'t/limit':>8} {'CPU s/GiB':>10} {'x nbdcopy':>10} {'RSS MiB':>8}"
)
NOTES = """\
x nbdcopy and x peer: how many times as fast as nbdcopy and as the fastest peer; t/limit: the time over that of the
slower of `read` (nbdcopy SRC null:) and `write` (dd of as many bytes as the image has data, O_DIRECT and fsync).
MiB/s and CPU are of the virtual size. Ratios are taken by round; their median is given. CPU and RSS are those of the
copiers' processes (in the row `four` the sum over the four of a peer), not of nbdkit or the kernel's threads."""


def machine(work, programs):
    """[(name, value)] of what the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    facts = [
        ("date", datetime.datetime.now().astimezone().isoformat(timespec="seconds")),
        ("kernel", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("cores", f"{len(os.sched_getaffinity(0))} ({processor()})"),
        ("memory", f"{memory:.1f} GiB"),
        ("work dir", f"{work}: {first_line(['findmnt', '-no', 'FSTYPE,SOURCE,OPTIONS', '-T', str(work)])}"),
    ]
    return facts + [(os.path.basename(program), first_line([program, "--version"])) for program in programs]


def processor():
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def first_line(command):
    if not shutil.which(command[0]):
        return "unknown"
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return " ".join((run.stdout.splitlines() or ["unknown"])[0].split())


def number(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def middle(figure, digits=2):
    return "-" if figure is None else number(figure["median"], digits)


def ranged(figure, digits=2):
    if figure is None:
        return "-"
    return f"{middle(figure, digits)} ({number(figure['min'], digits)}-{number(figure['max'], digits)})"


def table_line(line):
    is_limit = line["copier"] in copiers.LIMITS
    name = f"({line['copier']})" if is_limit else line["copier"]
    text = f"{line['row']:<16} {name:<15} {ranged(line['seconds'], 3):>22} {line['mib_s']:>7.0f}"
    if is_limit:
        return text
    return (
        f"{text} {ranged(line['x_nbdcopy']):>20} {middle(line['x_peer']):>7} {middle(line['x_limit']):>8}"
        f" {line['cpu_s_gib']:>10.3f} {middle(line['cpu_x_nbdcopy']):>10} {line['rss_mib']:>8.1f}"
    )


def goal_lines(goals):
    if not goals:
        return [f"no goals: {copiers.OURS} was not measured"]
    words = {True: "met", False: "NOT met", None: "no figure"}
    text = [
        f"{words[goal['met']]:<9} {goal['row']:<16} {ranged(goal['figure'], 3)} {goal['what']}, goal {goal['goal']}"
        for goal in goals
    ]
    return [*text, f"{sum(goal['met'] is True for goal in goals)} of {len(goals)} goals met"]


def head(facts):
    return [*(f"{name + ':':<10} {value}" for name, value in facts), "", HEAD]


def write(stem, facts, settings, samples, table, lines, svg, **more):
    """Writes stem.json, stem.txt and stem.svg; called after each row, so that a run cut short leaves its rows."""
    stem.parent.mkdir(exist_ok=True)
    everything = {
        "machine": dict(facts),
        "settings": settings,
        "samples": [dataclasses.asdict(sample) for sample in samples],
        "table": table,
        **more,
    }
    stem.with_suffix(".json").write_text(json.dumps(everything, indent=1) + "\n")
    stem.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    stem.with_suffix(".svg").write_text(svg)


def save(stem, facts, settings, samples, table, goals):
    """The report of the copiers."""
    lines = [*head(facts), *map(table_line, table), "", NOTES, "", *goal_lines(goals)]
    date = dict(facts)["date"]
    svg = plot.draw(table, f"{settings['size']}, {settings['rounds']} rounds, {date}")
    write(stem, facts, settings, samples, table, lines, svg, goals=goals)
