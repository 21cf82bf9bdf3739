//! The live page in a real browser: what the user sees, not what the script meant.
//!
//! Chromium runs headless against a server over a scripted bus, and the resulting DOM is read. It
//! prints the DOM when the page is loaded, which is before the first event; and virtual time stands
//! still while an event stream is open. So the browser talks to a relay that holds back the last
//! bytes of the page until the stream has delivered something.

// clippy.toml allows these in `#[test]` functions only; here everything is test code.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use v2v_pod::bus::Bus;
use v2v_pod::event::{Event, Phase, Severity, Warning};
use v2v_pod::sinks::live;

/// A browser that has not ended by then hangs.
const BROWSER: Duration = Duration::from_secs(60);

/// How long the page may work on the first event before its DOM is read.
const SETTLE: Duration = Duration::from_secs(1);

const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\">";

/// A live server on a thread and runtime of its own, stopped when dropped.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(bus: Bus) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, address) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let stopped = async {
                    let _ = stopped.await;
                };
                live::serve(listener, bus, stopped).await.unwrap();
            });
        });
        let address = address.recv().unwrap();
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Relays to `server` for as long as the test process lives. With `cut`, event streams are broken
/// after their first bytes.
fn relay(server: SocketAddr, cut: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let streaming = Arc::new(AtomicBool::new(false));
    thread::spawn(move || {
        for browser in listener.incoming() {
            let streaming = streaming.clone();
            thread::spawn(move || {
                // The browser may go away at any point.
                let _ = relay_one(browser?, server, cut, &streaming);
                std::io::Result::Ok(())
            });
        }
    });
    address
}

/// Relays one request. Its head fits in one read: it comes from a browser on this machine.
fn relay_one(
    mut browser: TcpStream,
    server: SocketAddr,
    cut: bool,
    streaming: &AtomicBool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 65_536];
    let n = browser.read(&mut buffer)?;
    let request = String::from_utf8_lossy(&buffer[..n]).into_owned();
    let mut upstream = TcpStream::connect(server)?;
    upstream.write_all(request.replace("keep-alive", "close").as_bytes())?;
    if request.starts_with("GET / ") {
        let mut page = Vec::new();
        upstream.read_to_end(&mut page)?;
        let tail = page.split_off(page.len() - 10);
        browser.write_all(&page)?;
        while !streaming.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(SETTLE);
        browser.write_all(&tail)?;
        return browser.shutdown(Shutdown::Both);
    }
    loop {
        let n = upstream.read(&mut buffer)?;
        if n == 0 {
            return browser.shutdown(Shutdown::Both);
        }
        browser.write_all(&buffer[..n])?;
        let data = buffer[..n].windows(6).any(|w| w == b"data: ");
        if request.starts_with("GET /events ") && data {
            streaming.store(true, Ordering::Release);
            if cut {
                return browser.shutdown(Shutdown::Both);
            }
        }
    }
}

/// A folder of one browser's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("v2vpod-page-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The DOM of the page once it has shown the state of `bus`; with `cut`, once it has lost the
/// connection again.
fn dom(name: &str, bus: Bus, cut: bool) -> String {
    let server = Server::start(bus);
    let folder = Folder::new(name);
    browse(&folder.0, &["--dump-dom"], relay(server.address, cut))
}

