"""Owns a vCenter or ESXi host as the source of disks: its certificate, the VM's description, and the tools' secrets.

Passwords go into files of the image's user, never into an argument.
"""
import contextlib
import dataclasses
import hashlib
import pathlib
import re
import socket
import ssl
import tempfile
import urllib.parse
import xml.etree.ElementTree

from . import container, lines

VMWARE = "{http://libvirt.org/schemas/domain/vmware/1.0}"
BUNDLE = "/opt/ca-bundle.crt"  # what curl, libvirt and nbdkit trust in the image


class Wrong(Exception):
    """The source cannot be used as given."""


@dataclasses.dataclass
class Access:
    """Who asks, and whom is trusted. `bundle` is a file with certificates, None for the image's own."""

    url: str
    password: str
    thumbprint: str
    insecure: bool = False
    bundle: pathlib.Path | None = None

    @property
    def parts(self):
        return urllib.parse.urlsplit(self.url)


@dataclasses.dataclass
class Source:
    """A VM's disks, `[datastore] folder/name.vmdk` each, and how they are reached."""

    server: str
    port: int
    user: str
    thumbprint: str
    insecure: bool
    moref: str
    datacenter: str
    disks: list
    mounts: list
    network: str

    @property
    def authority(self):
        return self.server if self.port == 443 else f"{self.server}:{self.port}"


def endpoint(url):
    """(host, port, user) of a libvirt URL."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port, user = parts.hostname, parts.port or 443, parts.username
    except ValueError as error:
        raise Wrong(f"--url {url}: {error}") from None
    if parts.scheme not in ("vpx", "esx") or not host or not user:
        raise Wrong(f"--url {url}: vpx://USER@HOST/DATACENTER/CLUSTER/ESXI or esx://USER@HOST is wanted")
    if parts.password is not None:
        raise Wrong("--url: leave the password out, and give --password-file")
    return host, port, urllib.parse.unquote(user)


def certificate(url, cacert, thumbprint, insecure):
    """(thumbprint, certificate as PEM) of the server, trusted in the way that is asked for."""
    host, port, _ = endpoint(url)
    context = ssl.create_default_context(cafile=cacert)
    if thumbprint or insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=30) as plain:
            with context.wrap_socket(plain, server_hostname=host) as secured:
                der = secured.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        raise Wrong(
            f"{host}:{port}: {error.verify_message}; give --cacert, or --thumbprint after comparing it, or --insecure"
        ) from None
    except OSError as error:
        raise Wrong(f"{host}:{port}: {error}") from None
    digest = hashlib.sha1(der).hexdigest().upper()
    if thumbprint and thumbprint.upper().replace(":", "") != digest:
        raise Wrong(f"{host}:{port} presents another certificate, SHA-1 {colons(digest)}")
    return colons(digest), ssl.DER_cert_to_PEM_cert(der)


def colons(digest):
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


@contextlib.contextmanager
def opened(access, vm, network, mounts=(), wanted=()):
    """The Source behind a URL, with the disks that are wanted; its secrets are gone afterwards."""
    host, port, user = endpoint(access.url)
    # On a tmpfs; the name is for container.sweep().
    with tempfile.TemporaryDirectory(prefix=f"{container.name()}-", dir=container.MEMORY) as tmp:
        secret = pathlib.Path(tmp)
        write_secrets(secret, user, access.password, host)
        mounts = [*mounts, f"{secret}:{lines.SECRET}:ro"]
        if access.bundle:
            mounts.append(f"{access.bundle}:{BUNDLE}:ro")
        moref, datacenter, disks = describe(access, vm, mounts, network)
        source = Source(host, port, user, access.thumbprint, access.insecure, moref, datacenter, chosen(disks, wanted),
                        mounts, network)
        for number, disk in enumerate(source.disks):
            script = secret / f"cookie{number}"
            script.write_text(lines.cookie_script(source, disk))
            container.share(script)
        yield source


def write_secrets(folder, user, password, host):
    texts = {
        "password": password,
        "curl": f"user = {quoted(f'{user}:{password}')}\n",
        "libvirt": f"[credentials-source]\nusername={user}\npassword={password}\n\n"
        f"[auth-esx-{host}]\ncredentials=source\n\n[auth-vpx-{host}]\ncredentials=source\n",
    }
    container.share(folder)
    for name, text in texts.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        container.share(path)


def quoted(words):
    """As a file of curl options wants it."""
    return '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'


def describe(access, vm, mounts, network):
    """(moref, datacenter, disks) of the VM, as libvirt describes it."""
    parameters = [f"authfile={lines.SECRET}/libvirt", *(["no_verify=1"] if access.insecure else [])]
    # Whatever query the URL had is about trust, which is decided already.
    url = access.parts._replace(query="&".join(parameters)).geturl()
    text = container.run(["virsh", "-q", "-c", url, "dumpxml", vm], mounts, network)
    domain = xml.etree.ElementTree.fromstring(text)
    moref, datacenter = domain.findtext(f"{VMWARE}moref"), domain.findtext(f"{VMWARE}datacenterpath")
    disks = [source.get("file") for source in domain.findall("devices/disk[@device='disk']/source")]
    if not moref or not datacenter or not disks or not all(disks):
        raise Wrong(f"libvirt names no reference, datacenter or disks of {vm}")
    if chained := [disk for disk in disks if re.search(r"-\d{6}\.vmdk$", disk)]:
        raise Wrong(f"{vm} has snapshots ({chained[0]}): HTTPS would read another state than VDDK")
    return moref, datacenter, disks


def chosen(disks, wanted):
    """The disks that are asked for, by number from 1 or by name; all of them when none is."""
    table = {str(number): disk for number, disk in enumerate(disks, 1)} | {disk: disk for disk in disks}
    if unknown := [one for one in wanted if one not in table]:
        raise Wrong(f"--disk {unknown[0]}: the VM has " + ", ".join(f"{n} {disk}" for n, disk in enumerate(disks, 1)))
    return [table[one] for one in wanted] or disks
