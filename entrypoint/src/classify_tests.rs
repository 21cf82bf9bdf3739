use super::*;
use proptest::prelude::*;

fn class(errors: &[&str], lines: &[&str]) -> Class {
    let mut evidence = Evidence::default();
    for e in errors {
        evidence.error(e);
    }
    for l in lines {
        evidence.line("virt-v2v", l);
    }
    evidence.failure("virt-v2v", "exit status 1").class
}

#[test]
fn known_errors_have_their_class() {
    let known = [
        ("vcenter: incorrect username or password", Class::Auth),
        (
            "insufficient free space in the conversion server temporary directory /var/tmp (97 MB).",
            Class::NoSpace,
        ),
        ("source domain is running or paused", Class::SourceBusy),
        ("no bootloader detected", Class::NoBootLoader),
        (
            "inspection could not detect the source guest (or physical machine) operating system.",
            Class::NoOperatingSystem,
        ),
        (
            "virt-v2v is unable to convert this guest type (linux/distro=arch)",
            Class::UnsupportedGuest,
        ),
        (
            "exception: libvirt: VIR_ERR_NO_DOMAIN: VIR_FROM_ESX: Domain not found: No domain with name 'x'",
            Class::NotFound,
        ),
        (
            "unable to mount the disk image for writing. This has probably happened because Windows Hibernation or Fast Startup is being used in this guest.",
            Class::GuestFilesystem,
        ),
        ("Could not find key to open LUKS encrypted /dev/sda2.", Class::Encrypted),
        (
            "-i ova: corrupt OVA: checksum of disk d.vmdk does not match manifest (actual = 0, expected = 1)",
            Class::Integrity,
        ),
        ("some new trouble", Class::Conversion),
    ];
    for (text, want) in known {
        assert_eq!(class(&[text], &[]), want, "{text}");
    }
}

#[test]
fn a_generic_error_is_explained_by_the_helper() {
    let generic = ["nbdkit did not start up.  See previous debugging messages for problems."];
    let curl = "nbdkit: curl[1]: error: problem doing HEAD request to fetch size of URL [https://h/]: SSL peer certificate or SSH remote key was not OK: SSL certificate problem: unable to get local issuer certificate";
    assert_eq!(
        class(&generic, &["nbdkit: debug: error: no space left on device", curl]),
        Class::Trust
    );
    assert_eq!(
        class(
            &generic,
            &["nbdkit: error: /opt/x/lib64/libvixDiskLib.so.8: cannot open shared object file"]
        ),
        Class::Vddk
    );
    assert_eq!(
        class(
            &["nbdcopy exited with non-zero error code 1"],
            &["nbdcopy: write at offset 1: No space left on device (error)"]
        ),
        Class::NoSpace
    );
    assert_eq!(
        class(
            &["nbdcopy command failed, see earlier error messages"],
            &["nbdcopy: error: destination size (1) is smaller than source size (2)"]
        ),
        Class::Volume
    );
    assert_eq!(
        class(&[], &["nbdkit: vddk[1]: error: VixDiskLib_ConnectEx: thumbprint does not match"]),
        Class::Trust
    );
}

#[test]
fn the_own_error_beats_the_noise_of_a_verbose_log() {
    let noise = ["libguestfs: error: mount: wrong fs type", "nbdkit: error: connection refused"];
    assert_eq!(class(&["no bootloader detected"], &noise), Class::NoBootLoader);
}

#[test]
fn a_server_that_lost_its_client_is_not_the_cause() {
    let lines = [
        "nbdcopy: write at offset 31195136 failed: No space left on device",
        "nbdkit: file.10: error: write reply: NBD_CMD_WRITE: Broken pipe",
        "nbdkit: file.4: error: read request: Connection reset by peer",
        "error: read data: NBD_CMD_WRITE: Connection reset by peer",
    ];
    let own = ["nbdcopy command failed, see earlier error messages"];
    assert_eq!(class(&own, &lines), Class::NoSpace);
}

#[test]
fn the_human_error_line_serves_without_machine_messages() {
    assert_eq!(class(&[], &["virt-v2v: error: no bootloader detected"]), Class::NoBootLoader);
}

#[test]
fn passwords_in_urls_are_not_repeated() {
    assert_eq!(
        redact_urls("at esx://root:se@cret@h/x and http://h/"),
        "at esx://root:***@h/x and http://h/"
    );
}

proptest! {
    #[test]
    fn any_text_is_classified(errors in prop::collection::vec("\\PC{0,60}", 0..3), lines in prop::collection::vec("(nbdkit: )?\\PC{0,60}", 0..9)) {
        let e: Vec<&str> = errors.iter().map(String::as_str).collect();
        let l: Vec<&str> = lines.iter().map(String::as_str).collect();
        class(&e, &l);
    }

    #[test]
    fn redaction_never_panics_and_keeps_plain_text(text in "\\PC{0,60}(://\\PC{0,30})?") {
        let out = redact_urls(&text);
        if !text.contains("://") {
            prop_assert_eq!(out, text);
        }
    }
}

#[test]
fn what_libvirt_and_virt_v2v_say_about_a_vcenter() {
    let libvirt = "exception: libvirt: VIR_ERR_INTERNAL_ERROR: VIR_FROM_ESX: internal error: ";
    for (text, expected) in [
        (
            "HTTP response code 500 for call to 'Login'. Fault: ServerFaultCode - Cannot complete login due to an incorrect user name or password.",
            Class::Auth,
        ),
        (
            "Could not find datacenter specified in '/Nope/Cluster/esx1.example.com'",
            Class::NotFound,
        ),
        ("Could not find compute resource specified in '/DC/Nope/esx1'", Class::NotFound),
        ("Could not find host system specified in '/DC/Cluster/nope'", Class::NotFound),
        ("Path '/DC/Cluster' does not specify a host system", Class::Config),
        ("Expecting '127.0.0.1' to be a vCenter/VPX host but found a ESX(i) host", Class::Config),
        (
            "curl_easy_perform() returned an error: SSL peer certificate or SSH remote key was not OK (60) : server verification failed: certificate signer not trusted. (CAfile: /etc/ssl/certs/ca-certificates.crt CRLfile: none)",
            Class::Trust,
        ),
        (
            "curl_easy_perform() returned an error: Could not connect to server (7) : Failed to connect to 127.0.0.1 port 9 after 0 ms: Could not connect to server",
            Class::Network,
        ),
        (
            "curl_easy_perform() returned an error: SSL connect error (35) : GnuTLS, handshake failed: The TLS connection was non-properly terminated.",
            Class::Network,
        ),
        (
            "IP address lookup for host 'nohost.invalid' failed: Name or service not known",
            Class::Network,
        ),
        (
            "HTTP response code 404 for download from 'https://h/folder/web%2Fweb.vmx?dcPath=DC&dsName=ds'",
            Class::NotFound,
        ),
    ] {
        assert_eq!(class(&[&format!("{libvirt}{text}")], &[]), expected, "{text}");
    }
    let own = [
        (
            "vcenter: URL not found: https://h/folder/web/web-flat.vmdk?dcPath=DC&dsName=ds",
            Class::NotFound,
        ),
        (
            "libvirt domain \u{2018}on\u{2019} is running or paused.  It must be shut down in order to perform virt-v2v conversion",
            Class::SourceBusy,
        ),
    ];
    for (text, expected) in own {
        assert_eq!(class(&[text], &[]), expected, "{text}");
    }
}
