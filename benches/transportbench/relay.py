#!/usr/bin/env python3
"""Usage: relay.py NAME NAME DELAY_MS

What netem does, for kernels without it: two TUN interfaces; what comes out of one goes into the other after the delay.
Packets keep their order and none is lost. The segments of a TCP burst stay together (TSO), as on a veth pair, so a
packet has up to 64 KiB. Runs until it is killed; the interfaces end with it.
"""
import collections
import contextlib
import fcntl
import os
import select
import struct
import sys
import time

READY = "ready\n"
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
TUN, NO_INFO, VIRTIO_HEADER = 0x0001, 0x1000, 0x4000
CHECKSUM, TSO4 = 1, 2
LARGEST = (1 << 16) + 64
BURST = 32  # packets read from one side before the other has its turn


def interface(name):
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), TUN | NO_INFO | VIRTIO_HEADER))
    fcntl.ioctl(descriptor, TUNSETOFFLOAD, CHECKSUM | TSO4)
    return descriptor


def read(source, queue, delay):
    for _ in range(BURST):
        try:
            packet = os.read(source, LARGEST)
        except BlockingIOError:
            return
        except OSError:
            time.sleep(0.001)  # not up yet
            return
        queue.append((time.monotonic() + delay, packet))


def deliver(sink, queue):
    now = time.monotonic()
    while queue and queue[0][0] <= now:
        try:
            os.write(sink, queue.popleft()[1])
        except OSError:
            pass  # the other side is down: a packet lost, as on a network


def relay(ends, delay):
    ways = [(ends[0], ends[1], collections.deque()), (ends[1], ends[0], collections.deque())]
    while True:
        due = min((queue[0][0] for _, _, queue in ways if queue), default=None)
        # select, since poll and epoll wait for whole milliseconds.
        ready, _, _ = select.select(ends, (), (), None if due is None else max(0, due - time.monotonic()))
        for source, sink, queue in ways:
            if source in ready:
                read(source, queue, delay)
            deliver(sink, queue)


def main():
    with contextlib.suppress(OSError):
        os.nice(-15)  # a late packet would be a longer round trip
    ends = [interface(name) for name in sys.argv[1:3]]
    print(READY, end="", flush=True)
    relay(ends, float(sys.argv[3]) / 1000)


if __name__ == "__main__":
    main()
