//! nbdkit's filters: servers that fail, wait, or allow little. Debian 12's nbdkit has no `evil`.

use crate::content::{Image, SIZE, assert_same};
use crate::peer::Peer;
use crate::{
    bytes_and_progress, bytes_of, client, copy, file_source, source, target, there_and_back, timed,
};
use datapath::nbd::{NbdClient, NbdError, NbdOptions};
use datapath::{CopyError, error_chain};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// An nbdkit that reads the image through a filter.
fn filtered(image: &Image, filter: &str, settings: &[&str]) -> Peer {
    let file = format!("file={}", image.path.display());
    let filters: Vec<_> = filter.split('+').map(|f| format!("--filter={f}")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    Peer::nbdkit(&[&filters[..], &["-r", "file", &file], settings].concat())
}

#[test]
fn reads_that_fail_now_and_then_are_repeated() {
    timed(async {
        let image = Image::new();
        let peer = filtered(&image, "error", &["error-pread=EIO", "error-pread-rate=30%"]);
        let (bytes, progress) = bytes_and_progress(&peer.uri()).await;
        assert_same(&bytes, &image.bytes());
        assert!(progress.retries.load(Ordering::Relaxed) > 0);
    });
}

#[test]
fn a_server_that_cannot_tell_extents_is_read_as_a_whole() {
    timed(async {
        let image = Image::new();
        for error in ["EIO", "EINVAL", "ENOMEM"] {
            let error = format!("error-extents={error}");
            let peer = filtered(&image, "error", &[&error, "error-extents-rate=100%"]);
            assert_same(&bytes_of(&peer.uri()).await, &image.bytes());
        }
    });
}

#[test]
fn a_read_that_will_never_work_ends_the_copy_with_its_place() {
    timed(async {
        let image = Image::new();
        let peer = filtered(&image, "error", &["error-pread=EPERM", "error-pread-rate=100%"]);
        let to = crate::file_target(&image.beside("copy"));
        let e = copy(source(&peer.uri()).await.unwrap(), to).await.unwrap_err();
        assert!(error_chain(&e).contains("EPERM") && !e.is_transient(), "{e:?}");
    });
}

#[test]
fn a_full_target_ends_the_copy() {
    timed(async {
        let settings = ["error-pwrite=ENOSPC", "error-pwrite-rate=100%"];
        let size = SIZE.to_string();
        let peer =
            Peer::nbdkit(&[&["--filter=error", "memory", &size][..], &settings[..]].concat());
        let from = file_source(&Image::new().path);
        let e = copy(from, target(&peer.uri()).await.unwrap()).await.unwrap_err();
        assert!(error_chain(&e).contains("no space left") && !e.is_transient(), "{e:?}");
    });
}

#[test]
fn writes_that_fail_now_and_then_are_repeated() {
    timed(async {
        let size = SIZE.to_string();
        let errors = ["error-pwrite=EIO", "error-pwrite-rate=3%"];
        let peer = Peer::nbdkit(&[&["--filter=error", "memory", &size][..], &errors].concat());
        there_and_back(&peer.uri(), &Image::new().path).await;
    });
}

#[test]
fn zeroes_are_written_where_the_server_cannot_zero() {
    timed(async {
        for mode in ["none", "emulate", "notrim", "plugin"] {
            let size = SIZE.to_string();
            let zero = format!("zeromode={mode}");
            let peer = Peer::nbdkit(&["--filter=nozero", "memory", &size, &zero]);
            there_and_back(&peer.uri(), &Image::new().path).await;
        }
    });
}

#[test]
fn a_slow_server_is_waited_for() {
    timed(async {
        let image = Image::new();
        let delays = ["delay-read=30ms", "delay-open=300ms", "delay-extents=100ms"];
        let peer = filtered(&image, "delay", &delays);
        assert_same(&bytes_of(&peer.uri()).await, &image.bytes());
    });
}

#[test]
fn a_server_that_is_slower_than_the_patience_has_stalled() {
    timed(async {
        let image = Image::new();
        let peer = filtered(&image, "delay", &["delay-read=5"]);
        let patience = Duration::from_millis(400);
        let options = NbdOptions { connections: 1, extents: true, patience };
        let client = NbdClient::connect(peer.uri().parse().unwrap(), options).await.unwrap();
        let start = Instant::now();
        let e = client.read(0, bytes::BytesMut::zeroed(512)).await.unwrap_err();
        assert!(matches!(e, NbdError::Stalled { .. }) && e.is_transient(), "{e:?}");
        assert!(start.elapsed() < Duration::from_secs(3));
    });
}

#[test]
fn a_disk_without_extents_is_read_as_a_whole_and_becomes_sparse() {
    use std::os::unix::fs::MetadataExt;
    timed(async {
        let image = Image::new();
        let peer = filtered(&image, "noextents", &[]);
        let path = image.beside("copy");
        let to = crate::file_target(&path);
        let progress = copy(source(&peer.uri()).await.unwrap(), to).await.unwrap();
        assert_eq!(progress.copied.load(Ordering::Relaxed), SIZE);
        assert_same(&std::fs::read(&path).unwrap(), &image.bytes());
        let used = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(used < 8 << 20, "{used} bytes on disk for 5.2 MiB of data");
    });
}

#[test]
fn the_number_of_connections_is_the_servers_choice() {
    timed(async {
        let image = Image::new();
        for (mode, connections) in [("disable", 1), ("unsafe", 4)] {
            let peer = filtered(&image, "multi-conn", &[&format!("multi-conn-mode={mode}")]);
            let open = source(&peer.uri()).await.unwrap();
            assert_eq!(client(&open).connections(), connections);
            assert_same(&bytes_of(&peer.uri()).await, &image.bytes());
        }
        let size = SIZE.to_string();
        let peer =
            Peer::nbdkit(&["--filter=multi-conn", "memory", &size, "multi-conn-mode=emulate"]);
        there_and_back(&peer.uri(), &image.path).await;
    });
}

/// Nothing here may be shorter than 4 KiB, so neither may the disk's last block.
fn strict(max: &'static str) -> Vec<&'static str> {
    let sizes = ["blocksize-minimum=4096", "blocksize-preferred=64K"];
    [&["--filter=blocksize-policy", "memory", "24M"], &sizes[..], &[max, ERROR]].concat()
}

const ERROR: &str = "blocksize-error-policy=error";

/// The image, as long as whole blocks are.
fn whole_blocks() -> Image {
    let image = Image::new();
    let file = std::fs::OpenOptions::new().write(true).open(&image.path).unwrap();
    file.set_len(24 << 20).unwrap();
    image
}

#[test]
fn a_minimum_block_size_is_kept_to() {
    timed(async {
        let peer = Peer::nbdkit(&strict("blocksize-maximum=32M"));
        let open = source(&peer.uri()).await.unwrap();
        assert_eq!((open.block(), open.preferred_block()), (4096, 64 << 10));
        there_and_back(&peer.uri(), &whole_blocks().path).await;
    });
}

#[test]
fn writes_longer_than_the_servers_maximum_are_split() {
    timed(async {
        let peer = Peer::nbdkit(&strict("blocksize-maximum=64K"));
        let from = file_source(&whole_blocks().path);
        copy(from, target(&peer.uri()).await.unwrap()).await.unwrap();
    });
}

#[test]
fn reads_longer_than_the_servers_maximum_are_split() {
    timed(async {
        let image = Image::new();
        let settings = ["blocksize-preferred=4096", "blocksize-maximum=64K", ERROR];
        let settings = [&["blocksize-minimum=1"][..], &settings[..]].concat();
        let peer = filtered(&image, "blocksize-policy", &settings);
        let open = source(&peer.uri()).await.unwrap();
        assert_eq!(open.client().unwrap().export().max_payload, 64 << 10);
        let to = crate::file_target(&image.beside("copy"));
        let result: Result<_, CopyError> = copy(open, to).await;
        assert!(result.is_ok(), "{result:?}");
        assert_same(&std::fs::read(image.beside("copy")).unwrap(), &image.bytes());
    });
}

#[test]
fn a_server_with_a_limited_rate_is_read_at_that_rate() {
    timed(async {
        let image = Image::new();
        // 5.2 MiB of data at 8 Mbit/s; the filter gives the first two seconds away.
        let peer = filtered(&image, "rate", &["rate=8M"]);
        let start = Instant::now();
        assert_same(&bytes_of(&peer.uri()).await, &image.bytes());
        assert!(start.elapsed() > Duration::from_secs(1));
    });
}

#[test]
fn everything_at_once_still_gives_the_right_bytes() {
    timed(async {
        let image = Image::new();
        let errors = ["error-pread=ENOMEM", "error-pread-rate=10%", "error-extents=EIO"];
        let more = ["error-extents-rate=20%", "delay-read=5ms", "multi-conn-mode=unsafe"];
        let peer = filtered(&image, "multi-conn+error+delay", &[errors, more].concat());
        assert_same(&bytes_of(&peer.uri()).await, &image.bytes());
    });
}

#[test]
fn requests_stay_as_small_as_the_source_is_told() {
    timed(async {
        let image = Image::new();
        let file = image.path.display().to_string();
        let read = format!(
            "[ $3 -le 131072 ] || {{ echo EIO too large >&2; exit 1; }}; dd if='{file}' skip=$4 count=$3 iflag=count_bytes,skip_bytes 2>/dev/null"
        );
        let (size, pread) = (format!("get_size=stat -c %s '{file}'"), format!("pread={read}"));
        let peer = Peer::nbdkit(&["eval", &size, &pread]);
        let whole = source(&peer.uri()).await.unwrap();
        let limit = whole.request_limit().unwrap();
        limit.set(150_000);
        let to = image.beside("copy");
        copy(whole, crate::file_target(&to)).await.unwrap();
        assert_same(&std::fs::read(to).unwrap(), &image.bytes());
    });
}
