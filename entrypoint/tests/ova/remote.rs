//! OVAs on a web server.

use crate::lab::{CAPACITY, Lab};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use v2v_pod::failure::Class;
use v2v_pod::ova::{Login, Verify, Wanted};
use v2v_pod::vsphere::access::TrustMode;
use v2v_pod_tests::ova::{OvfDisk, PASSWORD, USER, Web, manifest, must, tar};

/// Whom the server trusts, and by whom it is trusted.
fn login(lab: &Lab, web: &Web) -> Login {
    let file = lab.at("password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    Login { user: Some(USER.to_owned()), password_file: Some(file), ca: Some(web.ca()) }
}

/// Whether a process has this on its command line or in its environment.
fn in_a_process(text: &str) -> bool {
    let holds =
        |file: &Path| fs::read(file).is_ok_and(|b| String::from_utf8_lossy(&b).contains(text));
    let mut processes = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
    processes.any(|p| holds(&p.join("cmdline")) || holds(&p.join("environ")))
}

#[tokio::test]
async fn an_archive_is_read_in_place() {
    let (lab, web) = (Lab::new(), Web::anywhere());
    manifest(&lab.files(), "web.mf", "SHA256", &["web.ovf", "disk.vmdk"]);
    // More than the disk needs: it must stay where it is.
    fs::write(lab.files().join("other.iso"), vec![1; 30 << 20]).unwrap();
    for form in ["ustar", "gnu", "pax"] {
        let name = format!("a b {form}.ova");
        tar(
            &lab.files(),
            form,
            &web.dir().join(&name),
            &["web.ovf", "web.mf", "other.iso", "disk.vmdk"],
        );
        let url = web.url(&format!("private/{name}"));
        let opened = lab.open_as(&url, Verify::Auto, &login(&lab, &web), None).await;
        let text = opened.report.to_text();
        assert!(
            text.contains("1 checksum(s)") && text.contains("read in place: disk.vmdk"),
            "{text}"
        );
        let source = opened.good();
        assert_eq!((source.transport, source.trust), ("https", "ca"));
        let asked = web.sent(form);
        assert!(asked < 3 << 20, "{form}: {asked} bytes for looking at it");
        // nbdkit runs, and knows the password.
        assert!(!in_a_process(PASSWORD));
        lab.is_same(&source);
        let read = web.sent(form);
        assert!(read < 12 << 20, "{form}: {read} bytes for a disk of 4 MiB");
    }
}

#[tokio::test]
async fn other_forms_are_brought_here() {
    let (lab, web) = (Lab::new(), Web::anywhere());
    let (files, dir) = (lab.files(), web.dir());
    manifest(&files, "web.mf", "SHA1", &["web.ovf", "disk.vmdk"]);
    tar(&files, "ustar", &dir.join("web.ova"), &["web.ovf", "web.mf", "disk.vmdk"]);
    must(Command::new("gzip").arg(dir.join("web.ova")));
    let login = login(&lab, &web);
    let source = lab.open_as(web.url("web.ova.gz"), Verify::Always, &login, None).await.good();
    assert_eq!(source.sizes, [CAPACITY]);
    // A description with the files beside it.
    for name in ["web.ovf", "web.mf", "disk.vmdk"] {
        fs::copy(files.join(name), dir.join(name)).unwrap();
    }
    let source = lab.open_as(web.url("private/web.ovf"), Verify::Always, &login, None).await.good();
    lab.is_same(&source);
    must(Command::new("gzip").arg("-k").arg(dir.join("disk.vmdk")));
    let split = ["-b", "1000000", "-d", "-a", "9", "disk.vmdk.gz", "disk.vmdk.gz."];
    must(Command::new("split").args(split).current_dir(&dir));
    fs::remove_file(dir.join("disk.vmdk.gz")).unwrap();
    let attributes = r#"ovf:compression="gzip" ovf:chunkSize="1000000""#;
    let disk = OvfDisk { attributes, ..OvfDisk::new("disk.vmdk.gz", CAPACITY) };
    fs::write(dir.join("pieces.ovf"), v2v_pod_tests::ova::ovf("web", &[disk])).unwrap();
    let source = lab.open_as(web.url("pieces.ovf"), Verify::Auto, &login, None).await.good();
    lab.is_same(&source);
}

#[tokio::test]
async fn what_goes_wrong_with_a_server_has_its_class() {
    let (lab, web) = (Lab::new(), Web::anywhere());
    // More than the buffers between server and client hold.
    fs::write(lab.files().join("other.iso"), vec![1; 64 << 20]).unwrap();
    let members = ["web.ovf", "disk.vmdk", "other.iso"];
    tar(&lab.files(), "ustar", &web.dir().join("web.ova"), &members);
    let login = login(&lab, &web);
    let failure = async |url: String, login: &Login| {
        let failure = lab.open_as(url, Verify::Auto, login, None).await.failure();
        assert!(!failure.message.contains("hunter2"), "{failure}");
        (failure.class, failure.message)
    };
    let (class, message) = failure(web.url("whole/web.ova"), &login).await;
    assert!(class == Class::Config && message.contains("does not serve parts"), "{message}");
    assert!(web.sent("whole") < 32 << 20, "it was not downloaded for that");
    assert_eq!(failure(web.url("no.ova"), &login).await.0, Class::NotFound);
    assert_eq!(
        failure(web.url("private/web.ova"), &Login { user: None, ..login.clone() }).await.0,
        Class::Auth
    );
    fs::write(lab.at("password"), "wrong\n").unwrap();
    assert_eq!(failure(web.url("private/web.ova"), &login).await.0, Class::Auth);
    assert_eq!(failure(web.url("web.ova"), &Login::default()).await.0, Class::Trust);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (class, message) = failure(format!("http://{closed}/web.ova"), &Login::default()).await;
    assert_eq!(class, Class::Network, "{message}");
    // What cannot be verified is not read when that was asked for.
    let ca = Login { ca: login.ca.clone(), ..Login::default() };
    let (class, message) = failure(format!("http://{closed}/web.ova"), &ca).await;
    assert!(class == Class::Config && message.contains("no certificate"), "{message}");
    let trusts = [
        (TrustMode::Auto, Some("00:".repeat(31) + "00"), Class::Config),
        (TrustMode::Ca, None, Class::Config),
        (TrustMode::Thumbprint, None, Class::Config),
        (TrustMode::Insecure, None, Class::Network),
    ];
    for (trust, thumbprint, class) in trusts {
        let place = format!("http://{closed}/web.ova").parse().unwrap();
        let thumbprint = thumbprint.map(|t| t.parse().unwrap());
        let wanted = Wanted { place, verify: Verify::Auto, trust, thumbprint };
        let failure = lab.open_wanted(&wanted, &Login::default()).await.failure();
        assert_eq!(failure.class, class, "{trust:?}: {failure}");
    }
    let (class, message) = failure(format!("http://{closed}/web.ova"), &login).await;
    assert!(class == Class::Config && message.contains("unencrypted"), "{message}");
}

#[tokio::test]
async fn redirections_are_followed_and_what_is_denied_may_be_absent() {
    let (lab, web) = (Lab::new(), Web::anywhere());
    let (files, dir) = (lab.files(), web.dir());
    tar(&files, "ustar", &dir.join("web.ova"), &["web.ovf", "disk.vmdk"]);
    let login = login(&lab, &web);
    lab.is_same(&lab.open_as(web.url("moved/web.ova"), Verify::Auto, &login, None).await.good());
    // Neither a manifest nor another piece is there.
    let split = ["-b", "1000000", "-d", "-a", "9"];
    must(Command::new("split").args(split).args([files.join("disk.vmdk"), dir.join("disk.vmdk.")]));
    let size = fs::metadata(files.join("disk.vmdk")).unwrap().len();
    let attributes = format!("ovf:chunkSize=\"1000000\" ovf:size=\"{size}\"");
    let disk = OvfDisk { attributes: &attributes, ..OvfDisk::new("disk.vmdk", CAPACITY) };
    fs::write(dir.join("web.ovf"), v2v_pod_tests::ova::ovf("web", &[disk])).unwrap();
    let opened = lab.open_as(web.url("bucket/web.ovf"), Verify::Auto, &login, None).await;
    let text = opened.report.to_text();
    assert!(text.contains("web.mf is taken for absent"), "{text}");
    lab.is_same(&opened.good());
    let moved = lab.open_as(web.url("moved/web.ovf"), Verify::Auto, &login, None).await;
    lab.is_same(&moved.good());
    let last = fs::read_dir(&dir).unwrap().flatten().map(|e| e.path());
    let last = last.filter(|p| p.to_string_lossy().contains("vmdk.0")).max().unwrap();
    fs::remove_file(last).unwrap();
    let cut = lab.open_as(web.url("bucket/web.ovf"), Verify::Auto, &login, None).await.failure();
    assert!(cut.class == Class::Io && cut.message.contains("cut off"), "{cut}");
    fs::remove_file(dir.join("disk.vmdk.000000000")).unwrap();
    let none = lab.open_as(web.url("bucket/web.ovf"), Verify::Auto, &login, None).await.failure();
    assert_eq!(none.class, Class::Auth, "{none}");
}

/// Answers each request with what is made from its number and range; says that the file has so many bytes when asked for
/// that alone.
fn server(
    bytes: usize,
    answer: impl Fn(usize, usize, usize) -> Vec<u8> + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for (number, mut client) in listener.incoming().flatten().enumerate() {
            let lines = BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok);
            let lines: Vec<String> = lines.take_while(|l| !l.is_empty()).collect();
            if lines.first().is_some_and(|l| l.starts_with("HEAD")) {
                let head = format!(
                    "HTTP/1.1 200 x\r\nAccept-Ranges: bytes\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n"
                );
                let _ = client.write_all(head.as_bytes());
                continue;
            }
            let range = lines.iter().find_map(|l| l.strip_prefix("Range: bytes="));
            let Some((from, to)) = range.and_then(|r| r.split_once('-')) else { continue };
            let _ = client.write_all(&answer(number, from.parse().unwrap(), to.parse().unwrap()));
        }
    });
    format!("http://127.0.0.1:{port}/web.ova")
}

