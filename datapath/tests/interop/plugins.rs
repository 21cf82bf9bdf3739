//! nbdkit's plugins.

use crate::content::{Image, SIZE, assert_same};
use crate::peer::{Peer, free_port, run};
use crate::{bytes_and_progress, bytes_of, client, source, target, there_and_back, timed};
use datapath::CopyError;
use datapath::target::TargetError;
use std::sync::atomic::Ordering;

#[test]
fn a_file_is_read_with_its_holes() {
    timed(async {
        let image = Image::new();
        let file = format!("file={}", image.path.display());
        let peer = Peer::nbdkit(&["-r", "file", &file]);
        let source = source(&peer.uri()).await.unwrap();
        assert!(client(&source).has_extents() && client(&source).read_only());
        let (bytes, progress) = bytes_and_progress(&peer.uri()).await;
        assert_same(&bytes, &image.bytes());
        let copied = progress.copied.load(Ordering::Relaxed);
        assert!(copied < 8 << 20, "{copied} bytes were read of 5.2 MiB of data");
        assert_eq!(progress.done.load(Ordering::Relaxed), SIZE);
    });
}

#[test]
fn a_file_is_written_over_old_content() {
    timed(async {
        let image = Image::new();
        let other = image.beside("other");
        std::fs::write(&other, vec![0xaa; usize::try_from(SIZE).unwrap()]).unwrap();
        let peer = Peer::nbdkit(&["file", &format!("file={}", other.display())]);
        there_and_back(&peer.uri(), &image.path).await;
        assert_same(&std::fs::read(&other).unwrap(), &image.bytes());
    });
}

#[test]
fn memory_is_written_and_read_back() {
    timed(async {
        let peer = Peer::nbdkit(&["memory", &SIZE.to_string()]);
        there_and_back(&peer.uri(), &Image::new().path).await;
    });
}

#[test]
fn memory_behind_a_port_and_an_export_name_is_written_and_read_back() {
    timed(async {
        let port = free_port();
        let _peer = Peer::nbdkit_tcp(port, &["memory", &SIZE.to_string()]);
        let uri = format!("nbd://127.0.0.1:{port}/a%20name/with%2Fslashes");
        there_and_back(&uri, &Image::new().path).await;
    });
}

#[test]
fn servers_without_structured_replies_are_written_and_read_back() {
    timed(async {
        let peer = Peer::nbdkit(&["--no-sr", "memory", &SIZE.to_string()]);
        assert!(!client(&source(&peer.uri()).await.unwrap()).has_extents());
        there_and_back(&peer.uri(), &Image::new().path).await;
    });
}

#[test]
fn old_protocol_settings_of_nbdkit_work_as_far_as_the_protocol_has_export_names() {
    timed(async {
        for mask in ["0", "1", "2"] {
            let peer = Peer::nbdkit(&["--mask-handshake", mask, "memory", &SIZE.to_string()]);
            there_and_back(&peer.uri(), &Image::new().path).await;
        }
        let peer = Peer::nbdkit(&["-o", "memory", "1M"]);
        let e = datapath::error_chain(&source(&peer.uri()).await.unwrap_err());
        assert!(e.contains("oldstyle"), "{e}");
    });
}

#[test]
fn sparse_random_reads_as_nbdcopy_reads_it() {
    timed(async {
        let image = Image::new();
        let peer = Peer::nbdkit(&["sparse-random", "256M", "seed=7", "percent=5"]);
        let copy = image.beside("by-nbdcopy");
        run("nbdcopy", &[&peer.uri(), &copy.display().to_string()]);
        let (bytes, progress) = bytes_and_progress(&peer.uri()).await;
        assert_same(&bytes, &std::fs::read(&copy).unwrap());
        assert!(progress.copied.load(Ordering::Relaxed) < 64 << 20, "holes were read");
    });
}

#[test]
fn data_on_the_command_line_is_read() {
    timed(async {
        let data = "data=1 2 3 @0x100000 0xff*4096 @0x3ffffe 8 9";
        let peer = Peer::nbdkit(&["data", data, "size=4M"]);
        let mut want = vec![0; 4 << 20];
        want[..3].copy_from_slice(&[1, 2, 3]);
        want[0x10_0000..0x10_1000].fill(0xff);
        want[0x3f_fffe..].copy_from_slice(&[8, 9]);
        assert_same(&bytes_of(&peer.uri()).await, &want);
    });
}

#[test]
fn null_reads_as_zeroes_and_takes_everything() {
    timed(async {
        let peer = Peer::nbdkit(&["null", &SIZE.to_string()]);
        assert!(bytes_of(&peer.uri()).await.iter().all(|b| *b == 0));
        let from = crate::file_source(&Image::new().path);
        crate::copy(from, target(&peer.uri()).await.unwrap()).await.unwrap();
    });
}

#[test]
fn an_empty_disk_is_copied() {
    timed(async {
        let peer = Peer::nbdkit(&["null", "0"]);
        assert_eq!(bytes_of(&peer.uri()).await, Vec::<u8>::new());
    });
}

#[test]
fn a_target_that_is_too_small_or_read_only_is_refused() {
    timed(async {
        let image = Image::new();
        let small = Peer::nbdkit(&["memory", "1M"]);
        let to = target(&small.uri()).await.unwrap();
        let e = crate::copy(crate::file_source(&image.path), to).await.unwrap_err();
        assert!(matches!(&e, CopyError::Target(TargetError::TooSmall { .. })), "{e:?}");
        let fixed = Peer::nbdkit(&["-r", "memory", &SIZE.to_string()]);
        let to = target(&fixed.uri()).await.unwrap();
        let e = crate::copy(crate::file_source(&image.path), to).await.unwrap_err();
        assert!(matches!(&e, CopyError::Target(TargetError::ReadOnly(_))), "{e:?}");
    });
}

#[test]
fn an_export_that_is_not_there_is_told_with_its_name() {
    timed(async {
        let filter = ["--filter=exportname", "memory", "1M", "exportname-strict=true"];
        let peer = Peer::nbdkit(&[&filter[..], &["exportname=disk"]].concat());
        let uri = format!("nbd+unix:///other?socket={}", peer.socket());
        let e = datapath::error_chain(&source(&uri).await.unwrap_err());
        assert!(e.contains("other"), "{e}");
        let uri = format!("nbd+unix:///disk?socket={}", peer.socket());
        assert_eq!(bytes_of(&uri).await.len(), 1 << 20);
    });
}
