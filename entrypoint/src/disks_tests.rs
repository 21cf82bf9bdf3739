use super::*;
use proptest::prelude::*;
use std::cell::RefCell;

fn map(blocks: &[&str], disks: &[&str]) -> Result<DiskMap, DiskError> {
    let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    DiskMap::from_names(Path::new("/dev"), &own(blocks), Path::new("/mnt/disks"), &own(disks))
}

#[test]
fn volumes_are_matched_by_number_not_by_order() {
    let names: Vec<String> = (0..12).rev().map(|i| format!("block{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let map = map(&names, &[]).unwrap();
    assert_eq!(map.volumes()[2], Pv::Block("/dev/block2".into()));
    assert_eq!(map.volumes()[10], Pv::Block("/dev/block10".into()));
}

#[test]
fn modes_mix() {
    let map = map(&["block2", "block0"], &["disk1"]).unwrap();
    let paths: Vec<&Path> = map.volumes().iter().map(Pv::path).collect();
    assert_eq!(
        paths,
        [
            Path::new("/dev/block0"),
            Path::new("/mnt/disks/disk1/disk.img"),
            Path::new("/dev/block2")
        ]
    );
}

#[test]
fn a_hole_is_named() {
    let e = map(&["block0", "block3"], &["disk1"]).unwrap_err();
    assert_eq!(e.to_string(), "the volumes are numbered 0, 1, 3, but number 2 is missing");
    assert!(matches!(map(&["block1"], &[]), Err(DiskError::Hole { missing: 0, .. })));
}

#[test]
fn a_number_in_both_modes_is_an_error() {
    assert!(matches!(map(&["block0"], &["disk0"]), Err(DiskError::Twice { number: 0, .. })));
}

#[test]
fn odd_names_are_no_volumes() {
    assert!(
        map(&["block", "block0x", "block01", "xblock0", "block-1"], &["disk", "disk+1"])
            .unwrap()
            .is_empty()
    );
}

#[test]
fn too_small_and_too_few_are_both_reported() {
    let map = map(&["block0", "block1"], &[]).unwrap();
    let problems = map.check_sizes(&[100, 10, 10], &[99, 10]);
    assert_eq!(problems.len(), 2);
    assert!(
        problems[0].to_string().contains("3 disk(s)")
            && problems[0].to_string().contains("/dev/block1")
    );
    assert_eq!(
        problems[1].to_string(),
        "disk 0 has 100 bytes, but /dev/block0 has room for 99 only"
    );
    assert!(map.check_sizes(&[99, 10], &[99, 4096]).is_empty(), "a larger volume is fine");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_not_ready_is_tried_again() {
    let pauses = RefCell::new(Vec::new());
    let sleep = |d| {
        pauses.borrow_mut().push(d);
        std::future::ready(())
    };
    let mut tries = 0;
    let result = retry(
        || {
            tries += 1;
            if tries < 4 { Err(io::Error::from(Errno::ENXIO)) } else { Ok(tries) }
        },
        sleep,
    )
    .await;
    assert_eq!(result.unwrap(), 4);
    assert_eq!(*pauses.borrow(), [500, 1000, 2000].map(Duration::from_millis));
}

#[tokio::test]
async fn it_gives_up_after_ten_tries_and_at_once_for_other_errors() {
    for (errno, want) in [(Errno::EIO, 10), (Errno::ENOENT, 10), (Errno::EACCES, 1)] {
        let mut tries = 0;
        let result: io::Result<()> = retry(
            || {
                tries += 1;
                Err(io::Error::from(errno))
            },
            |_| std::future::ready(()),
        )
        .await;
        assert!(result.is_err());
        assert_eq!(tries, want, "{errno}");
    }
}

#[tokio::test]
async fn a_filesystem_volume_gets_its_image_and_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let pv = Pv::File(dir.path().join("disk.img"));
    let open_volume = open(&pv).await.unwrap();
    assert!(pv.path().exists() && open_volume.room_bytes > 0);
    assert!(matches!(open(&pv).await, Err(DiskError::Busy { .. })));
    drop(open_volume);
    std::fs::write(pv.path(), b"kept").unwrap();
    open(&pv).await.unwrap();
    assert_eq!(std::fs::read(pv.path()).unwrap(), b"kept");
}

#[tokio::test]
async fn images_on_one_file_system_share_its_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut open_volumes = Vec::new();
    for name in ["a.img", "b.img"] {
        open_volumes.push(open(&Pv::File(dir.path().join(name))).await.unwrap());
    }
    let free = open_volumes[0].room_bytes;
    let rooms_of = |thin| rooms(&open_volumes, &[free - 4096, 8192], thin);
    assert!(rooms_of(false)[0] >= free - 4096 && rooms_of(false)[1] < free / 2);
    assert_eq!(rooms_of(true), [u64::MAX; 2]);
}

#[tokio::test]
async fn an_image_made_for_nothing_goes_again() {
    let dir = tempfile::tempdir().unwrap();
    let (new, old) = (dir.path().join("new.img"), dir.path().join("old.img"));
    std::fs::write(&old, b"").unwrap();
    let map = DiskMap::new(vec![Pv::File(new.clone()), Pv::File(old.clone())]);
    drop(crate::volumes::Volumes::open(map, false).await.unwrap());
    assert!(!new.exists() && old.exists());
}

#[tokio::test]
async fn a_link_in_a_volume_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let pv = Pv::File(dir.path().join("disk.img"));
    std::os::unix::fs::symlink("/etc/passwd", pv.path()).unwrap();
    assert!(matches!(open(&pv).await, Err(DiskError::Open { .. })));
}

proptest! {
    #[test]
    fn any_split_of_the_numbers_maps_in_order(modes in prop::collection::vec(any::<bool>(), 1..60)) {
        let names = |mode: bool, prefix: &str| -> Vec<String> {
            modes.iter().enumerate().filter(|(_, m)| **m == mode).map(|(i, _)| format!("{prefix}{i}")).rev().collect()
        };
        let map = DiskMap::from_names(Path::new("/dev"), &names(true, "block"), Path::new("/m"), &names(false, "disk")).unwrap();
        for (i, block) in modes.iter().enumerate() {
            let want = if *block { Pv::Block(format!("/dev/block{i}").into()) } else { Pv::File(format!("/m/disk{i}/disk.img").into()) };
            prop_assert_eq!(&map.volumes()[i], &want);
        }
    }

    #[test]
    fn any_names_are_a_map_or_an_error(names in prop::collection::vec("block[0-9]{0,4}|\\PC{0,8}", 0..8)) {
        let _ = DiskMap::from_names(Path::new("/dev"), &names, Path::new("/m"), &[]);
    }
}