#[tokio::test]
async fn answers_that_do_not_belong_together_are_found() {
    let lab = Lab::new();
    fs::write(lab.files().join("other.iso"), vec![1; 1 << 20]).unwrap();
    tar(&lab.files(), "ustar", &lab.at("web.ova"), &["other.iso", "web.ovf", "disk.vmdk"]);
    let bytes = fs::read(lab.at("web.ova")).unwrap();
    let part = |bytes: &[u8], start: usize, total: usize, from: usize, to: usize, tag: usize| {
        let part = &bytes[from..bytes.len().min(to + 1)];
        let head = format!(
            "HTTP/1.1 206 x\r\nContent-Range: bytes {start}-{}/{total}\r\nContent-Length: {}\r\nETag: \"{tag}\"\r\nConnection: close\r\n\r\n",
            start + part.len() - 1,
            part.len()
        );
        [head.as_bytes(), part].concat()
    };
    let failure = async |url: String| lab.open(url).await.failure();
    let (all, total) = (bytes.clone(), bytes.len());
    let other =
        failure(server(total, move |n, from, to| part(&all, from, total, from, to, n))).await;
    assert!(other.class == Class::Io && other.message.contains("was changed"), "{other}");
    let all = bytes.clone();
    let longer = server(total, move |n, from, to| part(&all, from, total + n, from, to, 0));
    assert!(failure(longer).await.message.contains("was changed"));
    // nbdkit asks once more for the length.
    let all = bytes.clone();
    let grown = server(total + 512, move |_, from, to| part(&all, from, total, from, to, 0));
    let grown = failure(grown).await;
    assert!(grown.class == Class::Io && grown.message.contains("was changed"), "{grown}");
    let wrong = server(total, move |_, from, to| part(&bytes, 0, total, from, to, 0));
    let wrong = failure(wrong).await;
    assert!(wrong.class == Class::Io && wrong.message.contains("gave byte 0"), "{wrong}");
    let busy =
        "HTTP/1.1 503 x\r\nRetry-After: 36000\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let busy = failure(server(1, |_, _, _| busy.into())).await;
    assert!(busy.class == Class::Network && busy.message.contains("503"), "{busy}");
}

