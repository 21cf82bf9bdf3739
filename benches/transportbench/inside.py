#!/usr/bin/env python3
"""Usage: inside.py JOB.json

The part of the harness that runs in the conversion image. Two kinds of job:
{"connect": [HOST, PORT]} answers with the milliseconds of a TCP handshake, least and median of nine;
{"servers": [NBDKIT-ARGV…], "pidfiles": […], "copies": [ARGV…]} starts the servers, then the copies together, and
answers with the seconds until the last copy has ended, and what CPU and memory it took. One line of JSON on standard
output.
"""
import json
import pathlib
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from copybench import measure, places  # noqa: E402


def connect(address):
    """The handshake costs one round trip."""
    times = []
    for _ in range(9):
        begin = time.monotonic()
        socket.create_connection(tuple(address), timeout=30).close()
        times.append((time.monotonic() - begin) * 1000)
    return {"least_ms": min(times), "median_ms": statistics.median(times)}


def copy(job):
    servers = []
    try:
        for command in job["servers"]:
            servers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr))
        for server, pidfile in zip(servers, job["pidfiles"]):
            places.wait_for(server, pathlib.Path(pidfile))
        seconds, cpu, rss = measure.run(job["copies"])
    finally:
        for server in servers:
            server.terminate()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for server in servers:
            server.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    server_cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "rss_kib": rss, "server_cpu_seconds": server_cpu}


def main():
    job = json.loads(pathlib.Path(sys.argv[1]).read_text())
    # The first process of a container ignores signals that it does not handle.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    measure.adopt_orphans()
    try:
        answer = connect(job["connect"]) if "connect" in job else copy(job)
    except (measure.Failed, OSError) as error:
        sys.exit(str(error))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
