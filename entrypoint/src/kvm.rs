//! Whether KVM works: a device that exists proves nothing on nested hosts, nor does a virtual
//! machine that halts at once. So qemu is started as libguestfs starts it (`-cpu max`, q35), with a
//! firmware of one page whose only act is to end qemu with a code of ours.

use crate::toolbox::{Accelerator, Toolbox};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A working KVM answers in a tenth of a second; a broken one may hang.
const LIMIT: Duration = Duration::from_secs(15);
const QEMUS: [&str; 2] = ["qemu-system-x86_64", "qemu-kvm"];
const FIRMWARE_BYTES: usize = 64 << 10;
/// Where an x86 processor begins, counted from the end of the firmware.
const RESET_VECTOR: usize = FIRMWARE_BYTES - 16;
/// `mov al, 0x10; out 0xf4, al; hlt`: the isa-debug-exit device turns 0x10 into exit code 33.
const CODE: [u8; 5] = [0xb0, 0x10, 0xe6, 0xf4, 0xf4];
const EXIT_CODE: i32 = 33;

/// What the appliance will run on, and one line why. `dir` takes the firmware.
pub async fn probe(toolbox: &Toolbox, dir: &Path) -> (Accelerator, String) {
    let emulated = |why: String| (Accelerator::Tcg, why);
    if !Path::new("/dev/kvm").exists() {
        return emulated("/dev/kvm does not exist".to_owned());
    }
    if let Err(e) = fs::File::options().read(true).write(true).open("/dev/kvm") {
        return emulated(format!("/dev/kvm cannot be opened: {e}"));
    }
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !virtualizes(&cpu) {
        return emulated(
            "/dev/kvm exists, but the processor offers neither vmx nor svm".to_owned(),
        );
    }
    let Some(qemu) = QEMUS.into_iter().find(|q| toolbox.find(q).is_some()) else {
        return emulated("/dev/kvm exists, but there is no qemu to try it with".to_owned());
    };
    let firmware = dir.join("probe.bin");
    if let Err(e) = fs::write(&firmware, firmware_image()) {
        return emulated(format!("/dev/kvm could not be tried: {e}"));
    }
    let bios = firmware.to_string_lossy();
    let args = [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-machine",
        "q35,accel=kvm",
        "-cpu",
        "max",
        "-m",
        "32",
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=0x04",
        "-bios",
        &bios,
    ];
    match toolbox.ask(qemu, &args, LIMIT).await {
        Some((status, _)) if status.code() == Some(EXIT_CODE) => {
            (Accelerator::Kvm, "a virtual machine was started with KVM".to_owned())
        }
        Some((status, text)) => {
            let said = text.lines().next_back().map_or_else(|| status.to_string(), str::to_owned);
            emulated(format!("/dev/kvm exists but does not work: {said}"))
        }
        None => emulated("/dev/kvm exists but does not answer".to_owned()),
    }
}

/// A nested host may offer the device without the processor's part: one instruction runs there,
/// and Linux hangs. An unreadable list of flags decides nothing.
fn virtualizes(cpuinfo: &str) -> bool {
    let mut flags = cpuinfo.lines().filter(|l| l.starts_with("flags")).peekable();
    flags.peek().is_none() || flags.any(|l| l.split_whitespace().any(|f| f == "vmx" || f == "svm"))
}

fn firmware_image() -> Vec<u8> {
    let mut image = vec![0; FIRMWARE_BYTES];
    image[RESET_VECTOR..RESET_VECTOR + CODE.len()].copy_from_slice(&CODE);
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_must_offer_virtualization() {
        assert!(virtualizes("model\t: x\nflags\t\t: fpu vmx sse\n"));
        assert!(!virtualizes("flags\t\t: fpu svm_lock sse vmxnet\n"));
        assert!(virtualizes("no flags at all"));
    }

    #[test]
    fn the_firmware_begins_where_the_processor_does() {
        let image = firmware_image();
        assert_eq!((image.len(), &image[0xfff0..0xfff5]), (FIRMWARE_BYTES, &CODE[..]));
    }
}
