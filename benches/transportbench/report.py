"""Owns the words: versions, the table and its notes as text, and the files under benches/results."""
import shlex

from copybench import plot, report

from . import container, figures, lines

HEAD = (
    f"{'row':<14} {'transport':<9} {'copier':<8} {'seconds (min-max)':>22} {'MiB/s':>7} {'x nbdcopy (min-max)':>20}"
    f" {'x HTTPS (min-max)':>20} {'CPU s/GiB':>10} {'nbdkit':>7} {'RSS MiB':>8}"
)
NOTES = """\
x nbdcopy: how many times as fast as nbdcopy over the same transport; x HTTPS: as the same copier over HTTPS. Ratios are
taken by round; their median is given. MiB/s and CPU are of the virtual size of all disks of the row. Holes (half of
each disk in the lab) are known to VDDK and not to HTTPS. Times are from the start of the copiers, login included, until
every target is durable. CPU and RSS are those of the copiers (of all processes together), `nbdkit` is its CPU. nbdkit's
retry filter, which virt-v2v wants, lets one request at a time through each connection: what a round trip costs depends
on the copier's connections and the size of its requests."""
STAND_IN = """\
vddk is a stand-in for VMware's library, without network, TLS and NFC: its latency_ms stands for the round trip.
Read its rows as what nbdkit, its filters and the copier do with a library that costs nothing but that, and not as
VDDK's speed."""
RELAY = """\
This kernel has no netem: benches/transportbench/relay.py delays the packets instead. It costs about one CPU second for
each GiB and passes some 500 MiB/s, which on few cores takes from the HTTPS rows."""
MARK = b"VixDiskLib stub:"  # in the stand-in, and nowhere else


def versions(source, transports, stand_in):
    """[(name, value)] of the tools in the image."""
    words = {"image": f"{container.image()} ({container.image_id()})"}
    for tool in ("nbdkit", "nbdcopy", "v2v-pod"):
        words[tool] = container.run([tool, "--version"]).splitlines()[0]
    if "vddk" in transports:
        text = container.run(["nbdkit", "vddk", f"libdir={lines.LIBDIR}", "--dump-plugin"], source.mounts)
        told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        words["VDDK"] = f"{told.get('vddk_dll', 'unknown')}, version {told.get('vddk_library_version', 'unknown')}"
        words["VDDK"] += ", a stand-in" if stand_in else ""
    return list(words.items())


def is_stand_in(libdir):
    return any(MARK in path.read_bytes() for path in libdir.glob("lib64/libvixDiskLib.so*"))


def head(facts):
    return [*(f"{name + ':':<12} {value}" for name, value in facts), "", HEAD]


def table_line(line):
    transport, tool = line["copier"].split("-", 1)
    return (
        f"{line['row']:<14} {transport:<9} {tool:<8} {report.ranged(line['seconds'], 3):>22} {line['mib_s']:>7.0f}"
        f" {report.ranged(line['x_nbdcopy']):>20} {report.ranged(line['x_https']):>20} {line['cpu_s_gib']:>10.3f}"
        f" {line['server_cpu_s_gib']:>7.3f} {line['rss_mib']:>8.1f}"
    )


def commands(source, competitors):
    """The command lines, of the first disk."""
    words = {f"{transport} server": lines.nbdkit(transport, source, 0) for transport, _ in competitors}
    words |= {f"{tool} copies": lines.copies(tool, 1)[0] for _, tool in competitors}
    return {name: shlex.join(line) for name, line in words.items()}


def notes(settings):
    trips = [
        f"round trip {name}: {trip['median_ms']:.2f} ms measured (least {trip['least_ms']:.2f}),"
        f" delayed by {trip['delayed_by']}"
        for name, trip in settings["round_trips"].items()
    ]
    lines_ = [f"{name}: {line}" for name, line in settings["commands"].items()]
    relayed = any(trip["delayed_by"] == "relay" for trip in settings["round_trips"].values())
    more = [*([STAND_IN] if settings["stand_in"] else []), *([RELAY] if relayed else [])]
    return [NOTES, *more, "", *trips, "", *lines_]


def save(stem, facts, settings, samples, table):
    """The report of the transports."""
    text = [*head(facts), *map(table_line, table), "", *notes(settings)]
    subtitle = f"{settings['size']}, rounds: {settings['rounds']}, {dict(facts)['date']}"
    subtitle += "; vddk is a stand-in without network" if settings["stand_in"] else ""
    title = "HTTPS and VDDK: disks copied to the end of the flush"
    svg = plot.draw(table, subtitle, title, figures.NAMES)
    report.write(stem, facts, settings, samples, table, text, svg)
