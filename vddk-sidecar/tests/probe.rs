//! The prober, with the stand-in for VDDK and libraries that are worse.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::{PROGRAM, compile, place};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vddk_sidecar::probe::{Connect, ProblemKind, Report, Settings, Step, probe};
use vddk_sidecar::vix::SYMBOLS;
use vddk_sidecar::vix::error::Nature;

fn settings(libdir: &Path) -> Settings {
    Settings {
        libdir: libdir.to_owned(),
        conf: None,
        helper: PathBuf::from(PROGRAM),
        tmp: std::env::temp_dir(),
        timeout: Duration::from_secs(10),
        connect: None,
    }
}

fn configure(libdir: &Path, json: &str) {
    fs::write(libdir.join("stub.json"), json).unwrap();
}

/// C for these functions, which all do nothing.
fn functions(wanted: impl Fn(&str) -> bool) -> String {
    let code = |s: &&str| format!("int VixDiskLib_{s}(void) {{ return 0; }}");
    SYMBOLS.iter().filter(|s| wanted(s)).map(code).collect::<Vec<_>>().join("\n")
}

fn kind(report: &Report) -> ProblemKind {
    report.problem.as_ref().unwrap_or_else(|| panic!("no problem: {}", report.to_text())).kind
}

#[test]
fn a_good_tree_is_usable() {
    let (_dir, libdir, _) = place();
    configure(&libdir, "{}");
    let report = probe(&settings(&libdir));
    assert_eq!(report.problem, None, "{}", report.to_text());
    assert_eq!(report.transport_modes, ["file", "nbdssl", "nbd"]);
    assert_eq!((report.version.as_deref(), report.major), (Some("8.0.3"), Some(8)));
    assert!(
        report.warnings[0].contains("cp -r"),
        "a tree without a manifest: {:?}",
        report.warnings
    );
    assert!(report.to_text().ends_with("usable\n"));
}

#[test]
fn the_first_sector_comes_through_the_asynchronous_call() {
    for mode in ["callback", "inline"] {
        let (dir, libdir, _) = place();
        fs::create_dir(dir.path().join("ds")).unwrap();
        fs::write(dir.path().join("ds/a-flat.vmdk"), vec![7; 1 << 20]).unwrap();
        let ds = dir.path().join("ds");
        configure(
            &libdir,
            &format!(
                r#"{{"datastores":{{"d s":"{}"}},"user":"u","password":"p w","moref":"vm-7","thumbprint":"AA:BB","async":"{mode}"}}"#,
                ds.display()
            ),
        );
        let mut settings = settings(&libdir);
        settings.connect = Some(connect());
        let report = probe(&settings);
        assert_eq!(report.problem, None, "{}", report.to_text());
        let connected = report.connected.unwrap();
        assert_eq!((connected.size, connected.transport.as_str()), (1 << 20, "nbdssl"));
        settings.connect = Some(Connect { password: "wrong".to_owned(), ..connect() });
        let report = probe(&settings);
        assert_eq!(kind(&report), ProblemKind::CallFailed);
        assert!(!report.to_text().contains("wrong\""), "{}", report.to_text());
        settings.connect = Some(Connect { thumbprint: Some("AA:BC".to_owned()), ..connect() });
        let report = probe(&settings);
        assert!(
            report.problem.as_ref().unwrap().advice.contains("thumbprint"),
            "{}",
            report.to_text()
        );
        settings.connect = Some(Connect { disk: "[d s] none.vmdk".to_owned(), ..connect() });
        let problem = probe(&settings).problem.unwrap();
        assert_eq!((problem.step, problem.code), (Step::Open, Some(4)));
    }
}

fn connect() -> Connect {
    Connect {
        server: "vcenter.test".to_owned(),
        port: 443,
        nfc_port: None,
        user: "u".to_owned(),
        password: "p w".to_owned(),
        thumbprint: Some("AA:BB".to_owned()),
        vm: "vm-7".to_owned(),
        disk: "[d s] a.vmdk".to_owned(),
        snapshot: None,
        transports: Some("file:nbdssl:nbd".to_owned()),
    }
}

