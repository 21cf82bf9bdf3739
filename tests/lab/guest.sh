#!/usr/bin/env bash
# Usage: tests/lab/guest.sh OUTDIR [--variant debian|nobootloader|uefi]
# Makes a small real Debian guest in OUTDIR: boot.img, data.img and data.sha256 (of the whole data.img). Does nothing when
# OUTDIR already holds the guest of this very recipe. Needs root (debootstrap), no loop device and no mount.
#   V2V_LAB_CACHE  packages and root trees, downloaded and made once (default /var/cache/v2v-pod-lab)
#   V2V_LAB_SUITE  the guest's Debian release (default bookworm)
set -euo pipefail

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out='' variant=debian
while [ $# -gt 0 ]; do
    case $1 in
    --variant) variant=${2:?}; shift 2 ;;
    -*) usage ;;
    *) out=$1; shift ;;
    esac
done
[ -n "$out" ] || usage

cache=${V2V_LAB_CACHE:-/var/cache/v2v-pod-lab}
suite=${V2V_LAB_SUITE:-bookworm}
size_mib=1536
start=1048576 # the partition's, in bytes
root_uuid=6d1f5bd8-76b0-4a5e-9b6e-0f1e2d3c4b5a
packages=systemd-sysv,udev,kmod,initramfs-tools,lz4,e2fsprogs,linux-image-cloud-amd64,grub2-common
case $variant in
debian | nobootloader) packages+=,grub-pc-bin ;;
uefi) packages+=,grub-efi-amd64-bin ;;
*) usage ;;
esac

say() { printf '[%3ds] guest: %s\n' "$SECONDS" "$*" >&2; }
recipe=$(sha256sum <"$0" | cut -c1-16)
stamp="$recipe $variant $suite"
if [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi

mkdir -p "$out" "$cache/debs"
# One build at a time: tests run in parallel and share the cache.
exec 9>"$cache/lock"
flock 9
if [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
rm -f "$out/stamp"
work=$(mktemp -d "$cache/work.XXXXXX")
cleanup() {
    # debootstrap leaves /proc and /sys mounted in the tree when it is interrupted.
    awk -v w="$work/" 'index($2, w) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r m; do umount -l "$m" || true; done
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

root=$work/root
tree=$cache/tree-$suite-$(printf '%s %s' "$packages" "$recipe" | sha256sum | cut -c1-16).tar
if [ ! -f "$tree" ]; then
    # The machine's own mirror: the first Debian archive in apt's sources.
    # shellcheck disable=SC2016  # apt's own placeholders
    mirror=$(apt-get indextargets --format '$(SITE) $(ORIGIN) $(LABEL)' | awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }')
    [ -n "$mirror" ] || { say "no Debian mirror in apt's sources on this host"; exit 1; }
    say "debootstrap $suite"
    # INITRD=No: the initramfs is made once, below, with its configuration in place.
    INITRD=No debootstrap --variant=minbase --cache-dir="$cache/debs" --include="$packages" \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$suite" "$root" "$mirror" >"$work/debootstrap.log" 2>&1 ||
        { tail -20 "$work/debootstrap.log" "$root/debootstrap/debootstrap.log" >&2; exit 1; }

    echo v2v-guest >"$root/etc/hostname"
    echo "UUID=$root_uuid / ext4 errors=remount-ro 0 1" >"$root/etc/fstab"
    : >"$root/etc/machine-id"
    # no_timer_check: emulated on a busy machine, the kernel's test of its timer fails now and then, and it panics.
    echo 'GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISABLE_OS_PROBER=true
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 no_timer_check"' >"$root/etc/default/grub"
    # A short list of modules, a quick compressor and few hooks (its shell is of klibc-utils): rebuilding the initramfs is most of a
    # conversion's time without KVM, a twentieth of a second for each process that is started.
    mkdir -p "$root/etc/initramfs-tools/conf.d"
    printf 'MODULES=list\nCOMPRESS=lz4\n' >"$root/etc/initramfs-tools/conf.d/lab"
    printf '%s\n' sd_mod virtio_pci virtio_blk virtio_scsi >>"$root/etc/initramfs-tools/modules"
    for hook in dmsetup fsck keymap resume thermal; do
        rm -f "$root/usr/share/initramfs-tools/hooks/$hook"
    done
    # Debian's configuration file wins over nothing in conf.d, but keep it saying the same.
    sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=lz4/' "$root/etc/initramfs-tools/initramfs.conf"
    say "initramfs"
    chroot "$root" update-initramfs -c -k all >"$work/initramfs.log" 2>&1 || { tail -20 "$work/initramfs.log" >&2; exit 1; }

    rm -rf "$root"/usr/share/{doc,man,info,locale} "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
    mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"
    tar -C "$root" --numeric-owner --xattrs -cf "$tree.new" .
    mv "$tree.new" "$tree"
else
    mkdir "$root"
    tar -C "$root" --numeric-owner --xattrs -xf "$tree"
fi

kernel=$(basename "$root"/boot/vmlinuz-*)
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<EOT
set default=0
set timeout=0
search --no-floppy --fs-uuid --set=root $root_uuid
menuentry 'Debian GNU/Linux' --class debian {
    linux /boot/$kernel root=UUID=$root_uuid ro console=tty0 console=ttyS0,115200 no_timer_check
    initrd /boot/${kernel/vmlinuz/initrd.img}
}
EOT

disk=$work/boot.img
truncate -s ${size_mib}M "$disk"
label=dos first='start=2048, type=83, bootable'
case $variant in
debian)
    cp -r "$root/usr/lib/grub/i386-pc" "$root/boot/grub/"
    chroot "$root" grub-mkimage -O i386-pc -o /core.img -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2 normal search search_fs_uuid linux
    ;;
nobootloader) rm -rf "$root/boot/grub" ;;
uefi)
    label=gpt
    start=$((65 * 1048576))
    ;;
