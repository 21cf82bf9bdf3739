//! The library loaded by a program that is not nbdkit.

#![allow(unsafe_code)] // the C interface of the library under test
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows these in `#[test]` functions only

mod api;

use api::{Api, Handle, Login, Slot, in_fork, lines, logged};
use std::os::unix::fs::FileExt;
use std::ptr::{null_mut, without_provenance_mut};
use std::time::{Duration, Instant};

const SETTINGS: &str = r#"{"datastores": {"ds": "."}, "user": "root", "password": "pw", "thumbprint": "aa", "moref": "vm-1"}"#;

fn pattern(sectors: usize) -> Vec<u8> {
    (0..sectors * 512).map(|at| u8::try_from((at / 512 * 7 + at) % 251).unwrap()).collect()
}

#[test]
fn the_functions_of_nbdkit_are_there() {
    let api = Api::load("{}");
    for name in [
        "InitEx",
        "Exit",
        "ListTransportModes",
        "GetErrorText",
        "FreeErrorText",
        "FreeConnectParams",
        "ConnectEx",
        "Open",
        "GetTransportMode",
        "Close",
        "Disconnect",
        "GetInfo",
        "FreeInfo",
        "Read",
        "Write",
        "Create",
        "Flush",
        "ReadAsync",
        "WriteAsync",
        "Wait",
        "QueryAllocatedBlocks",
        "FreeBlockList",
        "AllocateConnectParams",
    ] {
        api.symbol(&format!("VixDiskLib_{name}"));
    }
}

#[test]
fn nothing_works_before_init() {
    let api = Api::load("{}");
    assert_eq!(api.connect(&Login::default()), Err(16001));
    assert_eq!(api.read(null_mut(), 0, 1), Err(16001));
    assert_eq!(api.call("Close", null_mut()), 16001);
    assert_eq!(api.error_text(16001), "The disk library has not been initialized");
}

