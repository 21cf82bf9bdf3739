//! What an ELF file says about itself. Pure.

use goblin::elf::Elf;
use goblin::elf::header::{EI_CLASS, ELFCLASS64, EM_X86_64, ET_DYN, machine_to_str};

/// A shared library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// Its own name (`DT_SONAME`).
    pub soname: Option<String>,
    /// What it needs (`DT_NEEDED`).
    pub needed: Vec<String>,
    /// Defined symbols that begin with VDDK's prefix, without it.
    pub vix_symbols: Vec<String>,
}

/// Why a file cannot be loaded on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// It cannot be read, or is no file.
    #[error("{0}")]
    Unreadable(String),
    /// Something else.
    #[error("it is no ELF file")]
    NotElf,
    /// Cut off or damaged.
    #[error("it is a damaged or cut off ELF file ({0})")]
    Damaged(String),
    /// For another processor.
    #[error("it is made for {0}, and x86-64 is needed")]
    Architecture(String),
    /// A program or an object file.
    #[error("it is an ELF file but no shared library")]
    NotShared,
}

/// Whether the file begins like an ELF file.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Reads a shared library for x86-64.
pub fn library(bytes: &[u8]) -> Result<Library, ElfError> {
    if !is_elf(bytes) {
        return Err(ElfError::NotElf);
    }
    let elf = Elf::parse(bytes).map_err(|e| ElfError::Damaged(e.to_string()))?;
    let header = &elf.header;
    if header.e_machine != EM_X86_64 || header.e_ident.get(EI_CLASS) != Some(&ELFCLASS64) {
        let bits = if elf.is_64 { 64 } else { 32 };
        let machine = machine_to_str(header.e_machine).trim_start_matches("EM_");
        return Err(ElfError::Architecture(format!("{machine} ({bits} bits)")));
    }
    if header.e_type != ET_DYN {
        return Err(ElfError::NotShared);
    }
    check_complete(&elf, bytes.len())?;
    let prefix = crate::vix::PREFIX;
    let vix_symbols = elf
        .dynsyms
        .iter()
        .filter(|s| !s.is_import() && s.st_value != 0)
        .filter_map(|s| elf.dynstrtab.get_at(s.st_name)?.strip_prefix(prefix))
        .map(str::to_owned)
        .collect();
    Ok(Library {
        soname: elf.soname.map(str::to_owned),
        needed: elf.libraries.iter().map(|n| (*n).to_owned()).collect(),
        vix_symbols,
    })
}

/// A copy that was cut off parses well, since the tables that matter are at the front.
fn check_complete(elf: &Elf<'_>, len: usize) -> Result<(), ElfError> {
    let header = &elf.header;
    let sections =
        header.e_shoff.saturating_add(u64::from(header.e_shentsize) * u64::from(header.e_shnum));
    let segments = elf.program_headers.iter().map(|p| p.p_offset.saturating_add(p.p_filesz));
    let end = segments.chain([sections]).max().unwrap_or(0);
    if u64::try_from(len).unwrap_or(u64::MAX) < end {
        return Err(ElfError::Damaged(format!("{len} bytes of at least {end}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn libc() -> Vec<u8> {
        std::fs::read("/lib/x86_64-linux-gnu/libm.so.6").unwrap()
    }

    #[test]
    fn a_library_is_read() {
        let library = library(&libc()).unwrap();
        assert_eq!(library.soname.as_deref(), Some("libm.so.6"));
        assert!(library.needed.contains(&"libc.so.6".to_owned()));
        assert!(library.vix_symbols.is_empty());
    }

    #[test]
    fn what_is_no_library_is_told_apart() {
        assert_eq!(library(b"#!/bin/sh"), Err(ElfError::NotElf));
        let mut bytes = libc();
        bytes[18] = 183; // e_machine: AArch64
        assert!(
            matches!(library(&bytes), Err(ElfError::Architecture(m)) if m.starts_with("AARCH64"))
        );
        let whole = libc();
        let cut = whole.get(..whole.len() - 100).unwrap();
        assert!(matches!(library(cut), Err(ElfError::Damaged(_))));
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(mut at in proptest::collection::vec((0usize..4096, 0u8..=255), 1..20)) {
            let mut bytes = libc();
            bytes.truncate(65536);
            for (i, b) in at.drain(..) { bytes[i] = b; }
            let _ = library(&bytes);
        }
    }
}
