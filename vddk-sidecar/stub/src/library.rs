//! What lives from `InitEx` to `Exit`: the settings, the callbacks, the open connections and disks.
//!
//! VDDK's interface has one library per process, so there is one of these, in a global.

use crate::bucket::Bucket;
use crate::codes::{
    FAIL, INVALID_CONNECTION, INVALID_HANDLE, NOINIT, OBJECT_IS_BUSY, OK, Result, VixError, text,
};
use crate::disk::Disk;
use crate::faults::{Call, Faults};
use crate::log::Log;
use crate::session::Connection;
use crate::settings::{Function, Settings, VARIABLE, When, find};
use crate::sys;
use std::collections::HashMap;
use std::ffi::CString;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

static LIBRARY: Mutex<Option<Arc<Library>>> = Mutex::new(None);

/// Handles are numbers that look like pointers and point nowhere: a stale one is found out, not followed.
static NEXT: AtomicUsize = AtomicUsize::new(1);

fn next_id() -> usize {
    NEXT.fetch_add(1, Ordering::Relaxed) << 12
}

pub struct Library {
    pub settings: Settings,
    pub log: Log,
    pub total: Option<Bucket>,
    pub transport_modes: CString,
    faults: Faults,
    pid: u32,
    background: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
    opening: AtomicBool,
    connections: Mutex<HashMap<usize, Arc<Connection>>>,
    disks: Mutex<HashMap<usize, Arc<Disk>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The library that a call of `function` finds, unless the settings let the call end otherwise.
pub fn enter(function: Function) -> Result<Arc<Library>> {
    let library = lock(&LIBRARY).clone().ok_or(NOINIT)?;
    library.misbehave(function);
    Ok(library)
}

/// `InitEx`.
pub fn init(log: Log, lib_dir: Option<&Path>) -> Result<()> {
    let mut global = lock(&LIBRARY);
    if global.is_some() {
        log.warn("VixDiskLib stub: InitEx was called twice without Exit in between.");
        return Err(FAIL);
    }
    let settings = find(std::env::var_os(VARIABLE), lib_dir, sys::own_path().as_deref())
        .and_then(|path| Settings::read(&path).map(|settings| (path, settings)));
    let (path, settings) = settings.map_err(|error| {
        log.panic(&format!("VixDiskLib stub: {error}"));
        FAIL
    })?;
    log.info("VMware VixDiskLib (8.0.0) Release: a stub for tests, not VMware's.");
    log.info(&format!("VixDiskLib stub: settings from {}.", path.display()));
    log.info(&format!(
        "VixDiskLib: Using transport modes from DiskLib: {}.",
        settings.transport_modes
    ));
    let library = Arc::new(Library::new(settings, log));
    library.misbehave(Function::InitEx);
    if let Some(code) = library.fault(Function::InitEx, When::Call, 0, 0) {
        return Err(code);
    }
    library.start_background()?;
    *global = Some(library);
    Ok(())
}

/// `Exit`.
pub fn exit() {
    let Ok(library) = enter(Function::Exit) else { return };
    lock(&LIBRARY).take();
    let (open, connected) = (lock(&library.disks).len(), lock(&library.connections).len());
    if open + connected > 0 {
        library.log.info(&format!(
            "VixDiskLib stub: Exit with {open} open disks and {connected} connections."
        ));
    }
    // Not under the lock, and all of them: after Exit the client may unload this code.
    let disks = std::mem::take(&mut *lock(&library.disks));
    for disk in disks.values() {
        disk.pool.wait();
    }
    drop(disks);
    lock(&library.connections).clear();
    let background = lock(&library.background).take();
    if let Some((stop, thread)) = background {
        drop(stop);
        // After a fork the thread is not in this process, and joining would wait for ever.
        if library.pid == std::process::id() {
            let _ = thread.join();
        }
    }
}

impl Library {
    fn new(settings: Settings, log: Log) -> Self {
        Self {
            total: Bucket::new(settings.bandwidth_total),
            faults: Faults::new(&settings.faults),
            transport_modes: CString::new(settings.transport_modes.as_str()).unwrap_or_default(),
            settings,
            log,
            pid: std::process::id(),
            background: Mutex::default(),
            opening: AtomicBool::new(false),
            connections: Mutex::default(),
            disks: Mutex::default(),
        }
    }