#[test]
fn bad_settings_are_told() {
    let api = Api::load(r#"{"datastore": {}}"#);
    assert_eq!(api.init(), 1);
    assert!(logged("stub.json: unknown field `datastore`"), "{:?}", lines());
}

#[test]
fn init_happens_once() {
    let api = Api::start(SETTINGS);
    assert_eq!(api.init(), 1);
    assert!(logged("InitEx was called twice"));
}

#[test]
fn a_disk_is_read() {
    let api = Api::start(SETTINGS);
    let data = pattern(1000);
    api.file("a-flat.vmdk", &data);
    let connection = api.connect(&Login::default()).unwrap();
    let disk = api.open(connection, "[ds] a.vmdk").unwrap();
    assert_eq!(api.transport(disk), "nbdssl");
    let sizes =
        api.info(disk, |info| (info.capacity, info.links, info.logical, info.uuid.is_null()));
    assert_eq!(sizes, Ok((1000, 1, 512, true)));
    assert_eq!(api.read(disk, 0, 1000).as_deref(), Ok(data.as_slice()));
    assert_eq!(api.read(disk, 999, 1).as_deref(), Ok(&data[999 * 512..]));
    assert_eq!(api.read(disk, 999, 2), Err(16007));
    assert_eq!(api.read(disk, u64::MAX, 1), Err(16007));
    assert_eq!(api.call("Close", disk), 0);
    assert_eq!(api.call("Close", disk), 1000);
    assert_eq!(api.read(disk, 0, 1), Err(1000));
    assert_eq!(api.call("Disconnect", connection), 0);
    assert_eq!(api.call("Disconnect", connection), 16054);
    assert_eq!(api.open(connection, "[ds] a.vmdk"), Err(16054));
    let foreign: Handle = without_provenance_mut(0xDEAD_0000);
    assert_eq!(api.call("Wait", foreign), 1000);
}

#[test]
fn several_reads_are_under_way_at_once() {
    let api = Api::start(r#"{"datastores": {"ds": "."}, "latency_ms": 300, "threads": 8}"#);
    let data = pattern(64);
    api.file("a.vmdk", &data);
    let disk = api.disk(&Login::default(), "[ds] a.vmdk").unwrap();
    let mut slots: Vec<Slot> = (0..8).map(|_| Slot::new(8)).collect();
    let begin = Instant::now();
    for (index, slot) in (0..).zip(&mut slots) {
        assert_eq!(api.read_async(disk, index * 8, slot), 25000);
    }
    assert_eq!(api.call("Wait", disk), 0);
    let took = begin.elapsed();
    // One after the other they would take 2.4 s.
    assert!((Duration::from_millis(300)..Duration::from_millis(1500)).contains(&took), "{took:?}");
    for (chunk, slot) in data.chunks(8 * 512).zip(&slots) {
        assert_eq!(slot.result(), Some((0, false)));
        assert_eq!(slot.buffer, chunk);
    }
    assert_eq!(api.read(disk, 0, 1), Err(26000));
}

#[test]
fn inline_completions_come_in_the_call() {
    let api = Api::start(r#"{"datastores": {"ds": "."}, "async": "inline"}"#);
    api.file("a.vmdk", &pattern(8));
    let disk = api.disk(&Login::default(), "[ds] a.vmdk").unwrap();
    let mut slot = Slot::new(8);
    assert_eq!(api.read_async(disk, 0, &mut slot), 25000);
    assert_eq!(slot.result(), Some((0, true)));
    assert_eq!(slot.buffer, pattern(8));
}

#[test]
fn faults_come_in_the_completion_or_in_the_call() {
    let api = Api::start(
        r#"{"datastores": {"ds": "."}, "faults": [
            {"function": "ReadAsync", "code": 2, "min_bytes": 4096},
            {"function": "ReadAsync", "code": 14011, "at": "call", "after": 2, "count": 1}]}"#,
    );
    api.file("a.vmdk", &pattern(64));
    let disk = api.disk(&Login::default(), "[ds] a.vmdk").unwrap();
    let (mut small, mut big, mut third) = (Slot::new(7), Slot::new(8), Slot::new(7));
    assert_eq!(api.read_async(disk, 0, &mut small), 25000);
    assert_eq!(api.read_async(disk, 0, &mut big), 25000);
    assert_eq!(api.read_async(disk, 0, &mut third), 14011);
    assert_eq!(api.call("Wait", disk), 0);
    assert_eq!(
        (small.result(), big.result(), third.result()),
        (Some((0, false)), Some((2, false)), None)
    );
    assert!(logged(
        "received NFC error 5 from server: Failed to allocate the requested 4120 bytes"
    ));
}

#[test]
fn writing_needs_a_handle_for_it() {
    let api = Api::start(SETTINGS);
    let path = api.file("a.vmdk", &pattern(16));
    let reader = api.disk(&Login::default(), "[ds] a.vmdk").unwrap();
    assert_eq!(api.write(reader, 0, &[7; 512]), 11);
    let login = Login { read_only: false, ..Login::default() };
    let writer = api.disk(&login, "[ds] a.vmdk").unwrap();
    assert_eq!(api.write(writer, 3, &[7; 1024]), 0);
    assert_eq!(api.call("Flush", writer), 0);
    assert_eq!(std::fs::read(path).unwrap()[3 * 512..5 * 512], [7; 1024]);
}

#[test]
fn blocks_come_from_the_file() {
    let api = Api::start(SETTINGS);
    let file = std::fs::File::create(api.dir.path().join("a.vmdk")).unwrap();
    // Not a whole number of chunks.
    file.set_len(1024 * 1024 + 512 * 100).unwrap();
    file.write_all_at(&[1; 100], 300 * 1024).unwrap();
    let disk = api.disk(&Login::default(), "[ds] a.vmdk").unwrap();
    assert_eq!(api.blocks(disk, 0, 2048), Ok(vec![(512, 128)]));
    assert_eq!(api.blocks(disk, 640, 1408), Ok(vec![]));
    assert_eq!(api.blocks(disk, 0, 2148), Err(3));
    assert_eq!(api.blocks(disk, 2048, 128), Err(16007));
}

#[test]
fn names_do_not_become_formats() {
    let api = Api::start(SETTINGS);
    assert_eq!(api.disk(&Login::default(), "[ds] 100%s%n.vmdk"), Err(4));
    let line = "VixDiskLib: VixDiskLib_Open: Cannot open disk [ds] 100%s%n.vmdk. Error 4 (A file was not found) at 7504.";
    assert!(logged(line), "{:?}", lines());
}

#[test]
fn each_wrong_thing_has_its_code_and_the_password_is_not_logged() {
    let api = Api::start(SETTINGS);
    api.file("a.vmdk", &pattern(1));
    let open = |login: Login<'_>| api.disk(&login, "[ds] a.vmdk").err();
    assert_eq!(open(Login::default()), None);
    assert_eq!(open(Login { thumbprint: "AB", ..Login::default() }), Some(1));
    assert!(logged("Failed to verify SSL certificate: actual thumbprint=aa expected=AB"));
    assert_eq!(open(Login { password: "n0t-this-one", ..Login::default() }), Some(3014));
    assert_eq!(open(Login { vm: "moref=vm-2", ..Login::default() }), Some(4000));
    assert_eq!(open(Login { user: None, ..Login::default() }), Some(3));
    assert!(logged("userName NULL"));
    assert!(!logged("n0t-this-one"));
}

#[test]
fn sessions_end_and_a_new_one_works() {
    let api = Api::start(r#"{"datastores": {"ds": "."}, "session_expires_after_ms": 400}"#);
    api.file("a.vmdk", &pattern(8));
    let disk = api.disk(&Login::default(), "[ds] a.vmdk").unwrap();
    assert!(api.read(disk, 0, 8).is_ok());
    let begin = Instant::now();
    while api.read(disk, 0, 8).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(api.read(disk, 0, 8), Err(36));
    assert_eq!(api.info(disk, |_| ()), Err(36));
    assert_eq!(api.call("Close", disk), 0);
    let disk = api.disk(&Login::default(), "[ds] a.vmdk").unwrap();
    assert!(api.read(disk, 0, 8).is_ok());
}

#[test]
fn a_fork_after_init_is_found_out() {
    let api = Api::start(SETTINGS);
    let status = in_fork(|| {
        let refused =
            api.connect(&Login::default()) == Err(1) && logged("did not survive the fork");
        i32::from(!refused)
    });
    assert_eq!(status, 0);
}

#[test]
fn a_crash_is_a_crash() {
    let api = Api::start(r#"{"crash": "ConnectEx"}"#);
    let status = in_fork(|| {
        let _ = api.connect(&Login::default());
        0
    });
    assert_eq!(status & 0x7F, libc::SIGSEGV);
}

#[test]
fn bandwidth_is_limited_for_a_handle_and_for_all() {
    let api = Api::start(
        r#"{"datastores": {"ds": "."}, "bandwidth_handle": 1048576, "bandwidth_total": 1048576}"#,
    );
    api.file("a.vmdk", &pattern(1024));
    let disks: Vec<Handle> =
        (0..2).map(|_| api.disk(&Login::default(), "[ds] a.vmdk").unwrap()).collect();
    let mut slots = [Slot::new(1024), Slot::new(1024)];
    let begin = Instant::now();
    for (disk, slot) in disks.iter().zip(&mut slots) {
        assert_eq!(api.read_async(*disk, 0, slot), 25000);
    }
    for disk in disks {
        assert_eq!(api.call("Wait", disk), 0);
    }
    // Two times half a second's worth, less the burst.
    assert!(begin.elapsed() >= Duration::from_millis(850), "{:?}", begin.elapsed());
}
