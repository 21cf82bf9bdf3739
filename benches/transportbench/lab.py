"""Owns the simulated vCenter: the disks, its certificate, the server itself, and the stand-in for VDDK."""
import contextlib
import json
import pathlib
import secrets
import shutil
import subprocess

from copybench import images

from . import container, lines, network, vcenter

USER, STORE, VM = "administrator@vsphere.local", "bench store", "bench"
URL = f"vpx://{USER.replace('@', '%40')}@{network.SERVER}/DC/Cluster/esx1.example.com"
INVENTORY = {
    "mode": "vpx", "listen": f"{network.SERVER}:443", "certificate": "server.pem", "key": "server.key", "user": USER,
    "datacenter": "DC", "cluster": "Cluster", "host": "esx1.example.com",
    "datastores": [{"name": STORE, "directory": "store"}],
}
CERTIFICATE = [
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
    "-subj", "/CN=simulated vCenter", "-addext", f"subjectAltName=IP:{network.SERVER}",
    "-keyout", "server.key", "-out", "server.pem",
]


def files(work, count):
    """The disks; their contents differ."""
    return [work / "store" / f"disk{number}-flat.vmdk" for number in range(1, count + 1)]


def make_disks(work, count, size, say):
    """Half of each is data: a piece of data, a piece of hole, and so on."""
    (work / "store").mkdir(parents=True, exist_ok=True)
    for path in files(work, count):
        stamp = path.with_suffix(".stamp")
        if path.exists() and stamp.exists() and stamp.read_text() == str(size):
            continue
        say(f"making {path}")
        stamp.unlink(missing_ok=True)
        dense = path.with_name("dense.img")
        try:
            # The name is the seed.
            images.make_dense(path.with_suffix(".seed"), size)
            path.with_suffix(".seed").rename(dense)
            images.make_half(path, size)
        finally:
            dense.unlink(missing_ok=True)
        stamp.write_text(str(size))


@contextlib.contextmanager
def running(work, program, link, count):
    """The simulated vCenter with its VM; gives what vcenter.opened() wants."""
    password = secrets.token_urlsafe(16)
    subprocess.run(CERTIFICATE, cwd=work, check=True, capture_output=True)
    # vclab writes the VM's description where there is none.
    shutil.rmtree(work / "store" / "vm", ignore_errors=True)
    (work / "store" / "vm").mkdir(mode=0o755)
    disks = []
    for path in files(work, count):
        (work / "store" / "vm" / path.name).hardlink_to(path)
        disks.append({"path": f"[{STORE}] vm/{path.name.removesuffix('-flat.vmdk')}.vmdk"})
    machine = {"name": VM, "uuid": "42000000-1111-2222-3333-444455556666", "disks": disks}
    config = work / "lab.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({**INVENTORY, "password": password, "vms": [machine]}))
    with (work / "vclab.log").open("w+") as log:
        process = subprocess.Popen(
            network.within(link.server, program, "--config", str(config)), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
        )
        try:
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                raise vcenter.Wrong(f"the simulated vCenter does not start: {log.read()[-2000:]}")
            yield vcenter.Access(URL, password, json.loads(line)["thumbprint"], bundle=work / "server.pem")
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()
            config.unlink(missing_ok=True)


def stand_in(work, library, rtt_ms, bandwidth, thumbprint):
    """A tree as VMware's archive has it, with the stand-in as its library; the mounts that it needs."""
    tree = work / "vddk"
    shutil.rmtree(tree, ignore_errors=True)
    lib64 = tree / "lib64"
    lib64.mkdir(parents=True)
    shutil.copy(library, lib64 / "libvixDiskLib.so.8.0.0")
    (lib64 / "libvixDiskLib.so.8").symlink_to("libvixDiskLib.so.8.0.0")
    (lib64 / "libvixDiskLib.so").symlink_to("libvixDiskLib.so.8")
    settings = {
        "datastores": {STORE: "/datastore"}, "server": network.SERVER, "user": USER,
        "password_file": f"{lines.SECRET}/password", "thumbprint": thumbprint, "latency_ms": rtt_ms,
    }
    if bandwidth:
        settings["bandwidth_handle"] = bandwidth
    (tree / "stub.json").write_text(json.dumps(settings))
    for path in (work / "store", *(work / "store").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return [f"{tree}:{lines.LIBDIR}:ro", f"{work / 'store'}:/datastore:ro"]


def build():
    """The path of vclab, built when it is not there."""
    command = [container.ROOT / "tests/lab/vcenter.sh", "build"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        raise vcenter.Wrong("the simulated vCenter cannot be built (above)")
    return pathlib.Path(run.stdout.strip())
