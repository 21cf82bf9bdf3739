#!/usr/bin/env bash
# Usage: tests/lab/xen-host.sh DIR PORT
# Plays a Xen host on 127.0.0.1:PORT until it is killed (SIGKILL): a real sshd and a real libvirtd in namespaces of their own, with the
# files of DIR/images as /var/lib/libvirt/images. Prints `ready` when both answer. Needs root and scripts/install-deps.sh lab.
# DIR must hold `password` (root's, one line) and `domains.xml` (libvirt's test driver: <node><domain>…</domain></node>), which
# is reached as xen+ssh://root@127.0.0.1:PORT/?name=test:///etc/libvirt/domains.xml: no Xen hypervisor can be had here, so what
# libvirt knows of its guests comes from that driver; ssh, libvirt's tunnel, SFTP and the disks are real.
# Makes in DIR, unless they are there: host_key (of the host), id (a key that root may log in with), known_hosts.
#   XEN_SSHD_OPTIONS  further lines for sshd_config, separated by semicolons
set -euo pipefail

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
dir=$(cd "$1" && pwd) port=$2
export PATH=$PATH:/usr/sbin:/sbin

if [ "${3:-}" != inside ]; then
    for tool in sshd libvirtd virt-ssh-helper unshare ssh-keygen openssl; do
        command -v "$tool" >/dev/null || { echo "xen-host: $tool is missing; run scripts/install-deps.sh lab" >&2; exit 1; }
    done
    for key in host_key id; do
        [ -e "$dir/$key" ] || ssh-keygen -q -t ed25519 -N '' -C "$key of the lab" -f "$dir/$key"
    done
    [ -e "$dir/known_hosts" ] || printf '[127.0.0.1]:%s %s\n' "$port" "$(cut -d' ' -f1,2 "$dir/host_key.pub")" >"$dir/known_hosts"
    # All of it dies with this process.
    exec unshare --mount --pid --fork --kill-child --mount-proc "$0" "$dir" "$port" inside
fi

# Nothing of the machine is changed: what is written to goes to file systems of this namespace.
for folder in /run /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    [ ! -d "$folder" ] || mount -t tmpfs -o mode=755 tmpfs "$folder"
done
mkdir -p /run/sshd /var/lib/libvirt/images "$dir/images"
mount --bind "$dir/images" /var/lib/libvirt/images
cp "$dir/domains.xml" /etc/libvirt/domains.xml

# Without these, which another package makes, libvirtd's QEMU driver and with it libvirtd does not start.
user=64055 # Debian's number
{ grep -v '^libvirt-qemu:' /etc/passwd; echo "libvirt-qemu:x:$user:$user::/var/lib/libvirt:/usr/sbin/nologin"; } >/run/passwd
{ grep -v '^libvirt-qemu:' /etc/group; echo "libvirt-qemu:x:$user:"; } >/run/group
for file in passwd group; do mount --bind /run/$file /etc/$file; done

# root has the lab's password here.
hash=$(openssl passwd -6 -stdin <"$dir/password")
printf 'root:%s:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n' "$hash" >/run/shadow
chmod 600 /run/shadow
mount --bind /run/shadow /etc/shadow

cat >/run/sshd_config <<EOT
Port $port
ListenAddress 127.0.0.1
HostKey $dir/host_key
AuthorizedKeysFile $dir/id.pub
PermitRootLogin yes
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
$(printf '%s' "${XEN_SSHD_OPTIONS:-}" | tr ';' '\n')
EOT
printf 'auth_unix_rw = "none"\nunix_sock_group = "root"\n' >/run/libvirtd.conf

# In a network of its own: libvirtd looks after the bridges and firewall of the machine that it runs on.
unshare --net libvirtd --config /run/libvirtd.conf >"$dir/libvirtd.log" 2>&1 &
"$(command -v sshd)" -D -e -f /run/sshd_config >"$dir/sshd.log" 2>&1 &
sshd=$!
for _ in $(seq 200); do
    # Another server may have the port.
    kill -0 "$sshd" || break
    if [ -S /run/libvirt/libvirt-sock ] && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        echo ready
        break
    fi
    sleep 0.1
done
# When one of them ends, so does the host.
wait -n
echo "xen-host: ended: $(tail -n 5 "$dir/libvirtd.log" "$dir/sshd.log")" >&2
