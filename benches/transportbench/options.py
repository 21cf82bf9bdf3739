"""Owns the options: their defaults, what contradicts, and what must be there before a run begins."""
import argparse
import os
import pathlib
import shutil
import subprocess

from copybench import images

from . import container, lines

ROOT = container.ROOT


def numbers(kind, least, most):
    def parse(words):
        values = [kind(word) for word in words.split(",")]
        if not all(least <= value <= most for value in values):
            raise argparse.ArgumentTypeError(f"from {least} to {most} each")
        return list(dict.fromkeys(values))

    return parse


def names(known):
    def parse(words):
        given = words.split(",")
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return [name for name in known if name in given]

    return parse


def arguments(usage):
    parser = argparse.ArgumentParser(usage=usage)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", action="append", metavar="GLOB", help="only rows of such a name; repeatable")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and end")
    parser.add_argument("--disks", type=numbers(int, 1, 16), help="disks copied at once, 1,2,4 unless told")
    parser.add_argument("--transports", type=names(lines.TRANSPORTS), default=list(lines.TRANSPORTS), help="https,vddk")
    parser.add_argument("--copiers", type=names(lines.TOOLS), default=list(lines.TOOLS), help="nbdcopy,v2v-pod")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "out/bench/transports", help="disks and targets")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "benches/results", help="for table and plot")
    parser.add_argument("--settle", type=float, default=1.0, help="seconds of rest before each measurement")
    simulated = parser.add_argument_group("with a simulated vCenter")
    simulated.add_argument("--size", type=images.size_argument, default=1 << 30, help="of each disk; 1G unless told")
    simulated.add_argument("--rtt", type=numbers(int, 0, 1000), help="milliseconds, 0,5,20 unless told")
    simulated.add_argument("--delayer", choices=("auto", "netem", "relay"), default="auto", help="auto: netem if there")
    simulated.add_argument("--stub", type=pathlib.Path, default=ROOT / "target/release/libvixDiskLib.so")
    simulated.add_argument("--stub-bandwidth", type=images.size_argument, help="bytes a second for each disk")
    real = parser.add_argument_group("with a real vCenter or ESXi host; the VM is off and has no snapshots")
    real.add_argument("--url", help="vpx://USER@HOST/DC/CLUSTER/ESXI or esx://USER@HOST")
    real.add_argument("--vm", help="its name")
    real.add_argument("--disk", action="append", default=[], help="number from 1, or `[datastore] …`; repeatable")
    real.add_argument("--password-file", type=pathlib.Path, help="with the password in its first line")
    real.add_argument("--vddk-libdir", type=pathlib.Path, default=os.environ.get("VDDK_LIBDIR") or None,
                      help="the unpacked VDDK; $VDDK_LIBDIR")
    trust = real.add_mutually_exclusive_group()
    trust.add_argument("--cacert", type=pathlib.Path)
    trust.add_argument("--thumbprint", help="SHA-1 of the server's certificate")
    trust.add_argument("--insecure", action="store_true")
    options = parser.parse_args()
    if problem := contradiction(options):
        parser.error(problem)
    options.rtt = options.rtt or [0, 5, 20]
    options.work = options.work.resolve()
    return options


def contradiction(options):
    """What is wrong with the options as a whole."""
    if options.rounds < 1:
        return "--rounds: 1 at least"
    if not options.url:
        if options.vddk_libdir:
            return "a real VDDK (--vddk-libdir, VDDK_LIBDIR) needs a real vCenter: give --url, --vm and --password-file"
        given = options.vm or options.disk or options.password_file or options.cacert or options.thumbprint
        return "--vm, --disk, --password-file and trust come with --url" if given or options.insecure else None
    if not options.vm or not options.password_file:
        return "--url needs --vm and --password-file"
    if options.rtt or options.stub_bandwidth:
        return "--rtt and --stub-bandwidth are for the simulated vCenter: a real one has a network of its own"
    if "vddk" in options.transports and not options.vddk_libdir:
        return "give --vddk-libdir (VDDK_LIBDIR), or --transports https"
    return None


def missing(options):
    """What the run needs and does not find."""
    if os.geteuid() != 0:
        return "root is needed (podman, network namespaces)"
    tools = ["podman", "bash", "cmp", "sync", "setpriv"] + ([] if options.url else ["ip", "tc", "openssl"])
    if lost := [tool for tool in tools if not shutil.which(tool)]:
        return f"not installed: {', '.join(lost)}; run scripts/install-deps.sh image lab"
    image = container.image()
    if subprocess.run(["podman", "image", "exists", image], check=False).returncode != 0:
        return f"there is no image {image}; run make image"
    if options.url:
        if not options.password_file.is_file():
            return f"--password-file {options.password_file}: no such file"
        if options.vddk_libdir and not (options.vddk_libdir / "lib64").is_dir():
            return f"--vddk-libdir {options.vddk_libdir} has no lib64: is it the unpacked vmware-vix-disklib-distrib?"
    elif "vddk" in options.transports and not options.stub.is_file():
        return f"there is no {options.stub}; run cargo build --release"
    return None
