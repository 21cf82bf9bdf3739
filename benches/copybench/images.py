"""Owns the source images: how each is made, when it is made again, and reading it into the page cache."""
import argparse
import hashlib
import json
import os
import shutil
import subprocess

MIB = 1 << 20
RECIPE = 1  # part of the stamp: raise it when an image is to be made in another way
NAMES = ("dense", "half", "zero", "frag", "four")


def size_argument(words):
    """4G, 512M, ... in bytes, for argparse."""
    unit = {"K": 10, "M": 20, "G": 30}.get(words[-1:].upper())
    number = int(words[:-1] if unit else words) << (unit or 0)
    if number % MIB or number < 16 * MIB:
        raise argparse.ArgumentTypeError("a whole number of MiB, from 16M on")
    return number


def paths(work, name):
    """The files of an image: one, or the four of `four`."""
    if name == "four":
        return [work / f"four{number}.img" for number in range(1, 5)]
    return [work / f"{name}.img"]


def size_of(name, size):
    """The size of each file of an image."""
    return size // 4 // MIB * MIB if name == "four" else size


def ensure(work, name, size, say):
    """Makes the image's files unless their stamps say that they are there already."""
    for path in paths(work, name):
        stamp = path.with_suffix(".stamp")
        each = size_of(name, size)
        wanted = json.dumps({"size": each, "recipe": RECIPE})
        if path.exists() and stamp.exists() and stamp.read_text() == wanted and path.stat().st_size == each:
            continue
        say(f"making {path}")
        stamp.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        MAKERS[name](path, each)
        stamp.write_text(wanted)


def allocated(path):
    """The bytes of data in the image."""
    status = path.stat()
    return min(status.st_blocks * 512, status.st_size)


def warm(path):
    """Reads the data of an image, not its holes, so that all copiers find it in the page cache."""
    with path.open("rb", buffering=0) as image:
        for begin, end in data_extents(image.fileno()):
            while begin < end:
                begin += len(os.pread(image.fileno(), min(4 * MIB, end - begin), begin)) or end


def data_extents(descriptor):
    """The (begin, end) of each piece of data, in order."""
    end, size = 0, os.fstat(descriptor).st_size
    while end < size:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: nothing but a hole is left
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, end


def make_dense(path, size):
    """Random bytes: no two blocks are equal, and nothing can be compressed."""
    with path.open("wb") as sink:
        if shutil.which("openssl"):
            # A cipher's key stream is as good as /dev/urandom here, and several times as fast.
            key = hashlib.md5(path.name.encode()).hexdigest()
            command = f"openssl enc -aes-128-ctr -K {key} -iv 00 -in /dev/zero 2>/dev/null | head -c {size}"
            subprocess.run(["sh", "-c", command], stdout=sink, check=True)
        else:
            for _ in range(size // MIB):
                sink.write(os.urandom(MIB))
    settle(path, size, size)


def make_half(path, size):
    """64 MiB of data, 64 MiB of hole, and so on; smaller pieces in an image of less than 256 MiB."""
    piece = min(64 * MIB, size // 4)
    with path.open("wb") as sink, path.with_name("dense.img").open("rb") as dense:
        sink.truncate(size)
        for begin in range(0, size, 2 * piece):
            for at in range(begin, min(begin + piece, size), MIB):
                sink.seek(at)
                dense.seek(at)
                sink.write(dense.read(MIB))
    settle(path, size // 2, size // 2 + piece)


def make_zero(path, size):
    """One hole."""
    with path.open("wb") as sink:
        sink.truncate(size)
    settle(path, 0, 0)


def make_frag(path, size):
    """4 KiB of data, 4 KiB of hole, and so on."""
    with path.open("wb", buffering=0) as sink, path.with_name("dense.img").open("rb") as dense:
        sink.truncate(size)
        for begin in range(0, size, MIB):
            block = dense.read(MIB)
            for at in range(0, MIB, 8192):
                os.pwrite(sink.fileno(), block[at : at + 4096], begin + at)
    # The blocks of the extent tree count as well: some 3 per mille.
    settle(path, size // 2, size // 2 + size // 100)
    with path.open("rb") as image:
        found = sum(1 for _ in data_extents(image.fileno()))
    if found != size // 8192:
        raise SystemExit(f"{path} has {found} pieces of data, not {size // 8192}: has it blocks of 4 KiB?")


def settle(path, least, most):
    """Brings a fresh image to the disk, and checks that its holes are holes."""
    with path.open("rb") as image:
        os.fsync(image.fileno())
    if not least <= allocated(path) <= most:
        raise SystemExit(f"{path} holds {allocated(path)} bytes of data instead of {least}: are holes kept here?")


MAKERS = {"dense": make_dense, "half": make_half, "zero": make_zero, "frag": make_frag, "four": make_dense}
