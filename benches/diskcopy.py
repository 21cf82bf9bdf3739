#!/usr/bin/env python3
"""Usage: benches/diskcopy.py [--rounds N] [--rows GLOB]... [--copiers A,B] [--size 4G] [--list] ...

`v2v-pod copy` beside nbdcopy and qemu-img: the same images, servers and targets, in turns within one run, each ending
with its data on the disk. Prints a table and which goals are met; writes benches/results/copy-<date>.json, .txt, .svg.
Needs root for the rows with a block device. This file owns the options and the order of the measurements.
"""
import sys

# This file has the name of a module of the standard library, which must stay the first to be found.
sys.path.append(sys.path.pop(0))
sys.dont_write_bytecode = True

import argparse  # noqa: E402
import datetime  # noqa: E402
import os  # noqa: E402
import pathlib  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402

from copybench import copiers, figures, images, measure, places, report, rows  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent


def say(words):
    print(words, file=sys.stderr, flush=True)


def copier_list(words):
    names = words.split(",")
    if unknown := [name for name in names if name not in copiers.ALL]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(copiers.ALL)}")
    return [name for name in copiers.ALL if name in names]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", action="append", metavar="GLOB", help="only rows of such a name; repeatable")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and end")
    parser.add_argument("--copiers", type=copier_list, default=list(copiers.ALL), help=",".join(copiers.ALL))
    parser.add_argument("--size", type=images.size_argument, default=4 << 30, help="of the images; 4G unless told")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "out/bench/copy", help="for images and targets")
    parser.add_argument("--v2v-pod", default=str(ROOT / "target/release/v2v-pod"), metavar="PATH")
    parser.add_argument("--bin-dir", type=pathlib.Path, help="looked into for nbdcopy, nbdkit and qemu-img first")
    parser.add_argument("--settle", type=float, default=1.0, help="seconds of rest before each measurement")
    parser.add_argument("--check", choices=("first", "all", "none"), default="first", help="rounds with a comparison")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: 1 at least")
    return options


def require(options, wanted):
    """Ends with 2 when something is missing that the run is going to need."""
    tools = {"nbdcopy", "dd", "cmp"}  # nbdcopy is the limit `read` as well
    tools |= {"nbdkit"} if any(row.transport == "nbd" for row in wanted) else set()
    tools |= {"losetup"} if any(row.target == "block" for row in wanted) else set()
    tools |= {"qemu-img"} if any(name.startswith("qemu-img") for name in options.copiers) else set()
    tools |= {options.v2v_pod} if {copiers.OURS, copiers.NO_JOURNAL} & set(options.copiers) else set()
    missing = sorted(tool for tool in tools if not shutil.which(tool))
    if missing:
        say(f"not installed: {', '.join(missing)}")
    elif "losetup" in tools and os.geteuid() != 0:
        say("a loop device needs root: run as root, or choose rows without -block- by --rows")
    else:
        return sorted(tools - {"dd", "cmp", "losetup"})
    sys.exit(2)


def measure_row(options, row, done, total):
    """The samples of one row."""
    files = images.paths(options.work, row.image)
    dense = images.paths(options.work, "dense")[0]
    for name in dict.fromkeys(("dense", row.image)):
        images.ensure(options.work, name, options.size, say)
    contestants = [*options.copiers, "read"]
    # What an image without data costs to write is no limit: dd would do nothing.
    contestants += ["write"] if sum(map(images.allocated, files)) else []
    samples = []
    with places.targets(row, options.work, options.size) as place:
        for number in range(options.rounds):
            with places.sources(row, files) as sources:
                for path in dict.fromkeys((dense, *files)):
                    images.warm(path)
                # Who goes first rotates: what one leaves behind is not always the next one's burden.
                turn = number % len(contestants)
                for which in contestants[turn:] + contestants[:turn]:
                    commands = copiers.commands(which, sources, place, files, dense, options.v2v_pod)
                    place.reset()
                    measure.quiet(options.settle)
                    try:
                        figures_ = measure.run(commands)
                        if which in copiers.ALL and (options.check == "all" or options.check == "first" and not number):
                            measure.compare(files, place.paths)
                    except measure.Failed as error:
                        sys.exit(f"{row.name}, {which}: {error}")
                    samples.append(measure.Sample(row.name, which, number + 1, *figures_))
                    done += 1
                    say(f"[{done}/{total}] {row.name} round {number + 1} {which}: {figures_[0]:.3f} s")
    return samples


def main():
    options = arguments()
    wanted = rows.chosen(options.rows)
    if options.list or not wanted:
        print("\n".join(row.name for row in wanted) or "no row has such a name")
        sys.exit(0 if wanted else 2)
    if options.bin_dir:
        os.environ["PATH"] = f"{options.bin_dir.resolve()}:{os.environ['PATH']}"
    programs = require(options, wanted)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    measure.adopt_orphans()
    options.work.mkdir(parents=True, exist_ok=True)
    facts = report.machine(options.work, programs)
    stem = ROOT / "benches/results" / f"copy-{datetime.datetime.now():%Y-%m-%d-%H%M%S}"
    settings = {"size": f"{options.size // images.MIB} MiB", "rounds": options.rounds, "settle": options.settle}
    each = {row.name: len(options.copiers) + 1 + (row.image != "zero") for row in wanted}
    total, samples, table, goals = options.rounds * sum(each.values()), [], [], []
    print("\n".join(report.head(facts)), flush=True)
    for row in wanted:
        samples += (fresh := measure_row(options, row, len(samples), total))
        volume = sum(path.stat().st_size for path in images.paths(options.work, row.image))
        lines = figures.lines(row.name, volume, fresh)
        print("\n".join(map(report.table_line, lines)), flush=True)
        table, goals = table + lines, goals + figures.goals([row], lines)
        report.save(stem, facts, settings, samples, table, goals)
    print("\n".join(["", report.NOTES, "", *report.goal_lines(goals), f"written: {stem}.json, .txt, .svg"]))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
