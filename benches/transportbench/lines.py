"""Owns the command lines: nbdkit as virt-v2v 2.6 starts it for a disk in vCenter (HTTPS and VDDK), and the copiers.

Taken from `virt-v2v -v`. Left out are --verbose, which comes with -v only, and the names of temporary files.
"""
import os
import urllib.parse

TRANSPORTS = ("https", "vddk")
TOOLS = ("nbdcopy", "v2v-pod")
# Where things are in the container.
SECRET, LIBDIR, OUT, TMP = "/secret", "/vddk", "/out", "/var/tmp"
FRAME = ["--threads", "16", "-D", "nbdkit.backend.datapath=0"]


def competitors(transports, tools):
    return [(transport, tool) for transport in transports for tool in tools]


def folder_url(source, path):
    """Where vCenter serves the disk `[datastore] folder/name.vmdk`."""
    datastore, name = path[1:].split("] ", 1)
    quote = urllib.parse.quote
    flat = quote(name.removesuffix(".vmdk") + "-flat.vmdk")
    host = source.authority
    return f"https://{host}/folder/{flat}?dcPath={quote(source.datacenter, '')}&dsName={quote(datastore, '')}"


def cookie_script(source, path):
    """virt-v2v's, but for the password, which it would give to curl as an argument."""
    insecure = "--insecure " if source.insecure else ""
    url = folder_url(source, path)
    sed = r"sed -ne '{ s/^Set-Cookie: \([^;]*\);.*/\1/ip }'"
    return f"curl --head -s {insecure}-K {SECRET}/curl '{url}' | {sed}\n"


def nbdkit(transport, source, number):
    """The server of the source's disk of that number, from 0."""
    base = f"{TMP}/in{number}"
    command = ["nbdkit", "--exit-with-parent", "--foreground", "--pidfile", pidfile(number), "--unix", base, *FRAME]
    return command + (https if transport == "https" else vddk)(source, number)


def https(source, number):
    # By way of sh: the secrets may be on a file system without programs.
    return [
        *filters("cow", "cacheextents", "retry"), "curl", f"url={folder_url(source, source.disks[number])}",
        "timeout=2000", f"cookie-script=sh {SECRET}/cookie{number}", "cookie-script-renew=1500",
        *(["sslverify=false"] if source.insecure else []), f"cow-on-read={TMP}/convert",
    ]


def vddk(source, number):
    port = [f"port={source.port}"] if source.port != 443 else []
    return [
        "-D", "vddk.stats=1", "-D", "vddk.datapath=0",
        *filters("multi-conn", "cow", "blocksize", "cacheextents", "retry"), "vddk", f"server={source.server}",
        f"vm=moref={source.moref}", f"file={source.disks[number]}", f"user={source.user}", f"libdir={LIBDIR}", *port,
        f"thumbprint={source.thumbprint}", "minblock=512", "maxdata=2M", "multi-conn-mode=disable",
        "cow-block-size=4096", f"cow-on-read={TMP}/convert", f"password=+{SECRET}/password",
    ]


def filters(*names):
    return [part for name in names for part in ("--filter", name)]


def pidfile(number):
    return f"{TMP}/nbdkit{number}.pid"


def target(number):
    return f"target{number}.raw"


def copies(tool, count):
    """The processes that copy the first `count` disks together: one for each, or v2v-pod's only one."""
    pairs = [(f"nbd+unix:///?socket={TMP}/in{n}", os.path.join(OUT, target(n))) for n in range(count)]
    if tool == "v2v-pod":
        return [["v2v-pod", "copy", "--quiet", *(part for pair in pairs for part in pair)]]
    return [["nbdcopy", "--flush", *pair] for pair in pairs]