esac

say "file system and boot loader"
if [ "$variant" = uefi ]; then
    printf 'label: %s\nstart=2048, size=64MiB, type=uefi\ntype=linux\n' "$label" | sfdisk -q "$disk"
    # The firmware's fallback path, so that no EFI variable is needed.
    echo "search --no-floppy --fs-uuid --set=root $root_uuid
set prefix=(\$root)/boot/grub
configfile (\$root)/boot/grub/grub.cfg" >"$root/early.cfg"
    cp -r "$root/usr/lib/grub/x86_64-efi" "$root/boot/grub/"
    chroot "$root" grub-mkimage -O x86_64-efi -o /bootx64.efi -c /early.cfg -p /boot/grub part_gpt fat ext2 normal search search_fs_uuid linux configfile
    truncate -s 64M "$work/esp"
    mkfs.vfat -n ESP -i 0E5B0001 "$work/esp" >/dev/null
    mmd -i "$work/esp" ::/EFI ::/EFI/BOOT
    mcopy -i "$work/esp" "$root/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
    rm -f "$root/bootx64.efi" "$root/early.cfg"
    echo "UUID=0E5B-0001 /boot/efi vfat umask=0077 0 1" >>"$root/etc/fstab"
    mkdir -p "$root/boot/efi"
    dd if="$work/esp" of="$disk" bs=1M seek=1 conv=notrunc,sparse status=none
else
    printf 'label: %s\n%s\n' "$label" "$first" | sfdisk -q "$disk"
fi
if [ "$variant" = debian ]; then
    # GRUB's first stage looks for the second in the next sectors by default: no grub-install, which wants partition nodes.
    dd if="$root/usr/lib/grub/i386-pc/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if="$root/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none
    rm -f "$root/core.img"
fi
# GPT keeps its second table in the last MiB; leave it room whatever the label.
mke2fs -q -t ext4 -U "$root_uuid" -L root -d "$root" -E "offset=$start,lazy_itable_init=0" "$disk" $((size_mib * 1024 - start / 1024 - 1024))

# The data disk: no file system (virt-v2v trims those), reproducible noise, a hole and zeros that are really written.
data=$work/data.img
noise() { dd if=/dev/zero bs=1M count="$1" status=none | openssl enc -aes-128-ctr -nosalt -K "$(printf '%032x' "$2")" -iv 0; }
truncate -s 64M "$data"
noise 24 1 2>/dev/null | dd of="$data" bs=1M iflag=fullblock conv=notrunc status=none
dd if=/dev/zero of="$data" bs=1M seek=40 count=4 conv=notrunc status=none
noise 20 2 2>/dev/null | dd of="$data" bs=1M seek=44 iflag=fullblock conv=notrunc status=none
(cd "$work" && sha256sum data.img >data.sha256)

mv "$disk" "$data" "$work/data.sha256" "$out/"
echo "$stamp" >"$out/stamp"
say "done: $(du -h --apparent-size "$out/boot.img" | cut -f1) ($(du -h "$out/boot.img" | cut -f1) used)"