fn browse(folder: &Path, flags: &[&str], address: SocketAddr) -> String {
    let (out, err) = (folder.join("stdout"), folder.join("stderr"));
    let mut child = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg("--disable-dev-shm-usage")
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .args(flags)
        .arg(format!("http://{address}/"))
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run chromium ({e}): scripts/install-deps.sh lab"));
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > BROWSER {
            let _ = child.kill();
            let _ = child.wait();
            panic!("chromium hangs: {}", fs::read_to_string(&err).unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let dom = fs::read_to_string(&out).unwrap();
    assert!(dom.contains("<html"), "no page: {}", fs::read_to_string(&err).unwrap_or_default());
    dom
}

/// A run in the middle of the copy, with hostile strings wherever the guest or the source has
/// a say.
fn copying() -> Bus {
    let bus = Bus::default();
    bus.emit(&Event::PhaseEntered(Phase::Preflight));
    bus.emit(&Event::Described {
        vm: format!("web01 {HOSTILE}"),
        source: "vsphere",
        transport: "vddk",
        trust: "ca",
        targets: vec!["/dev/block0".into(), format!("/mnt/disks/disk1/{HOSTILE}")],
    });
    bus.emit(&Event::Accelerator("kvm"));
    bus.emit(&Event::PhaseEntered(Phase::Convert));
    bus.emit(&Event::PhaseEntered(Phase::Copy));
    bus.emit(&Event::DiskSize { disk: 0, bytes: 40 << 30 });
    bus.emit(&Event::DiskSize { disk: 1, bytes: 10 << 30 });
    bus.emit(&Event::DiskStarted { disk: 0, total: 2 });
    // The bytes of a disk follow its percent from the next millisecond on.
    thread::sleep(Duration::from_millis(5));
    bus.emit(&Event::DiskPercent { disk: 0, percent: 37.5 });
    bus.emit(&Event::Message {
        severity: Severity::Warning,
        tool: "virt-v2v",
        text: format!("guest says {HOSTILE}"),
    });
    bus.emit(&Event::Warned(Warning {
        reason: "CustomizationFailed".into(),
        message: format!("script {HOSTILE} failed"),
    }));
    bus
}

fn assert_has(dom: &str, wanted: &str) {
    assert!(dom.contains(wanted), "{wanted:?} is not in the page:\n{dom}");
}

#[test]
fn the_page_shows_a_run_under_way() {
    let bus = copying();
    let dom = dom("copying", bus, false);
    let escaped = "&lt;img src=x onerror=\"document.title='owned'\"&gt;";
    for wanted in [
        "<title>30% · web01 &lt;img",
        "from vsphere over vddk, verified by ca · appliance on kvm",
        "<li class=\"present\" aria-current=\"step\"><span class=\"name\">Copy</span>",
        "<li class=\"past\"><span class=\"name\">Convert</span>",
        "<span class=\"target\">Total of 2 disks</span><span class=\"percent number\">30%</span>",
        "Disk 0 → /dev/block0</span><span class=\"percent number\">37%</span>",
        "15.0 GiB of 40.0 GiB",
        "0 B of 10.0 GiB",
        "CustomizationFailed",
        &format!("script {escaped} failed"),
        &format!("virt-v2v: warning: guest says {escaped}"),
        "id=\"result\" role=\"status\" hidden=\"\"",
        "id=\"lost\" role=\"status\" hidden=\"\"",
    ] {
        assert_has(&dom, wanted);
    }
    assert!(!dom.contains("<img"), "a guest's text became an element:\n{dom}");
}

#[test]
fn the_page_shows_success() {
    let bus = copying();
    bus.emit(&Event::PhaseEntered(Phase::Inspect));
    bus.emit(&Event::PhaseEntered(Phase::Serve));
    bus.emit(&Event::Finished { exit_code: 0, reason: None });
    let dom = dom("success", bus, false);
    assert_has(&dom, "<title>✓ done · web01");
    assert_has(&dom, "✓ Succeeded: the guest is converted.");
    // The stream has ended, and the page does not mistake that for a broken connection.
    assert_has(&dom, "id=\"lost\" role=\"status\" hidden=\"\"");
}

#[test]
fn the_page_shows_a_failure_and_where_it_happened() {
    let bus = copying();
    bus.emit(&Event::Finished { exit_code: 35, reason: Some("io") });
    let dom = dom("failure", bus, false);
    assert_has(&dom, "<title>✗ failed · web01");
    assert_has(&dom, "✗ Failed: io (exit code 35)");
    assert_has(&dom, "<li class=\"broken\"><span class=\"name\">Copy</span>");
}

#[test]
fn the_page_says_when_the_connection_is_lost() {
    let dom = dom("lost", copying(), true);
    assert_has(&dom, "id=\"lost\" role=\"status\"");
    assert!(!dom.contains("id=\"lost\" role=\"status\" hidden"), "nothing is said:\n{dom}");
    // What was known stays on the page.
    assert_has(&dom, "Disk 0 → /dev/block0");
}
