"""Owns running one copy: its wall time, the CPU time of its processes and their peak memory."""
import contextlib
import ctypes
import dataclasses
import os
import signal
import subprocess
import tempfile
import time

PR_SET_CHILD_SUBREAPER = 36


class Failed(Exception):
    """A copier did not do its work."""


@dataclasses.dataclass
class Sample:
    row: str
    copier: str
    round: int
    seconds: float
    cpu_seconds: float
    rss_kib: int


def adopt_orphans():
    """See launch()."""
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise SystemExit("the kernel refuses PR_SET_CHILD_SUBREAPER")


def launch(command, log):
    """The pid of the command, which becomes our child by way of a shell that ends at once.

    The kernel counts what a process was before exec() into its peak RSS: a child of ours would start with the memory of
    Python, this one starts with that of a small shell.
    """
    script = '"$@" </dev/null >&2 & echo $!'
    shell = subprocess.Popen(["sh", "-c", script, "sh", *command], stdout=subprocess.PIPE, stderr=log, text=True)
    with shell.stdout:
        pid = int(shell.stdout.readline())
    shell.wait()
    return pid


def run(commands):
    """(seconds, CPU seconds, RSS in KiB) of processes that start together; CPU and RSS are sums over them."""
    with tempfile.TemporaryFile("w+") as log:
        pids = []
        try:
            begin = time.monotonic()
            for command in commands:
                pids.append(launch(command, log))
            cpu, rss = 0.0, 0
            while pids:
                # In the order of their start; the time counts only once the last is reaped.
                _, status, usage = os.wait4(pids[0], 0)
                pids.pop(0)
                cpu += usage.ru_utime + usage.ru_stime
                rss += usage.ru_maxrss
                if status != 0:
                    raise Failed(failure(commands, os.waitstatus_to_exitcode(status), log))
            return time.monotonic() - begin, cpu, rss
        finally:
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


def failure(commands, code, log):
    log.seek(0)
    lines = [" ".join(command) for command in commands]
    return "\n".join([f"failed with {code}:", *lines, log.read()[-3000:]])


def quiet(settle):
    """Nothing of the work before is left to write."""
    os.sync()
    time.sleep(settle)


def compare(files, targets):
    """Ends the run when a target differs from its image."""
    for image, target in zip(files, targets):
        result = subprocess.run(["cmp", str(image), target], capture_output=True, text=True)
        if result.returncode != 0:
            raise Failed(f"the copy is wrong: {result.stdout}{result.stderr}")
