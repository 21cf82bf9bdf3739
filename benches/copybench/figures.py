"""Owns the arithmetic: from the samples of a row to its lines of the table, and from the table to the goals.

Every ratio is taken within a round and the median over the rounds is given, so that a slow hour of the machine weighs
on both sides of it.
"""
import statistics

from . import copiers

MIB = 1 << 20
GIB = 1 << 30


def spread(values):
    """The median, the least and the largest; None without values."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None


def ratio(over, under):
    """The spread of over/under, by round; both map rounds to figures."""
    return spread(over[n] / under[n] for n in over if under.get(n))


def limit(seconds):
    """Round -> the seconds of the slower limit; the image without data has no `write`."""
    known = [seconds[which] for which in copiers.LIMITS if which in seconds]
    return {n: max(one[n] for one in known if n in one) for n in (known[0] if known else ())}


def best_peer(seconds):
    """Round -> the seconds of the fastest peer."""
    known = [seconds[which] for which in copiers.PEERS if which in seconds]
    return {n: min(one[n] for one in known if n in one) for n in (known[0] if known else ())}


def by_copier(samples, field):
    """Copier -> round -> the field of the sample."""
    table = {}
    for sample in samples:
        table.setdefault(sample.copier, {})[sample.round] = getattr(sample, field)
    return table


def lines(row, size, samples):
    """The table's lines for the samples of one row: the copiers, then the limits."""
    seconds, cpu = by_copier(samples, "seconds"), by_copier(samples, "cpu_seconds")
    rss, floor, peer = by_copier(samples, "rss_kib"), limit(seconds), best_peer(seconds)
    return [
        {
            "row": row,
            "copier": which,
            "size": size,
            "seconds": spread(seconds[which].values()),
            "mib_s": size / MIB / statistics.median(seconds[which].values()),
            "x_nbdcopy": ratio(seconds.get("nbdcopy", {}), seconds[which]),
            "x_peer": ratio(peer, seconds[which]),
            "x_limit": ratio(seconds[which], floor),
            "limit_seconds": statistics.median(floor.values()) if floor else None,
            "cpu_s_gib": statistics.median(cpu[which].values()) / (size / GIB),
            "cpu_x_nbdcopy": ratio(cpu[which], cpu.get("nbdcopy", {})),
            "rss_mib": max(rss[which].values()) / 1024,
        }
        for which in (*copiers.ALL, *copiers.LIMITS)
        if which in seconds
    ]


def goals(rows, table):
    """What v2v-pod is to reach, for each of the rows that were measured: met or not."""
    ours = {line["row"]: line for line in table if line["copier"] == copiers.OURS}
    return [goal for row in rows if row.name in ours for goal in goals_of(row, ours[row.name])]


def goals_of(row, line):
    dense = row.image == "dense" and row.plain
    wanted = []
    if dense and row.transport == "nbd":
        wanted.append(("times nbdcopy", line["x_nbdcopy"], ">=", 1.5))
    if row.label == "delay":
        wanted.append(("times nbdcopy", line["x_nbdcopy"], ">=", 3.0))
    wanted.append(("times the best peer", line["x_peer"], ">=", 1.0))
    if dense:
        wanted.append(("times the limit's time", line["x_limit"], "<=", 1.15))
    wanted.append(("times nbdcopy's CPU/GiB", line["cpu_x_nbdcopy"], "<=", 0.7))
    wanted.append(("MiB RSS", spread([line["rss_mib"]]), "<=", 64))
    return [judged(row.name, *one) for one in wanted]


def judged(row, what, figure, sign, bound):
    """A goal whose figure is missing, because nbdcopy was left out say, is neither met nor unmet."""
    met = None
    if figure:
        met = figure["median"] >= bound if sign == ">=" else figure["median"] <= bound
    return {"row": row, "what": what, "figure": figure, "goal": f"{sign} {bound:g}", "met": met}
