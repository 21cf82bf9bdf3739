"""Owns running something in the conversion image, and that nothing of it is left afterwards.

Everything that is measured runs in the image, so that the versions are those that are shipped.
"""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LIMIT = 3600  # seconds; what takes longer hangs
SCRIPT = f'set -euo pipefail; source "{ROOT}/tests/lab/podman.sh"; v2v_podman_run "$@"'
USER = 107  # of the image
PREFIX = "v2vbench"
MEMORY = "/dev/shm"  # files there are never on a disk


class Failed(Exception):
    """What ran in the image failed."""


def image():
    return os.environ.get("V2V_IMAGE", "localhost/v2v-pod:latest")


def image_id():
    command = ["podman", "image", "inspect", "--format", "{{.Id}}", image()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()[:12]


def name():
    """One container at a time, so the process names it; see sweep()."""
    return f"{PREFIX}-{os.getpid()}"


def run(command, mounts=(), network="host"):
    """What the command prints on standard output. `mounts` are podman's -v, `network` its --network."""
    options = [part for mount in mounts for part in ("-v", mount)]
    words = ["bash", "-c", SCRIPT, "bash", "--name", name(), "--entrypoint", command[0], *options, "--", *command[1:]]
    with tempfile.TemporaryFile("w+") as log:
        # In a session of its own: Ctrl-C is for us, and we end it.
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            env={**os.environ, "V2V_NETWORK": network},
        )
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise Failed(f"{command[0]} in the image did not end within {LIMIT} s") from None
        finally:
            remove(process)
        if process.returncode != 0:
            log.seek(0)
            raise Failed(f"{command[0]} in the image failed with {process.returncode}:\n{log.read()[-3000:]}{output}")
        return output


def remove(process):
    """Ends the container, be it that podman is only about to make it."""
    while process.poll() is None:
        delete(name())
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
    if process.returncode:
        delete(name())


def delete(container):
    subprocess.run(["podman", "rm", "--force", "--ignore", "--time", "0", container], capture_output=True, check=False)


def inside(job, mounts=(), network="host"):
    """The answer of inside.py to a job."""
    with tempfile.TemporaryDirectory(prefix="transportbench-") as tmp:
        path = pathlib.Path(tmp, "job.json")
        path.write_text(json.dumps(job))
        share(path.parent, path)
        mounts = [*mounts, f"{ROOT}/benches:/benches:ro", f"{tmp}:/job:ro"]
        command = ["python3", "-B", "/benches/transportbench/inside.py", "/job/job.json"]
        return json.loads(run(command, mounts, network).splitlines()[-1])


def share(*paths):
    """Makes the files the image's user's, and nobody else's."""
    for path in paths:
        os.chown(path, USER, USER)
        path.chmod(0o700 if path.is_dir() else 0o600)


def sweep():
    """Removes what runs that were killed left: their container and secrets."""
    command = ["podman", "ps", "--all", "--format", "{{.Names}}", "--filter", f"name=^{PREFIX}-[0-9]+$"]
    for left in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split():
        if dead(left):
            delete(left)
    for folder in pathlib.Path(MEMORY).glob(f"{PREFIX}-*"):
        if dead(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def dead(left):
    """Whether the process whose number is in the name has ended."""
    return not os.path.exists(f"/proc/{left.split('-')[1]}")
