use super::*;
use proptest::prelude::*;
use std::process::Command;

fn server() -> Server {
    Server {
        host: "vc.example.com".into(),
        port: 443,
        user: "u@d".into(),
        thumbprint: Some("AA:BB".into()),
        insecure: false,
        libdir: "/vddk".into(),
        vddk_transports: None,
        vddk_config: None,
        cookie_renew: None,
    }
}

fn files() -> Files {
    Files { folder: "/run/x".into() }
}

fn vm() -> Vm {
    let disks = vec!["[ds 1] web/a b.vmdk".to_owned()];
    Vm { uuid: "u".into(), moref: "vm-7".into(), datacenter: "Folder/DC 1".into(), disks }
}

#[test]
fn https_reads_the_flat_file_by_its_quoted_name() {
    let mut server = server();
    let url = |server: &Server| folder_url(server, "Folder/DC 1", "[ds+1] web/ä b.vmdk").unwrap();
    let path = "/folder/web/%C3%A4%20b-flat.vmdk?dcPath=Folder%2FDC%201&dsName=ds%2B1";
    assert_eq!(url(&server), format!("https://vc.example.com{path}"));
    server.port = 8443;
    assert_eq!(url(&server), format!("https://vc.example.com:8443{path}"));
    let line =
        nbdkit(Way::Https, &server, &vm(), "[d] a.vmdk", (&files(), 0), Use::Conversion).unwrap();
    assert!(line.contains(&"cookie-script=sh /run/x/cookie0".to_owned()), "{line:?}");
    assert!(!line.contains(&"sslverify=false".to_owned()), "{line:?}");
    server.insecure = true;
    let line =
        nbdkit(Way::Https, &server, &vm(), "[d] a.vmdk", (&files(), 0), Use::Conversion).unwrap();
    assert!(line.contains(&"sslverify=false".to_owned()), "{line:?}");
    assert!(cookie_script(&server, &files(), "https://x").contains(" --insecure "));
    assert_eq!(nbdkit(Way::Https, &server, &vm(), "no disk", (&files(), 0), Use::Conversion), None);
}

#[test]
fn vddk_gets_the_password_by_file() {
    let mut server = server();
    server.port = 8443;
    let line =
        nbdkit(Way::Vddk, &server, &vm(), "[d] a.vmdk", (&files(), 1), Use::Conversion).unwrap();
    for word in
        ["vm=moref=vm-7", "file=[d] a.vmdk", "user=u@d", "port=8443", "password=+/run/x/password"]
    {
        assert!(line.contains(&word.to_owned()), "{word}: {line:?}");
    }
}

#[test]
fn the_login_is_quoted_for_curl() {
    assert_eq!(curl_options("u", "a\"b\\c"), "user = \"u:a\\\"b\\\\c\"\n");
}

#[test]
fn for_a_copy_nothing_is_kept_in_a_layer_and_the_disk_is_only_read() {
    let server = Server {
        cookie_renew: Some(Duration::from_secs(10)),
        vddk_config: Some("/c".into()),
        ..server()
    };
    for (way, more) in [(Way::Https, "cookie-script-renew=10"), (Way::Vddk, "config=/c")] {
        let of = |used| nbdkit(way, &server, &vm(), "[d] a.vmdk", (&files(), 0), used).unwrap();
        let (copy, conversion) = (of(Use::Copy), of(Use::Conversion));
        assert!(conversion.iter().any(|w| w == "cow") && !copy.iter().any(|w| w.contains("cow")));
        assert!(copy.contains(&"--readonly".to_owned()) && copy.contains(&more.to_owned()));
    }
}

#[test]
fn an_image_is_served_in_the_format_that_was_decided() {
    let line = qemu_nbd(Path::new("/s/-x.vhdx"), ImageFormat::Vhdx, &files(), 2);
    assert!(line.contains(&"--format=vhdx".to_owned()) && line[0] == "--read-only", "{line:?}");
    assert_eq!(line[line.len() - 2..], ["--", "/s/-x.vhdx"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// The shell reads back what was quoted.
    #[test]
    fn a_quoted_word_is_one_word(word in "[^\\x00]{0,12}") {
        let script = format!("printf %s {}", quoted(&word));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        prop_assert_eq!(String::from_utf8_lossy(&output.stdout), word);
    }

    #[test]
    fn a_url_has_no_character_with_another_meaning(datastore in "[^\\]\\x00-\\x1f]{1,9}", path in "\\PC{1,9}", dc in "\\PC{1,9}") {
        let url = folder_url(&server(), &dc, &format!("[{datastore}] {path}.vmdk"));
        if let Some(url) = url {
            let url = url::Url::parse(&url).unwrap();
            let pairs: Vec<_> = url.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
            prop_assert_eq!(pairs, [("dcPath".to_owned(), dc), ("dsName".to_owned(), datastore)]);
            prop_assert_eq!(url.fragment(), None);
        }
    }
}
