//! How large a volume has to be for a disk.

/// Sizes are asked for in whole MiB: some provisioners refuse others, some round down.
pub const MIB: u64 = 1 << 20;

/// Part of a filesystem volume that its file system takes for itself, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overhead(u16);

impl Overhead {
    /// 10 %, as Forklift has it for the claims that it makes itself: ext4 with its reserved blocks
    /// takes about 7 %.
    pub const DEFAULT: Self = Self(100);

    /// `None` for more than half of the volume.
    pub fn from_percent(percent: u16) -> Option<Self> {
        (percent <= 50).then_some(Self(percent * 10))
    }
}

/// Bytes of the disk, up to whole MiB; never none.
pub fn rounded(disk_bytes: u64) -> u64 {
    disk_bytes.div_ceil(MIB).clamp(1, u64::MAX / MIB) * MIB
}

/// Bytes of a filesystem volume that has room for the disk.
pub fn with_overhead(disk_bytes: u64, overhead: Overhead) -> u64 {
    let left = u128::from(1000 - overhead.0);
    let grown = (u128::from(disk_bytes) * 1000).div_ceil(left);
    rounded(u64::try_from(grown).unwrap_or(u64::MAX))
}

/// As a quantity, which is exact for what the functions above return.
pub fn quantity(bytes: u64) -> String {
    format!("{}Mi", bytes.div_ceil(MIB))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn sizes_are_whole_mebibytes() {
        assert_eq!(rounded(0), MIB);
        assert_eq!(rounded(MIB), MIB);
        assert_eq!(rounded(MIB + 1), 2 * MIB);
        assert_eq!(quantity(rounded(10 * GIB)), "10240Mi");
        assert_eq!(quantity(with_overhead(9 * GIB, Overhead::DEFAULT)), "10240Mi");
        assert_eq!(with_overhead(GIB, Overhead::from_percent(0).unwrap()), GIB);
        assert_eq!(Overhead::from_percent(51), None);
    }

    proptest! {
        #[test]
        fn the_disk_fits(bytes: u64, percent in 0_u16..=50) {
            let overhead = Overhead::from_percent(percent).unwrap();
            let volume = with_overhead(bytes, overhead);
            prop_assert_eq!(volume % MIB, 0);
            let room = u128::from(volume) * u128::from(1000 - percent * 10) / 1000;
            // Where 64 bits end, nothing can be done.
            prop_assert!(room >= u128::from(bytes) || volume > u64::MAX - MIB);
            prop_assert!(rounded(bytes) >= bytes || bytes > u64::MAX - MIB);
        }
    }
}
