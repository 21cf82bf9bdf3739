//! What a source says about a part of its disk.

/// A range with one property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// First byte after it.
    pub end: u64,
    /// Known to read as zeroes. A hole alone is not: its content is undefined.
    pub zero: bool,
}
