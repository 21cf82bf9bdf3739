//! What the library calls, from threads of its own: the log and the end of a request.

#![allow(unsafe_code)]

use super::types::VixError;
use libc::{c_char, c_int, c_void, size_t};
use std::ffi::CStr;
use std::io::Write;
use std::sync::{Condvar, Mutex, PoisonError};

/// The result of an asynchronous call.
#[derive(Debug, Default)]
pub(super) struct Completion {
    result: Mutex<Option<VixError>>,
    arrived: Condvar,
}

impl Completion {
    /// Waits for the result.
    pub(super) fn wait(&self) -> VixError {
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(error) = *result {
                return error;
            }
            result = self.arrived.wait(result).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Called by a thread of the library.
pub(super) unsafe extern "C" fn completed(data: *mut c_void, result: VixError) {
    // SAFETY: `data` is the leaked completion that was given with the request.
    let done = unsafe { &*data.cast_const().cast::<Completion>() };
    *done.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    done.arrived.notify_all();
}

unsafe extern "C" {
    // With a va_list as the library passes it on; Rust's own type for it is not stable.
    fn vsnprintf(
        buffer: *mut c_char,
        size: size_t,
        format: *const c_char,
        args: *mut c_void,
    ) -> c_int;
}

/// The library's log, to standard error.
pub(super) unsafe extern "C" fn log(format: *const c_char, args: *mut c_void) {
    if format.is_null() {
        return;
    }
    let mut buffer: [c_char; 1024] = [0; 1024];
    // SAFETY: the format and its arguments come from the library and fit together; the size is the buffer's, so that
    // the text is cut and ends with a NUL.
    let text = unsafe {
        if vsnprintf(buffer.as_mut_ptr(), buffer.len(), format, args) < 0 {
            return;
        }
        CStr::from_ptr(buffer.as_ptr()).to_string_lossy()
    };
    // Not eprintln: the library may have closed standard error, and a panic must not pass through it.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}
