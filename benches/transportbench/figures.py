"""Owns the arithmetic: from the samples of a row to its lines of the table. Ratios are taken within a round."""
import dataclasses
import statistics

from copybench import figures, measure

from . import lines as commands

NAMES = tuple(f"{transport}-{tool}" for transport, tool in commands.competitors(commands.TRANSPORTS, commands.TOOLS))


@dataclasses.dataclass
class Sample(measure.Sample):
    """`copier` is one of NAMES; the CPU of nbdkit comes to that of the copiers."""

    server_cpu_seconds: float


def lines(row, size, samples):
    """The table's lines for the samples of one row; `size` is that of all its disks."""
    seconds, cpu, rss, server = (
        figures.by_copier(samples, field) for field in ("seconds", "cpu_seconds", "rss_kib", "server_cpu_seconds")
    )
    gib = size / figures.GIB
    return [
        {
            "row": row,
            "copier": which,
            "size": size,
            "seconds": figures.spread(seconds[which].values()),
            "mib_s": size / figures.MIB / statistics.median(seconds[which].values()),
            "x_nbdcopy": beside(seconds, which, f"{which.split('-', 1)[0]}-nbdcopy"),
            "x_https": beside(seconds, which, f"https-{which.split('-', 1)[1]}"),
            "cpu_s_gib": statistics.median(cpu[which].values()) / gib,
            "server_cpu_s_gib": statistics.median(server[which].values()) / gib,
            "rss_mib": max(rss[which].values()) / 1024,
            "limit_seconds": None,
        }
        for which in NAMES
        if which in seconds
    ]


def beside(seconds, which, other):
    """How many times as fast as the other; None for itself, or when the other was not measured."""
    return None if which == other else figures.ratio(seconds.get(other, {}), seconds[which])
