#!/bin/sh
# Runs inside the base image while it is built (Containerfile.base): installs the conversion tools, makes the fixed
# libguestfs appliance, and removes what only the making of it needed.
set -eu
export DEBIAN_FRONTEND=noninteractive
appliance=/usr/lib/v2v-pod/appliance

# lvm2's postinst looks at every block device of the build host that /dev shows. It reads with io_pgetevents, which the
# build's seccomp profile refuses, and then it tries again for ever. Keep it from the devices.
export LVM_SYSTEM_DIR=/run/lvm-build
mkdir -p "$LVM_SYSTEM_DIR"
printf 'global { use_aio = 0 }\ndevices { filter = [ "r|.*|" ] }\n' >"$LVM_SYSTEM_DIR/lvm.conf"

# What nobody reads in a pod.
cat >/etc/dpkg/dpkg.cfg.d/v2v-pod-slim <<'EOT'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
EOT

# nbdkit-plugin-vddk lives in contrib: it is free, the library it loads is not, and we never ship that library.
sed -i 's/^Components:.*/Components: main contrib/' /etc/apt/sources.list.d/debian.sources
printf 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n' >/etc/apt/apt.conf.d/90v2v-pod
apt-get update -q
apt-get upgrade -q -y

# passt must stay out: libguestfs would prefer it to QEMU's own user network, and it does not start unprivileged here.
# INITRD=No: the kernel is only material for the appliance, its own initramfs would be thrown away.
INITRD=No apt-get install -q -y \
    virt-v2v nbdkit nbdkit-plugin-vddk libnbd-bin libguestfs-xfs supermin qemu-system-x86 qemu-utils \
    linux-image-cloud-amd64 \
    lvm2 xfsprogs btrfs-progs dosfstools ntfs-3g e2fsprogs cryptsetup-bin \
    libvirt-clients openssh-client sshpass curl ca-certificates openssl tar unzip xz-utils zstd
! dpkg-query -W -f '${db:Status-Status}' passt 2>/dev/null | grep -q '^installed' || { echo "passt was installed" >&2; exit 1; }

# libguestfs-tools would pull 60 MB for these two programs.
tmp=$(mktemp -d)
(cd "$tmp" && apt-get download -q libguestfs-tools && dpkg-deb -x libguestfs-tools_*.deb .)
install -m 0755 "$tmp/usr/bin/libguestfs-test-tool" /usr/bin/
rm -rf "$tmp"

# What libguestfs-make-fixed-appliance does, minus the start of a VM, plus shrinking: supermin makes a 4 GiB file system,
# and image layers do not keep holes. 128 MiB of room is for what the daemon writes (into a throw-away overlay).
mkdir -p "$appliance"
supermin --build --copy-kernel -f ext2 --host-cpu x86_64 -o "$appliance" /usr/lib/x86_64-linux-gnu/guestfs/supermin.d
e2fsck -f -y "$appliance/root" >/dev/null || [ $? -le 1 ]
resize2fs -M "$appliance/root" 2>/dev/null
blocks=$(dumpe2fs -h "$appliance/root" 2>/dev/null | awk '/^Block count:/ { c = $3 } /^Block size:/ { s = $3 } END { print c * s / 1024 + 131072 }')
truncate -s "${blocks}K" "$appliance/root"
resize2fs "$appliance/root" 2>/dev/null
e2fsck -f -y "$appliance/root" >/dev/null
echo "fixed appliance of libguestfs $(dpkg-query -W -f '${Version}' libguestfs0t64), kernel $(ls /lib/modules)" >"$appliance/README.fixed"
chmod 0644 "$appliance"/*

# The kernel now lives in the appliance.
apt-get purge -q -y 'linux-image-*' 'initramfs-tools*' >/dev/null
apt-get autoremove -q -y --purge >/dev/null
rm -rf /lib/modules
find /boot -mindepth 1 -delete

# The pod's user; 107 is what KubeVirt's volumes belong to. An entry in passwd because libvirt and ssh ask for one.
groupadd --gid 107 qemu
useradd --uid 107 --gid 107 --home-dir /var/tmp --no-create-home --shell /usr/sbin/nologin qemu

rm -rf "$LVM_SYSTEM_DIR"
# podman copies the image's /tmp and /var/tmp into the pod's: keep them empty.
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/*.log /var/log/apt /usr/share/doc-base
# The S3 client behind nbdkit-plugin-python, which virt-v2v depends on for oVirt only (its package cannot be left out).
rm -rf /usr/lib/python3/dist-packages/botocore /usr/lib/python3/dist-packages/boto3
find /usr/lib/python3 /usr/lib/python3.* -name __pycache__ -prune -exec rm -rf {} +
find /tmp /var/tmp -mindepth 1 -delete
