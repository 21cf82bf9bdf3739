"""Owns what a row stands on and what must be gone afterwards: the nbdkit servers, the target files, the loop device."""
import contextlib
import pathlib
import subprocess
import tempfile
import time

from . import images


@contextlib.contextmanager
def sources(row, files):
    """What the copiers are given as sources: the files themselves, or the URI of a server for each."""
    if row.transport == "file":
        yield [str(path) for path in files]
        return
    # Not in the work directory: the path of a socket may have no more than 107 characters.
    with tempfile.TemporaryDirectory(prefix="copybench-") as tmp, contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(server(row, path, pathlib.Path(tmp, f"nbd{number}")))
            for number, path in enumerate(files)
        ]


@contextlib.contextmanager
def server(row, path, address):
    """An nbdkit for one image; read only, so that it offers several connections."""
    command = ["nbdkit", "-f", "-r", "--exit-with-parent", "-U", str(address), "-P", f"{address}.pid"]
    command += [f"--filter={name}" for name in row.filters] + ["file", str(path), *row.settings]
    # In a session of its own: Ctrl-C is for us, and we end it.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(process, pathlib.Path(f"{address}.pid"))
        yield f"nbd+unix:///?socket={address}"
    finally:
        process.terminate()
        process.wait()


def wait_for(process, pidfile):
    """Until the server answers: it writes its pid once it listens. A connection on trial would make it complain."""
    for _ in range(500):
        if process.poll() is not None:
            raise SystemExit(f"nbdkit ended with {process.returncode}")
        if pidfile.exists() and pidfile.stat().st_size:
            return
        time.sleep(0.01)
    raise SystemExit("nbdkit does not answer")


class Files:
    """Targets that are new files in the work directory."""

    block = False

    def __init__(self, work, count):
        self.files = [work / f"target{number}.raw" for number in range(1, count + 1)]
        self.paths = [str(path) for path in self.files]

    def reset(self):
        for path in self.files:
            path.unlink(missing_ok=True)


class Loop:
    """A loop device without a page cache of its own, full of old data before each copy."""

    block = True

    def __init__(self, device, dense, size):
        self.paths = [device]
        self.dense, self.size = dense, size

    def reset(self):
        # Each copier is to find the same device. Zeroing by the copier before punches holes into the backing file, and
        # its data would pass the comparison; so data go in that fit no image: `dense`, one MiB further on.
        mib = self.size // images.MIB
        common = [f"if={self.dense}", f"of={self.paths[0]}", "bs=1M", "oflag=direct", "conv=notrunc", "status=none"]
        subprocess.run(["dd", *common, "skip=1", f"count={mib - 1}"], check=True)
        subprocess.run(["dd", *common, "count=1", f"seek={mib - 1}"], check=True)


@contextlib.contextmanager
def targets(row, work, size):
    """Where the copiers write."""
    if row.target == "file":
        place = Files(work, len(images.paths(work, row.image)))
        try:
            yield place
        finally:
            place.reset()
        return
    backing = work / "loop.raw"
    device = None
    try:
        with backing.open("wb") as file:
            file.truncate(size)
        attach = ["losetup", "--direct-io=on", "--find", "--show", str(backing)]
        device = subprocess.run(attach, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
        yield Loop(device, images.paths(work, "dense")[0], size)
    finally:
        if device:
            subprocess.run(["losetup", "--detach", device], check=False)
        backing.unlink(missing_ok=True)
