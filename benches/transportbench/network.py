"""Owns the network between the image and the simulated vCenter: two namespaces and a link whose round trip takes as
long as asked for. Ends what it began, and what a killed run left.

The delay is netem's, half of it in each direction. Where the kernel has no netem, packets pass through relay.py.
"""
import contextlib
import dataclasses
import os
import re
import subprocess
import sys

from . import container, relay

SERVER, CLIENT, BITS = "10.208.97.1", "10.208.97.2", 30
# netem drops what does not fit: 100 MiB/s for 20 ms are some 1500 packets, and the default is 1000.
NETEM_LIMIT = 100000


@dataclasses.dataclass
class Link:
    """Names of the two namespaces, and what delays."""

    server: str
    client: str
    how: str

    @property
    def podman(self):
        return f"ns:/run/netns/{self.client}"


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def within(namespace, *command):
    """A command in a namespace, which ends with us."""
    return ["ip", "netns", "exec", namespace, "setpriv", "--pdeathsig", "TERM", *command]


@contextlib.contextmanager
def namespace(name):
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


def chosen(delayer):
    """netem or relay; `auto` is netem where the kernel has it."""
    if delayer == "relay":
        return delayer
    there = has_netem()
    if delayer == "netem" and not there:
        raise container.Failed("this kernel has no netem (CONFIG_NET_SCH_NETEM); --delayer relay does without")
    return "netem" if there else "relay"


def has_netem():
    """Whether the kernel knows netem; asked in a namespace, where it changes nothing."""
    with namespace(f"{container.name()}-t") as name:
        command = ["tc", "-n", name, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def link(rtt_ms, delayer):
    """The two namespaces, joined; `delayer` is netem or relay."""
    stem = container.name()
    with contextlib.ExitStack() as stack:
        names = [stack.enter_context(namespace(f"{stem}-{end}")) for end in "sc"]
        made = Link(*names, delayer if rtt_ms else "nothing")
        ends = {made.server: SERVER, made.client: CLIENT}
        if rtt_ms and delayer == "relay":
            stack.enter_context(relayed(ends, rtt_ms / 2))
        else:
            ip("-n", made.server, "link", "add", "bench", "type", "veth", "peer", "name", "bench", "netns", made.client)
        for name, address in ends.items():
            ip("-n", name, "address", "add", f"{address}/{BITS}", "dev", "bench")
            ip("-n", name, "link", "set", "bench", "up")
            if rtt_ms and delayer == "netem":
                netem = ["netem", "delay", f"{rtt_ms / 2:g}ms", "limit", str(NETEM_LIMIT)]
                subprocess.run(["tc", "-n", name, "qdisc", "add", "dev", "bench", "root", *netem], check=True)
        yield made


@contextlib.contextmanager
def relayed(namespaces, delay_ms):
    """Two interfaces `bench` with relay.py between them."""
    names = [f"vb{os.getpid()}{end}" for end in "sc"]
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, relay.__file__, *names, str(delay_ms)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        if process.stdout.readline() != relay.READY:
            raise SystemExit("the relay does not start: is there /dev/net/tun?")
        for name, where in zip(names, namespaces):
            ip("link", "set", name, "netns", where, "name", "bench")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def sweep():
    """Removes the namespaces of runs that were killed."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for name in re.findall(rf"^{container.PREFIX}-\d+-\w", listed, re.MULTILINE):
        if container.dead(name):
            subprocess.run(["ip", "netns", "delete", name], check=False)
