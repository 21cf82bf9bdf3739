//! Memory and strings that cross the boundary to C.

#![allow(unsafe_code)] // raw pointers of C callers

use crate::abi::{Block, BlockList, ConnectParams, Info};
use std::ffi::{CStr, CString, c_char};

/// The bytes of a C string.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that stays as it is during the call.
pub unsafe fn bytes(text: *const c_char) -> Option<Vec<u8>> {
    // SAFETY: not NULL, and a string by this function's contract.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes().to_vec())
}

/// The text of a C string; what is not UTF-8 becomes replacement characters.
///
/// # Safety
/// As for `bytes`.
pub unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: the same contract.
    unsafe { bytes(text) }.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A string for the client to give back to `free_string`.
pub fn give_string(text: &str) -> *mut c_char {
    CString::new(text).map_or(std::ptr::null_mut(), CString::into_raw)
}

/// # Safety
/// `text` is NULL or came from `give_string` and is given back once.
pub unsafe fn free_string(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: made by `CString::into_raw`, by this function's contract.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// Parameters that are all zero, as the client expects them.
pub fn give_params() -> *mut ConnectParams {
    let none = std::ptr::null_mut();
    Box::into_raw(Box::new(ConnectParams {
        vmx_spec: none,
        server_name: none,
        thumb_print: none,
        reserved1: 0,
        cred_type: 0,
        creds: [none; 3],
        port: 0,
        nfc_host_port: 0,
        reserved3: none,
        reserved4: [0; 8],
        reserved5: std::ptr::null_mut(),
        spec: [none; 3],
        spec_type: 0,
    }))
}

/// Frees the structure; the strings in it are the client's.
///
/// # Safety
/// `params` is NULL or came from `give_params` and is given back once.
pub unsafe fn free_params(params: *mut ConnectParams) {
    if !params.is_null() {
        // SAFETY: made by `Box::into_raw`, by this function's contract.
        drop(unsafe { Box::from_raw(params) });
    }
}

pub fn give_info(info: Info) -> *mut Info {
    Box::into_raw(Box::new(info))
}

/// # Safety
/// `info` is NULL or came from `give_info` and is given back once.
pub unsafe fn free_info(info: *mut Info) {
    if !info.is_null() {
        // SAFETY: made by `Box::into_raw`, by this function's contract; its strings by `give_string`.
        unsafe {
            let info = Box::from_raw(info);
            free_string(info.uuid);
            free_string(info.parent_file_name_hint);
        }
    }
}

/// A block list, or NULL when there is no memory for it.
pub fn give_blocks(blocks: &[(u64, u64)]) -> *mut BlockList {
    let Ok(count) = u32::try_from(blocks.len()) else { return std::ptr::null_mut() };
    let size = size_of::<BlockList>() + size_of_val(blocks);
    // SAFETY: calloc takes any size.
    let list: *mut BlockList = unsafe { libc::calloc(1, size) }.cast();
    if list.is_null() {
        return list;
    }
    // SAFETY: `list` has room for the count and for all blocks behind it, and calloc's memory is aligned for both.
    unsafe {
        (*list).count = count;
        let first = (&raw mut (*list).blocks).cast::<Block>();
        for (index, &(offset, length)) in blocks.iter().enumerate() {
            first.add(index).write(Block { offset, length });
        }
    }
    list
}

/// # Safety
/// `list` is NULL or came from `give_blocks` and is given back once.
pub unsafe fn free_blocks(list: *mut BlockList) {
    // SAFETY: free takes NULL and what calloc gave.
    unsafe { libc::free(list.cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_the_count() {
        let list = give_blocks(&[(0, 128), (256, 384)]);
        // SAFETY: a list of two, made above and freed once.
        unsafe {
            assert_eq!((*list).count, 2);
            let second = (&raw const (*list).blocks).cast::<Block>().add(1).read();
            assert_eq!(second, Block { offset: 256, length: 384 });
            free_blocks(list);
            free_blocks(std::ptr::null_mut());
        }
    }
}
