//! v2v-pod as the `nbdcopy` of virt-v2v's pipeline: a script plays virt-v2v and starts real nbdkit on both
//! sides, so that faults can be put where they are wanted. The real virt-v2v is in `e2e`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use v2v_pod_tests::copy::{MIB, Ran, assert_same, mixed_image, pod_binary, ran};

/// What virt-v2v does about copying: servers on both sides, nbdcopy found in PATH, its status looked at.
const VIRT_V2V: &str = r#"#!/bin/bash
case "$*" in --machine-readable) echo virt-v2v; echo output:local; exit 0;; --help) exit 0;; esac
while [ $# -gt 1 ]; do case $1 in -os) os=$2;; -on) name=$2;; esac; shift; done
dir=$(mktemp -d "$TMPDIR/v2v.XXXXXX")
trap 'kill $(cat "$dir"/*.pid) 2>/dev/null' EXIT
size=$(stat -c %s "$1")
truncate -s 0 "$os/$name-sda"; truncate -s "$size" "$os/$name-sda"
nbdkit -P "$dir/in.pid" -U "$dir/in0" -r $IN_FILTER file "$1" $IN_ARGS
nbdkit -P "$dir/out.pid" -U "$dir/out0" file "$os/$name-sda"
until [ -S "$dir/in0" ] && [ -S "$dir/out0" ]; do sleep 0.05; done
in="nbd+unix:///?socket=$dir/in0" out="nbd+unix:///?socket=$dir/out0"
OTHER_CALLS
echo '[   1.0] Copying disk 1/1'
nbdcopy "$in" "$out" --requests=64 --flush --progress || { echo "virt-v2v: error: nbdcopy exited with $?" >&2; exit 1; }
touch "HERE/copied"
echo '<domain type="kvm"><name>guest</name><memory>1048576</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices><disk type="file" device="disk"><driver name="qemu" type="raw"/><source file="'$os/$name-sda'"/><target dev="vda" bus="virtio"/></disk></devices></domain>' >"$os/$name.xml"
echo '[   2.0] Finishing off'
"#;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(other_calls: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("v2v-pipe.").tempdir_in("/var/tmp").unwrap();
        for folder in ["bin", "tmp", "out"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let script = dir.path().join("bin/virt-v2v");
        fs::write(
            &script,
            VIRT_V2V
                .replace("OTHER_CALLS", other_calls)
                .replace("HERE", &dir.path().display().to_string()),
        )
        .unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        mixed_image(&dir.path().join("guest.img"), 30 * MIB);
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn convert(&self, filter: &str, faults: &str, options: &[&str]) -> (Ran, String) {
        // Our environment does not reach the tools, so the script gets its settings by file.
        let script = self.path("bin/virt-v2v");
        let text = fs::read_to_string(&script).unwrap();
        let text = text.replace("$IN_FILTER", filter).replace("$IN_ARGS", faults);
        let own = self.path("bin-run");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("virt-v2v"), text).unwrap();
        fs::set_permissions(own.join("virt-v2v"), fs::Permissions::from_mode(0o755)).unwrap();
        let output = Command::new(pod_binary())
            .args(["convert", "--verbose", "--log-format", "json", "--name", "guest"])
            .args(options)
            .arg(self.path("guest.img"))
            .arg("--to")
            .arg(self.path("out"))
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/bin", own.display()))
            .env("TMPDIR", self.path("tmp"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stdout).into_owned();
        (ran(&output), log)
    }

    fn disk(&self) -> PathBuf {
        self.path("out/guest-sda")
    }
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

#[test]
fn both_copiers_give_the_same_disk() {
    let ours = Bench::new("");
    let (ran, log) = ours.convert("", "", &["--verify"]);
    assert_eq!(ran.code, Some(0), "{log}");
    assert_same(&ours.path("guest.img"), &ours.disk());
    let line = log.lines().find(|l| l.contains("copied and durable")).expect(&log);
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((line["disk"].as_u64(), line["bytes"].as_u64()), (Some(0), Some(30 * MIB)));
    assert_eq!(line["verified_bytes"].as_u64(), Some(30 * MIB));
    assert!(log.contains("/out/guest-sda\""), "it writes to the volume itself: {log}");

    let original = Bench::new("");
    let (ran, log) = original.convert("", "", &["--copier", "nbdcopy"]);
    assert_eq!(ran.code, Some(0), "{log}");
    assert!(!log.contains("copied and durable"), "{log}");
    assert!(same_bytes(&ours.disk(), &original.disk()));
}

#[test]
fn every_other_call_goes_to_the_real_one() {
    let calls = r#"nbdcopy --version >"HERE/version"; nbdcopy --help >"HERE/help"
        nbdcopy "$in" - | sha256sum >"HERE/sum"; nbdcopy "$in" "HERE/second""#;
    let bench = Bench::new(calls);
    let (ran, log) = bench.convert("", "", &[]);
    assert_eq!(ran.code, Some(0), "{log}");
    for option in ["--version", "--help"] {
        let real = Command::new("/usr/bin/nbdcopy").arg(option).output().unwrap().stdout;
        let file = bench.path(option.trim_start_matches('-'));
        assert_eq!(String::from_utf8_lossy(&real), fs::read_to_string(file).unwrap());
    }
    assert_same(&bench.path("guest.img"), &bench.path("second"));
    let sum = Command::new("sha256sum")
        .stdin(fs::File::open(bench.path("guest.img")).unwrap())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&sum.stdout),
        fs::read_to_string(bench.path("sum")).unwrap()
    );
}

