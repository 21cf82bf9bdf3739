"""Owns the command lines of the copiers and of the limits; every one of them ends with its data on the disk."""
from . import images

PEERS = ("nbdcopy", "qemu-img", "qemu-img-tnone")
OURS = "v2v-pod"
# Ours as virt-v2v calls it: nothing to resume, so nothing is recorded.
NO_JOURNAL = "v2v-pod-nj"
ALL = (*PEERS, OURS, NO_JOURNAL)
LIMITS = ("read", "write")


def commands(which, sources, place, files, dense, program):
    """The processes that copy `sources` onto the targets together: one for each disk, or v2v-pod's only one."""
    pairs = list(zip(sources, place.paths))
    if which in (OURS, NO_JOURNAL):
        options = ["--no-journal"] if which == NO_JOURNAL else []
        return [[program, "copy", "--quiet", *options, *(part for pair in pairs for part in pair)]]
    if which == "write":
        return [write(files[n], target, dense, len(files) == 1) for n, (_, target) in enumerate(pairs)]
    return [peer(which, source, target, place.block) for source, target in pairs]


def peer(which, source, target, block):
    if which == "nbdcopy":
        return ["nbdcopy", "--flush", source, target]
    if which == "read":
        return ["nbdcopy", source, "null:"]
    # The default of convert is `-t unsafe`, which never flushes. writeback is the same way through the page cache, but
    # with an fdatasync at the end.
    cache = "none" if which == "qemu-img-tnone" else "writeback"
    create = ["-n"] if block else []  # a block device is there already
    return ["qemu-img", "convert", *create, "-W", "-m", "8", "-t", cache, "-f", "raw", "-O", "raw", source, target]


def write(image, target, dense, from_dense):
    """As many bytes as the image has data, in one stream, past the page cache."""
    source = dense if from_dense else image
    command = ["dd", f"if={source}", f"of={target}", "bs=1M", "oflag=direct", "conv=notrunc,fsync", "status=none"]
    return [*command, "iflag=count_bytes", f"count={images.allocated(image)}"]
