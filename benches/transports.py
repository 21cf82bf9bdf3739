#!/usr/bin/env python3
"""Usage: benches/transports.py [--rounds N] [--rows GLOB]... [--size 1G] [--rtt 0,5,20] [--disks 1,2,4] [--list] ...
       benches/transports.py --url vpx://USER@HOST/DC/CLUSTER/ESXI --vm NAME --password-file FILE [--disk DISK]...
                             [--vddk-libdir DIR] [--cacert FILE | --thumbprint SHA1 | --insecure] ...

The same disks over HTTPS (nbdkit-curl) and VDDK (nbdkit-vddk), copied by nbdcopy and by v2v-pod, in turns within one
run, each ending with its data on the disk. Everything runs in the conversion image. Without --url the vCenter is a
simulated one behind a network with the round trips of --rtt, and VDDK a stand-in; with --url both are real, and so is
the network.
Prints a table; writes benches/results/transports-<date>.json, .txt, .svg. Needs root and podman.
This file owns the options and the order of the measurements.
"""
import contextlib
import dataclasses
import datetime
import fnmatch
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

from copybench import images, measure, report as machine  # noqa: E402
from transportbench import checks, container, figures, lab, lines, network, report, vcenter  # noqa: E402
from transportbench import options as wishes  # noqa: E402


def say(words):
    print(words, file=sys.stderr, flush=True)


@dataclasses.dataclass
class Row:
    """`rtt` in milliseconds, None for the network as it is."""

    rtt: int | None
    disks: int

    @property
    def name(self):
        return f"{'real' if self.rtt is None else f'rtt{self.rtt}'}-disks{self.disks}"


def rows(options, available):
    """All rows that are asked for; with a real VM, by default only as many disks as it has."""
    counts = options.disks or [count for count in (1, 2, 4) if count <= available]
    if max(counts) > available:
        raise vcenter.Wrong(f"--disks {max(counts)}: the VM has {available}, or so many were chosen")
    every = [Row(rtt, count) for rtt in ([None] if options.url else options.rtt) for count in counts]
    return [row for row in every if not options.rows or any(fnmatch.fnmatch(row.name, glob) for glob in options.rows)]


@contextlib.contextmanager
def simulated(options, rtt, count, delayer, program):
    """The Source of one round trip, and what to say of its network."""
    with network.link(rtt, delayer) as link, lab.running(options.work, program, link, count) as access:
        mounts = []
        if "vddk" in options.transports:
            mounts = lab.stand_in(options.work, options.stub, rtt, options.stub_bandwidth, access.thumbprint)
        with vcenter.opened(access, lab.VM, link.podman, mounts) as source:
            yield source, link.how


@contextlib.contextmanager
def real(options, tmp):
    thumbprint, pem = vcenter.certificate(options.url, options.cacert, options.thumbprint, options.insecure)
    bundle = options.cacert and options.cacert.resolve()
    if options.thumbprint:
        bundle = tmp / "server.pem"
        bundle.write_text(pem)
    password = (options.password_file.read_text().splitlines() or [""])[0]
    access = vcenter.Access(options.url, password, thumbprint, options.insecure, bundle)
    mounts = [f"{options.vddk_libdir.resolve()}:{lines.LIBDIR}:ro"] if "vddk" in options.transports else []
    with vcenter.opened(access, options.vm, "host", mounts, options.disk) as source:
        yield source


def spaces(work):
    """The container's folders, empty: targets and temporary files."""
    for name in ("out", "tmp"):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir(parents=True)
        container.share(work / name)
    return [f"{work / 'out'}:{lines.OUT}", f"{work / 'tmp'}:{lines.TMP}"]