#[test]
fn a_crash_is_reported_and_not_inherited() {
    let (_dir, libdir, _) = place();
    configure(&libdir, r#"{"crash":"InitEx"}"#);
    let report = probe(&settings(&libdir));
    let problem = report.problem.as_ref().unwrap();
    assert_eq!((problem.kind, problem.step), (ProblemKind::Crashed, Step::Init));
    assert!(problem.message.contains("VixDiskLib_InitEx (signal: 11"), "{}", problem.message);
    assert!(report.to_text().contains("NOT USABLE"));
}

#[test]
fn a_library_that_hangs_is_ended() {
    let (_dir, libdir, _) = place();
    configure(&libdir, r#"{"hang":"InitEx"}"#);
    let mut settings = settings(&libdir);
    settings.timeout = Duration::from_secs(1);
    let report = probe(&settings);
    assert_eq!(kind(&report), ProblemKind::Hung);
    assert!(
        report
            .problem
            .unwrap()
            .message
            .contains("hangs in VixDiskLib_InitEx: it was killed after 1 s")
    );
}

#[test]
fn an_error_of_init_is_passed_on_with_its_meaning() {
    let (_dir, libdir, _) = place();
    configure(&libdir, r#"{"faults":[{"function":"InitEx","code":16064}]}"#);
    let problem = probe(&settings(&libdir)).problem.unwrap();
    assert_eq!(
        (problem.kind, problem.code, problem.nature),
        (ProblemKind::CallFailed, Some(16064), Nature::Fatal)
    );
    assert!(problem.advice.contains("licence"), "{}", problem.advice);
}

#[test]
fn missing_functions_are_listed() {
    let (_dir, libdir, _) = place();
    let file = libdir.join("lib64/libvixDiskLib.so.8.0.3");
    let code = functions(|s| s != "Wait" && s != "Flush");
    compile(&code, &file, &["-Wl,-soname,libvixDiskLib.so.8"]);
    let report = probe(&settings(&libdir));
    assert_eq!(kind(&report), ProblemKind::MissingSymbols);
    assert_eq!(report.missing_symbols, ["VixDiskLib_Flush", "VixDiskLib_Wait"]);
}

#[test]
fn missing_libraries_are_listed_all_at_once() {
    let (_dir, libdir, _) = place();
    let lib64 = libdir.join("lib64");
    let code = "int x(void) { return 0; }";
    for name in ["libone.so.1", "libtwo.so.2"] {
        compile(code, &lib64.join(name), &[&format!("-Wl,-soname,{name}")]);
    }
    let functions = functions(|_| true);
    let (one, two) = (lib64.join("libone.so.1"), lib64.join("libtwo.so.2"));
    compile(
        &functions,
        &lib64.join("libvixDiskLib.so.8.0.3"),
        &[
            "-Wl,-soname,libvixDiskLib.so.8",
            "-Wl,--no-as-needed",
            one.to_str().unwrap(),
            two.to_str().unwrap(),
        ],
    );
    fs::remove_file(one).unwrap();
    fs::remove_file(two).unwrap();
    let report = probe(&settings(&libdir));
    assert_eq!(kind(&report), ProblemKind::MissingLibraries, "{}", report.to_text());
    assert_eq!(report.missing_libraries, ["libone.so.1", "libtwo.so.2"]);
}

#[test]
fn other_processors_damage_and_absence_are_told_apart() {
    let (dir, libdir, _) = place();
    let file = libdir.join("lib64/libvixDiskLib.so.8.0.3");
    let mut bytes = fs::read(&file).unwrap();
    bytes[18] = 183;
    fs::write(&file, &bytes).unwrap();
    let report = probe(&settings(&libdir));
    assert_eq!(kind(&report), ProblemKind::BadFile);
    assert!(report.problem.unwrap().message.contains("AARCH64"));
    fs::write(&file, "").unwrap();
    assert_eq!(kind(&probe(&settings(&libdir))), ProblemKind::BadFile);
    fs::remove_file(&file).unwrap();
    let report = probe(&settings(&libdir));
    assert_eq!(kind(&report), ProblemKind::NotFound);
    assert!(report.problem.unwrap().message.contains("which is not there"));
    assert_eq!(kind(&probe(&settings(&dir.path().join("none")))), ProblemKind::NotFound);
}

#[test]
fn a_library_that_prints_does_not_disturb() {
    let (_dir, libdir, _) = place();
    let code = SYMBOLS
        .iter()
        .map(|s| match *s {
            "InitEx" => "#include <stdio.h>\nlong VixDiskLib_InitEx(void) { puts(\"{\\\"done\\\":1}\"); fflush(stdout); return 0; }\n".to_owned(),
            "ListTransportModes" => "const char *VixDiskLib_ListTransportModes(void) { return \"nbd\"; }\n".to_owned(),
            s => format!("long VixDiskLib_{s}(void) {{ return 0; }}\n"),
        })
        .collect::<Vec<_>>()
        .concat();
    compile(
        &code,
        &libdir.join("lib64/libvixDiskLib.so.8.0.3"),
        &["-Wl,-soname,libvixDiskLib.so.8"],
    );
    let report = probe(&settings(&libdir));
    assert_eq!(report.problem, None, "{}", report.to_text());
    assert_eq!(report.transport_modes, ["nbd"]);
}

#[test]
fn a_missing_helper_and_a_bad_configuration_file_are_named() {
    let (dir, libdir, _) = place();
    let mut settings = settings(&libdir);
    let conf = dir.path().join("conf");
    fs::write(&conf, "vixDiskLib.nfcAio.Session.BufSizeIn64K=16\n").unwrap();
    settings.conf = Some(conf);
    settings.helper = dir.path().join("no-helper");
    let report = probe(&settings);
    assert_eq!(kind(&report), ProblemKind::NoHelper);
    assert!(report.conf_findings[0].contains("BufSizeIn64KB"));
}
