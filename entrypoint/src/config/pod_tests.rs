use super::*;
use crate::vsphere::access::TrustMode;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn parse(env: &[(&str, &str)]) -> Result<PodConfig, ConfigError> {
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    PodConfig::parse(&Values::new(&[], env).unwrap())
}

const VSPHERE: [(&str, &str); 3] =
    [("V2V_source", "vSphere"), ("V2V_libvirtURL", "vpx://u@h/DC/esx"), ("V2V_vmName", "vm")];

#[test]
fn defaults_are_the_contracts() {
    let c = parse(&VSPHERE).unwrap();
    assert_eq!(c.output, OutputMode::Kubevirt);
    assert!(c.local_migration && c.notes.is_empty());
    assert_eq!(c.guest.root, "first");
    assert_eq!(c.runtime.ports, Ports { metrics: 2112, live: 2113, result: 8080 });
    assert_eq!(c.link_name(), "vm");
}

#[test]
fn missing_variables_are_named() {
    let e = parse(&VSPHERE[..2]).unwrap_err();
    assert_eq!(e, ConfigError::Missing { variable: "V2V_vmName", source_kind: "vSphere" });
    assert!(!e.is_usage());
    assert_eq!(parse(&[("V2V_source", "vsphere")]), Err(ConfigError::BadSource("vsphere".into())));
    assert!(matches!(
        parse(&[("V2V_source", "ova")]),
        Err(ConfigError::Missing { variable: "V2V_diskPath", .. })
    ));
}

#[test]
fn an_ova_is_a_path_or_a_web_address() {
    let ova = |place: &str, verify: &str| {
        let env = [("V2V_source", "ova"), ("V2V_vmName", "web"), ("V2V_ovaVerify", verify)];
        parse(&[&env[..], &[("V2V_diskPath", place), ("V2V_trust", "ca")]].concat())
    };
    let Job::Convert(Source::Ova(wanted)) = ova("https://host/web.ova", "always").unwrap().job
    else {
        panic!("no OVA")
    };
    assert_eq!((wanted.place.transport(), wanted.trust), ("https", TrustMode::Ca));
    assert!(ova("/ova/web.ova", "").is_ok());
    for (place, verify) in [("nfs://host/x", ""), ("https://u:hunter2@h/x", ""), ("/x", "maybe")] {
        let e = ova(place, verify).unwrap_err().to_string();
        assert!(!e.contains("hunter2") && e.contains("V2V_"), "{e}");
    }
}

#[test]
fn an_empty_environment_is_told_what_to_set() {
    let error = parse(&[]).unwrap_err();
    assert!(error.to_string().contains("V2V_source is not set") && !error.is_usage());
}

#[test]
fn in_place_skips_validation() {
    let c = parse(&[("V2V_inPlace", "T"), ("V2V_overlayEnabled", "false")]).unwrap();
    assert_eq!(c.job, Job::InPlace { vsphere: None, overlay: false });
}

#[test]
fn forgiven_mistakes_are_noted() {
    let mut env = VSPHERE.to_vec();
    env.extend([
        ("LOCAL_MIGRATION", "yes"),
        ("V2V_memSize", "lots"),
        ("V2V_smp", "0"),
        ("V2V_extra_args", "--parallel 4"),
    ]);
    let c = parse(&env).unwrap();
    assert!(
        c.local_migration
            && c.guest.memsize_mb.is_none()
            && c.guest.smp.is_none()
            && c.guest.extra.is_empty()
    );
    assert_eq!(c.notes.len(), 3, "{:?}", c.notes);
}

#[test]
fn remote_disks_are_sorted_by_number() {
    let mut env = VSPHERE.to_vec();
    env.extend([
        ("V2V_remoteInspection", "true"),
        ("V2V_remoteInspectDisk_10", "c"),
        ("V2V_remoteInspectDisk_2", "b"),
        ("V2V_remoteInspectDisk_x", "a"),
    ]);
    let Job::RemoteInspect { disks, .. } = parse(&env).unwrap().job else { panic!("not remote") };
    assert_eq!(disks, ["a", "b", "c"]);
}

#[test]
fn hyperv_paths_are_trimmed() {
    let env =
        [("V2V_source", "hyperv"), ("V2V_vmName", "w"), ("V2V_diskPath", " /a.vhdx , /b c.vhdx,")];
    let Job::Convert(Source::HyperV(paths)) = parse(&env).unwrap().job else {
        panic!("not hyperv")
    };
    assert_eq!(paths, [PathBuf::from("/a.vhdx"), PathBuf::from("/b c.vhdx")]);
    let blank = [("V2V_source", "hyperv"), ("V2V_vmName", "w"), ("V2V_diskPath", " , ")];
    assert_eq!(parse(&blank), Err(ConfigError::NoDisks { variable: "V2V_diskPath" }));
}

#[test]
fn bad_settings_of_ours_are_errors() {
    for (name, value) in [
        ("V2V_output", "qemu"),
        ("V2V_livePort", "70000"),
        ("V2V_resultPort", "0"),
        ("V2V_logFormat", "xml"),
        ("V2V_preflight", "no"),
        ("V2V_copier", "dd"),
        ("V2V_rate", "fast"),
        ("V2V_verifyCopy", "maybe"),
    ] {
        let mut env = VSPHERE.to_vec();
        env.push((name, value));
        assert!(
            matches!(parse(&env), Err(ConfigError::BadValue { variable, .. }) if variable == name)
        );
    }
}

proptest! {
    #[test]
    fn any_environment_parses_or_errs(pairs in prop::collection::vec((prop::sample::select(
        super::super::settings::SETTINGS.iter().map(|s| s.env).filter(|e| !e.is_empty()).collect::<Vec<_>>()
    ), "\\PC{0,20}"), 0..8)) {
        let env: BTreeMap<String, String> = pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let _ = PodConfig::parse(&Values::new(&[], env).unwrap());
    }
}

#[test]
fn a_session_is_renewed_after_a_number_of_seconds() {
    let with = |value| {
        let config = parse(&[&VSPHERE[..], &[("V2V_cookieRenew", value)]].concat());
        config.map(|c| c.job.vsphere().unwrap().cookie_renew.map(|d| d.as_secs()))
    };
    assert_eq!(with("600"), Ok(Some(600)));
    assert_eq!(with(""), Ok(None));
    for bad in ["0", "-1", "10m"] {
        let error = with(bad).unwrap_err().to_string();
        assert!(error.contains("V2V_cookieRenew") && error.contains(bad), "{error}");
    }
}