class Bench:
    """One run: what is measured so far, and where it is written."""

    def __init__(self, options):
        self.options = options
        self.competitors = lines.competitors(options.transports, options.copiers)
        self.stem = options.results / f"transports-{datetime.datetime.now():%Y-%m-%d-%H%M%S}"
        self.facts, self.samples, self.table, self.total = [], [], [], 0
        self.settings = {"rounds": options.rounds, "settle": options.settle, "round_trips": {}}

    def simulated(self):
        options = self.options
        wanted = rows(options, 16)
        count = max(row.disks for row in wanted)
        program = lab.build()
        delayer = network.chosen(options.delayer)
        lab.make_disks(options.work, count, options.size, say)
        self.settings["size"] = f"{options.size // images.MIB} MiB a disk, half of it data"
        self.total = len(wanted)
        checker = checks.WithDisks(options.work / "out", lab.files(options.work, count))
        for rtt in dict.fromkeys(row.rtt for row in wanted):
            with simulated(options, rtt, count, delayer, program) as (source, how):
                least = self.begin(source, f"{rtt} ms", how, options.work / "vddk")
                if least < rtt:
                    raise container.Failed(f"{how} was to give a round trip of {rtt} ms, and it is {least:.2f} ms")
                for row in wanted:
                    if row.rtt == rtt:
                        self.measure(row, source, checker)

    def real(self):
        options = self.options
        with tempfile.TemporaryDirectory(prefix="transportbench-") as tmp:
            with real(options, pathlib.Path(tmp)) as source:
                wanted = rows(options, len(source.disks))
                self.settings["size"] = f"VM {options.vm}"
                self.settings["disks"] = source.disks
                self.total = len(wanted)
                self.begin(source, "real", "nothing: the network as it is", options.vddk_libdir)
                checker = checks.WithEachOther(options.work / "out")
                for row in wanted:
                    self.measure(row, source, checker)

    def begin(self, source, name, how, libdir):
        """The least round trip in ms. At the first source the head is printed, which tells of it."""
        trip = container.inside({"connect": [source.server, source.port]}, (), source.network)
        self.settings["round_trips"][name] = {"delayed_by": how, **trip}
        if self.facts:
            return trip["least_ms"]
        self.settings["stand_in"] = "vddk" in self.options.transports and report.is_stand_in(libdir)
        self.settings["commands"] = report.commands(source, self.competitors)
        self.facts = machine.machine(self.options.work, [])
        self.facts += report.versions(source, self.options.transports, self.settings["stand_in"])
        self.facts += [("settings", f"{self.settings['size']}; rounds: {self.options.rounds}")]
        print("\n".join(report.head(self.facts)), flush=True)
        return trip["least_ms"]

    def measure(self, row, source, checker):
        """One row: the competitors in turns."""
        fresh, size = [], 0
        for number in range(1, self.options.rounds + 1):
            checker.warm(row.disks)
            for transport, tool in self.competitors:
                answer = self.copy(row, source, transport, tool)
                if number == 1:
                    size = checker.check(row.disks)
                fresh.append(figures.Sample(row.name, f"{transport}-{tool}", number, **answer))
                done = f"{len(self.samples) + len(fresh)}/{self.total * self.options.rounds * len(self.competitors)}"
                say(f"[{done}] {row.name} round {number} {transport} {tool}: {answer['seconds']:.3f} s")
        self.samples += fresh
        self.table += (added := figures.lines(row.name, size, fresh))
        print("\n".join(map(report.table_line, added)), flush=True)
        report.save(self.stem, self.facts, self.settings, self.samples, self.table)

    def copy(self, row, source, transport, tool):
        mounts = [*source.mounts, *spaces(self.options.work)]
        measure.quiet(self.options.settle)
        job = {
            "servers": [lines.nbdkit(transport, source, number) for number in range(row.disks)],
            "pidfiles": [lines.pidfile(number) for number in range(row.disks)],
            "copies": lines.copies(tool, row.disks),
        }
        try:
            return container.inside(job, mounts, source.network)
        except container.Failed as error:
            raise container.Failed(f"{row.name}, {transport} {tool}: {error}") from None

    def end(self):
        print("\n".join(["", *report.notes(self.settings), f"written: {self.stem}.json, .txt, .svg"]))


def interrupted(signum, _frame):
    """Once: what follows is the cleaning up."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(signum).name)


def main():
    options = wishes.arguments(__doc__.split("\n\n")[0].removeprefix("Usage: "))
    if options.list or not rows(options, 16):
        print("\n".join(row.name for row in rows(options, 16)) or "no row has such a name")
        sys.exit(0 if options.list else 2)
    if problem := wishes.missing(options):
        say(problem)
        sys.exit(2)
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, interrupted)
    options.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    try:
        container.sweep()
        if options.url:
            bench.real()
        else:
            network.sweep()
            bench.simulated()
        bench.end()
    finally:
        shutil.rmtree(options.work / "out", ignore_errors=True)
        shutil.rmtree(options.work / "tmp", ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except (vcenter.Wrong, container.Failed, measure.Failed, subprocess.CalledProcessError) as failure:
        sys.exit(str(failure))
