//! The prober, with libraries that misbehave: each test is named for what once went wrong.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::{PROGRAM, compile, place};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vddk_sidecar::probe::{Connect, Problem, ProblemKind, Report, Settings, Step, probe};
use vddk_sidecar::vix::error::Nature;

const SECRET: &str = "correct horse";

/// A tree whose library does this instead (`INIT=…`).
fn settings(instead: &[&str]) -> (TempDir, Settings) {
    let (dir, libdir, _) = place();
    let defines: Vec<String> = instead.iter().map(|d| format!("-D{d}")).collect();
    let mut arguments = vec!["-w", "-Wl,-soname,libvixDiskLib.so.8"];
    arguments.extend(defines.iter().map(String::as_str));
    let code = include_str!("common/library.c");
    compile(code, &libdir.join("lib64/libvixDiskLib.so.8.0.3"), &arguments);
    let settings = Settings {
        libdir,
        conf: None,
        helper: PathBuf::from(PROGRAM),
        tmp: dir.path().to_owned(),
        timeout: Duration::from_secs(3),
        connect: Some(Connect {
            server: "vcenter.test".to_owned(),
            port: 443,
            nfc_port: None,
            user: "u".to_owned(),
            password: SECRET.to_owned(),
            thumbprint: None,
            vm: "vm-7".to_owned(),
            disk: "[d s] a.vmdk".to_owned(),
            snapshot: None,
            transports: None,
        }),
    };
    (dir, settings)
}

fn run(instead: &[&str]) -> Report {
    let (_dir, settings) = settings(instead);
    let start = Instant::now();
    let report = probe(&settings);
    assert!(start.elapsed() < Duration::from_secs(8), "{instead:?}: {:?}", start.elapsed());
    report
}

fn problem(instead: &[&str]) -> Problem {
    let report = run(instead);
    let text = report.to_text();
    report.problem.unwrap_or_else(|| panic!("no problem: {text}"))
}

fn usable(instead: &[&str]) -> Report {
    let report = run(instead);
    assert_eq!(report.problem, None, "{}", report.to_text());
    report
}

#[test]
fn a_daemon_that_keeps_the_pipes_does_not_hold_us_up() {
    for daemon in ["", "setsid();"] {
        usable(&[&format!("INIT=if(fork()==0){{{daemon}sleep(20);_exit(0);}}")]);
    }
}

#[test]
fn exit_handlers_that_hang_are_ended() {
    let report = usable(&["INIT=atexit((void*)pause)"]);
    assert!(report.warnings.iter().any(|w| w.contains("hangs at its end")), "{report:?}");
}

#[test]
fn a_library_that_closes_everything_and_hangs_is_ended() {
    let found = problem(&["INIT=for(int i=0;i<1024;i++)close(i);pause()"]);
    assert_eq!((found.kind, found.step), (ProblemKind::Hung, Step::Init));
}

#[test]
fn a_log_line_without_standard_error_is_no_crash() {
    usable(&["INIT=close(2);close(1);L(\"hello %s\",\"x\")"]);
}