    /// VDDK has threads from `InitEx` on; a process that forks after it has none. Being there is all this one does.
    fn start_background(&self) -> Result<()> {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new()
            .name("vddk-stub".to_owned())
            .spawn(move || {
                // Ends with an error when the sender goes.
                let _ = stopped.recv();
            })
            .map_err(|_| FAIL)?;
        *lock(&self.background) = Some((stop, thread));
        Ok(())
    }

    fn misbehave(&self, function: Function) {
        if self.settings.crash == Some(function) {
            sys::crash();
        }
        if self.settings.hang == Some(function) {
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
    }

    /// The code the settings have this call fail with, and the lines VDDK would log.
    pub fn fault(&self, function: Function, at: When, offset: u64, bytes: u64) -> Option<VixError> {
        let code = self.faults.next(Call { function, at, offset, bytes })?;
        self.log.nfc(code, bytes, self.settings.server.as_deref());
        if !matches!(function, Function::Open) {
            self.log.info(&format!(
                "VixDiskLib: VixDiskLib_{function:?}: Failed. Error {code} ({}).",
                text(code)
            ));
        }
        Some(code)
    }

    /// `fault` for calls without data.
    pub fn call(&self, function: Function) -> Result<()> {
        self.fault(function, When::Call, 0, 0).map_or(Ok(()), Err)
    }

    /// Whether the library's threads are in this process.
    pub fn check_fork(&self, function: Function) -> Result<()> {
        if self.pid == std::process::id() {
            return Ok(());
        }
        self.log.warn(&format!(
            "VixDiskLib stub: VixDiskLib_{function:?} in process {}, but InitEx ran in process {}: the library's threads \
             did not survive the fork.",
            std::process::id(),
            self.pid
        ));
        Err(FAIL)
    }

    /// Runs `body` unless another thread is in here: VDDK wants `Open` and `Close` one at a time.
    pub fn exclusive<T>(&self, function: Function, body: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.opening.swap(true, Ordering::SeqCst) {
            self.log.warn(&format!(
                "VixDiskLib stub: VixDiskLib_{function:?} while another thread is in Open or Close: the client must \
                 serialise them."
            ));
            return Err(OBJECT_IS_BUSY);
        }
        let result = body();
        self.opening.store(false, Ordering::SeqCst);
        result
    }

    pub fn add_connection(&self, connection: Connection) -> usize {
        let id = next_id();
        lock(&self.connections).insert(id, Arc::new(connection));
        id
    }

    pub fn connection(&self, id: usize) -> Result<Arc<Connection>> {
        lock(&self.connections).get(&id).cloned().ok_or(INVALID_CONNECTION)
    }

    pub fn remove_connection(&self, id: usize) -> Result<()> {
        let connection = lock(&self.connections).remove(&id).ok_or(INVALID_CONNECTION)?;
        let mut left = Vec::new();
        lock(&self.disks).retain(|_, disk| {
            let keep = !Arc::ptr_eq(&disk.connection, &connection);
            if !keep {
                left.push(Arc::clone(disk));
            }
            keep
        });
        if !left.is_empty() {
            self.log.warn(&format!("VixDiskLib stub: Disconnect with {} open disks.", left.len()));
        }
        Ok(())
    }

    pub fn add_disk(&self, disk: Disk) -> usize {
        let id = next_id();
        lock(&self.disks).insert(id, Arc::new(disk));
        id
    }

    pub fn disk(&self, id: usize) -> Result<Arc<Disk>> {
        lock(&self.disks).get(&id).cloned().ok_or(INVALID_HANDLE)
    }

    pub fn remove_disk(&self, id: usize) -> Result<Arc<Disk>> {
        lock(&self.disks).remove(&id).ok_or(INVALID_HANDLE)
    }
}

/// A result as the client gets it.
pub fn code(result: Result<()>) -> VixError {
    result.err().unwrap_or(OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_and_close_admit_one() {
        let library = Library::new(Settings::default(), Log::default());
        let inside = library.exclusive(Function::Open, || {
            assert_eq!(library.exclusive(Function::Close, || Ok(())), Err(OBJECT_IS_BUSY));
            Ok(7)
        });
        assert_eq!(inside, Ok(7));
        assert_eq!(library.exclusive(Function::Close, || Ok(())), Ok(()));
    }
}