#[test]
fn a_source_that_cannot_be_read_fails_the_run_with_its_class() {
    let bench = Bench::new("");
    let (ran, log) = bench.convert("--filter=error", "error-pread-rate=1", &[]);
    assert_eq!(ran.code, Some(35), "{log}");
    assert!(log.contains("copying disk 0") && log.contains("EIO"), "{log}");
    assert!(!bench.path("copied").exists(), "virt-v2v was told");
}

#[test]
fn a_rate_file_that_is_missing_is_named_before_anything_runs() {
    let bench = Bench::new("");
    let (ran, log) = bench.convert("", "", &["--rate-file", "/nonexistent/rate"]);
    assert_eq!(ran.code, Some(64), "{log}");
    assert!(log.contains("/nonexistent/rate"), "{log}");
}

/// What virt-v2v's output has when the ESXi host refuses port 902, the first time only.
const REFUSED_ONCE: &str = r#"if ! [ -e "HERE/refused" ]; then
    touch "HERE/refused"
    echo 'nbdkit: vddk[1]: error: VixDiskLib_Open: [ds] web/web.vmdk: The server refused connection'
    echo 'virt-v2v: error: libguestfs error: guestfs_launch failed, see earlier error messages' >&2; exit 1
fi"#;

#[test]
fn a_source_that_was_away_is_asked_again() {
    let bench = Bench::new(REFUSED_ONCE);
    let (ran, log) = bench.convert("", "", &["--source-retries", "1"]);
    assert_eq!(ran.code, Some(0), "{log}");
    assert_same(&bench.path("guest.img"), &bench.disk());
    assert!(
        log.contains("HOST_NETWORK_CONN_REFUSED") && log.contains("started again in 15 s"),
        "{log}"
    );

    let bench = Bench::new(REFUSED_ONCE);
    let (ran, log) = bench.convert("", "", &["--source-retries", "0"]);
    assert_eq!(ran.code, Some(23), "{log}");
    assert!(log.contains("port 902"), "the remedy is named: {log}");
    assert!(!bench.path("copied").exists(), "nothing was copied");
}

#[test]
fn a_web_server_that_was_away_is_asked_again() {
    let said = "curl[1]: error: problem doing HEAD request to fetch size of URL [https://vc/folder/a]: SSL connect error";
    let vddk = "vddk[1]: error: VixDiskLib_Open: [ds] web/web.vmdk: The server refused connection";
    let bench = Bench::new(&REFUSED_ONCE.replace(vddk, said));
    let (ran, log) = bench.convert("", "", &["--source-retries", "1"]);
    assert_eq!(ran.code, Some(0), "{log}");
    assert!(log.contains("SSL connect error") && log.contains("started again in 15 s"), "{log}");
}

#[test]
fn a_failure_of_the_guest_is_not_tried_again() {
    let bench = Bench::new("echo 'virt-v2v: error: no bootloader detected' >&2; exit 1");
    let (ran, log) = bench.convert("", "", &["--source-retries", "3"]);
    assert_eq!(ran.code, Some(27), "{log}");
    assert!(!log.contains("started again"), "{log}");
}

/// As nbdkit's curl plugin when its server refuses every second connection: the export is refused.
const OPENED_EVERY_SECOND_TIME: &str = r#"kill "$(cat "$dir/in.pid")"; rm -f "$dir/in0"
nbdkit -P "$dir/in2.pid" -U "$dir/in0" -r eval get_size='stat -c %s HERE/guest.img' \
    open='n=$(cat HERE/opens 2>/dev/null || echo 0); echo $((n + 1)) >HERE/opens; [ $((n % 2)) = 1 ] || { echo EIO away >&2; exit 1; }' \
    pread='dd if=HERE/guest.img iflag=skip_bytes,count_bytes skip=$4 count=$3 status=none'
until [ -S "$dir/in0" ]; do sleep 0.05; done"#;

#[test]
fn a_source_that_refuses_to_be_opened_is_opened_again() {
    let bench = Bench::new(OPENED_EVERY_SECOND_TIME);
    let (ran, log) = bench.convert("", "", &[]);
    assert_eq!(ran.code, Some(0), "{log}");
    assert_same(&bench.path("guest.img"), &bench.disk());
    assert!(log.contains("trying again in 1 s"), "{log}");
}