#[test]
fn what_the_library_writes_to_low_descriptors_is_not_taken_for_our_words() {
    let found = problem(&[r#"INIT=for(int i=0;i<10;i++)write(i,"\"done\"\n",7);exit(0)"#]);
    assert_eq!((found.kind, found.step), (ProblemKind::Crashed, Step::Init));
    assert!(found.message.contains("ended the process"), "{}", found.message);
    let report = usable(&[r#"INIT=for(int i=0;i<10;i++)write(i,"\xff garbage ",10)"#]);
    assert_eq!(report.transport_modes, ["file", "nbdssl", "nbd"]);
}

#[test]
fn parameters_live_until_the_connection_is_closed() {
    usable(&["OPEN=if(strcmp(params->server,\"vcenter.test\"))return 3"]);
}

#[test]
fn upper_bits_of_the_asynchronous_result_are_not_part_of_the_code() {
    usable(&["READ=cb(data,0);return 25000|(7ull<<32)"]);
}

#[test]
fn the_password_is_in_no_report() {
    let report = run(&["CONN=L(\"it is %s\",p->pass);return 1", "TEXT=strdup(params->pass)"]);
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains(SECRET) && !report.to_text().contains(SECRET), "{json}");
    assert!(report.log.iter().any(|l| l.starts_with("it is ")), "{json}");
}

#[test]
fn an_endless_error_text_is_cut() {
    let found = problem(&["CONN=return 1", "TEXT=memset(calloc(1,(64<<20)+1),0xc3,64<<20)"]);
    assert_eq!(found.kind, ProblemKind::CallFailed);
    assert!(found.message.len() < 5000, "{}", found.message.len());
}

#[test]
fn the_word_thumbprint_alone_means_nothing() {
    let found = problem(&["CONN=L(\"thumbprint verified\");return 1"]);
    assert!(!found.thumbprint, "{found:?}");
}

#[test]
fn a_hang_without_a_server_is_not_blamed_on_the_network() {
    let found = problem(&["INIT=raise(SIGSTOP)"]);
    assert_eq!((found.kind, found.nature), (ProblemKind::Hung, Nature::Unknown));
    assert!(!found.advice.contains("network"), "{}", found.advice);
}

#[test]
fn relative_paths_are_ours_and_not_the_childs() {
    let code = "INIT=if(*libdir!='/'||*conf!='/'||access(conf,0))return 4";
    let (_dir, mut settings) = settings(&[code]);
    // Made relative to the folder of the tests, since a test cannot change its own.
    let here = std::env::current_dir().unwrap();
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = |p: &Path| up.join(p.strip_prefix("/").unwrap());
    let conf = settings.libdir.join("conf");
    fs::write(&conf, "tmpDirectory=/tmp\n").unwrap();
    settings.conf = Some(relative(&conf));
    settings.libdir = relative(&settings.libdir);
    let report = probe(&settings);
    assert_eq!(report.problem, None, "{}", report.to_text());
}

#[test]
fn a_missing_temporary_folder_is_not_a_missing_helper() {
    let (dir, mut settings) = settings(&[]);
    settings.tmp = dir.path().join("gone");
    let found = probe(&settings).problem.unwrap();
    assert!(found.message.contains("gone") && found.advice.contains("TMPDIR"), "{found:?}");
}

#[test]
fn an_endless_timeout_is_no_overflow() {
    let (_dir, mut settings) = settings(&[]);
    settings.timeout = Duration::MAX;
    assert_eq!(probe(&settings).problem, None);
}

#[test]
fn a_user_who_may_not_raise_the_limit_of_cores_can_probe() {
    let (dir, mut settings) = settings(&[]);
    let helper = dir.path().join("helper");
    let script = format!(
        "#!/bin/sh\nexec /usr/bin/prlimit --core=0:0 /usr/bin/setpriv --bounding-set -sys_resource --inh-caps -sys_resource {PROGRAM} \"$@\"\n"
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    settings.helper = helper;
    let report = probe(&settings);
    assert_eq!(report.problem, None, "{}", report.to_text());
}

#[test]
fn pipes_folders_and_endless_files_are_no_libraries() {
    let (_dir, settings) = settings(&[]);
    let link = settings.libdir.join("lib64/libvixDiskLib.so.8");
    fs::remove_file(&link).unwrap();
    nix::unistd::mkfifo(&link, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let found = probe(&settings).problem.unwrap();
    assert_eq!(found.kind, ProblemKind::BadFile, "{found:?}");
    fs::remove_file(&link).unwrap();
    fs::File::create(&link).unwrap().set_len(1 << 41).unwrap();
    let found = probe(&settings).problem.unwrap();
    assert!(found.message.contains("too large"), "{found:?}");
    assert!(!found.advice.contains("readable"), "{found:?}");
}