/// Passes connections on to a server. Every third is closed at once, the others after 1.5 MB from the server.
fn bad_network(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for (number, client) in listener.incoming().flatten().enumerate() {
            if number % 3 == 2 {
                continue;
            }
            let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
            let mut up = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut up.0, &mut up.1));
            thread::spawn(move || {
                let _ = io::copy(&mut (&server).take(1_500_000), &mut &client);
                // Both ends, for both threads.
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            });
        }
    });
    port
}

#[tokio::test]
async fn broken_connections_are_made_again() {
    let (lab, web) = (Lab::new(), Web::anywhere());
    manifest(&lab.files(), "web.mf", "SHA256", &["web.ovf", "disk.vmdk"]);
    fs::write(lab.files().join("other.iso"), vec![1; 3 << 20]).unwrap();
    let members = ["other.iso", "web.ovf", "web.mf", "disk.vmdk"];
    tar(&lab.files(), "ustar", &web.dir().join("web.ova"), &members);
    let login = login(&lab, &web);
    let url = format!("https://localhost:{}/web.ova", bad_network(web.port));
    let source = lab.open_as(url, Verify::Auto, &login, None).await.good();
    lab.is_same(&source);
}

#[tokio::test]
async fn a_thumbprint_is_enough_and_must_fit_and_insecure_is_said() {
    let (lab, web) = (Lab::new(), Web::anywhere());
    tar(&lab.files(), "ustar", &web.dir().join("web.ova"), &["web.ovf", "disk.vmdk"]);
    let args = ["x509", "-noout", "-fingerprint", "-sha256", "-in"];
    let print = must(Command::new("openssl").args(args).arg(web.certificate()));
    let print = print.trim().rsplit('=').next().unwrap();
    let none = Login::default();
    let pinned = lab.open_as(web.url("web.ova"), Verify::Auto, &none, Some(print.parse().unwrap()));
    let source = pinned.await.good();
    assert_eq!(source.trust, "thumbprint");
    lab.is_same(&source);
    let other = "00:".repeat(31) + "00";
    let wrong = lab.open_as(web.url("web.ova"), Verify::Auto, &none, Some(other.parse().unwrap()));
    assert_eq!(wrong.await.failure().class, Class::Trust);
    let place = web.url("web.ova").parse().unwrap();
    let trust = TrustMode::Insecure;
    let insecure = Wanted { place, verify: Verify::Auto, trust, thumbprint: None };
    let source = lab.open_wanted(&insecure, &none).await.good();
    assert!(source.trust == "insecure" && source.warnings.len() == 1, "{source:?}");
    lab.is_same(&source);
}

#[tokio::test]
async fn a_truncated_or_changed_archive_is_found() {
    let (lab, web) = (Lab::new(), Web::anywhere());
    manifest(&lab.files(), "web.mf", "SHA256", &["web.ovf", "disk.vmdk"]);
    let ova = web.dir().join("web.ova");
    tar(&lab.files(), "ustar", &ova, &["web.ovf", "web.mf", "disk.vmdk"]);
    let login = login(&lab, &web);
    let mut bytes = fs::read(&ova).unwrap();
    fs::write(web.dir().join("cut.ova"), &bytes[..bytes.len() / 2]).unwrap();
    let failure = lab.open_as(web.url("cut.ova"), Verify::Auto, &login, None).await.failure();
    assert!(failure.class == Class::Io && failure.message.contains("truncated"), "{failure}");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&ova, bytes).unwrap();
    lab.open_as(web.url("web.ova"), Verify::Auto, &login, None).await.good();
    let failure = lab.open_as(web.url("web.ova"), Verify::Always, &login, None).await.failure();
    assert!(
        failure.class == Class::Integrity && failure.message.contains("disk.vmdk"),
        "{failure}"
    );
}
