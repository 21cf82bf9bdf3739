//! qemu-nbd, nbd-server, and the server of the `nbd` crate.

use crate::content::{Image, SIZE, assert_same};
use crate::peer::{NbdServer, Peer, run};
use crate::{bytes_and_progress, bytes_of, client, source, there_and_back, timed};
use std::fs::{File, OpenOptions};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_qcow2_image_behind_qemu_nbd_is_written_and_read_back() {
    timed(async {
        let image = Image::new();
        let (qcow2, raw) = (image.beside("disk.qcow2"), image.beside("raw"));
        run("qemu-img", &["create", "-f", "qcow2", text(&qcow2), &SIZE.to_string()]);
        let peer = Peer::qemu_nbd(&qcow2, &["-f", "qcow2", "--discard=unmap"]);
        there_and_back(&peer.uri(), &image.path).await;
        drop(peer);
        run("qemu-img", &["convert", "-O", "raw", text(&qcow2), text(&raw)]);
        assert_same(&std::fs::read(&raw).unwrap(), &image.bytes());
    });
}

#[test]
fn a_qcow2_image_behind_a_named_export_is_read_with_its_holes() {
    timed(async {
        let image = Image::new();
        let qcow2 = image.beside("disk.qcow2");
        run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", text(&image.path), text(&qcow2)]);
        let peer = Peer::qemu_nbd(&qcow2, &["-r", "-f", "qcow2", "-x", "a disk"]);
        let uri = format!("nbd+unix:///a%20disk?socket={}", peer.socket());
        let (bytes, progress) = bytes_and_progress(&uri).await;
        assert_same(&bytes, &image.bytes());
        assert!(progress.copied.load(Ordering::Relaxed) < 8 << 20, "holes were read");
        let e = datapath::error_chain(&source(&peer.uri()).await.unwrap_err());
        assert!(e.contains("no such export"), "{e}");
    });
}

#[test]
fn a_raw_image_behind_qemu_nbd_is_written_over_old_content() {
    timed(async {
        let image = Image::new();
        let raw = image.beside("raw");
        std::fs::write(&raw, vec![0x55; usize::try_from(SIZE).unwrap()]).unwrap();
        let peer = Peer::qemu_nbd(&raw, &["-f", "raw"]);
        there_and_back(&peer.uri(), &image.path).await;
    });
}

#[test]
fn nbd_server_is_written_and_read_back() {
    timed(async {
        let image = Image::new();
        let raw = image.beside("raw");
        std::fs::write(&raw, vec![0x55; usize::try_from(SIZE).unwrap()]).unwrap();
        let server = NbdServer::start(&raw);
        there_and_back(&server.uri("disk"), &image.path).await;
        assert_same(&std::fs::read(&raw).unwrap(), &image.bytes());
        let e = datapath::error_chain(&source(&server.uri("other")).await.unwrap_err());
        assert!(e.contains("other"), "{e}");
    });
}

/// Serves a file with the `nbd` crate, to each client in a thread.
fn nbd_crate(socket: &Path, file: PathBuf, readonly: bool) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, file) = (stream.unwrap(), file.clone());
            std::thread::spawn(move || {
                let size = std::fs::metadata(&file).unwrap().len();
                let export =
                    |_: &str| Ok(nbd::Export { size, readonly, ..nbd::Export::<()>::default() });
                if nbd::server::handshake(&stream, export).is_ok() {
                    let _ = nbd::server::transmission(&stream, open(&file));
                }
            });
        }
    });
}

fn open(file: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(file).unwrap()
}

#[test]
fn the_server_of_the_nbd_crate_is_written_and_read_back() {
    timed(async {
        let image = Image::new();
        let (raw, socket) = (image.beside("raw"), image.beside("socket"));
        std::fs::write(&raw, vec![0x55; usize::try_from(SIZE).unwrap()]).unwrap();
        nbd_crate(&socket, raw.clone(), false);
        let uri = format!("nbd+unix:///any?socket={}", socket.display());
        there_and_back(&uri, &image.path).await;
        assert_same(&std::fs::read(&raw).unwrap(), &image.bytes());
    });
}

#[test]
fn the_server_of_the_nbd_crate_is_read_without_extents() {
    timed(async {
        let image = Image::new();
        let socket = image.beside("socket");
        nbd_crate(&socket, image.path.clone(), true);
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        let open = source(&uri).await.unwrap();
        let client = client(&open);
        assert!(client.read_only() && !client.has_extents() && client.connections() == 1);
        assert_same(&bytes_of(&uri).await, &image.bytes());
    });
}
