//! An open disk: the file, its limits and its threads.

use crate::abi::SECTOR;
use crate::bucket::Bucket;
use crate::codes::{
    ASYNC_MIXEDMODE, FAIL, FILE_ACCESS_ERROR, FILE_ERROR, FILE_NOT_FOUND, FILE_READ_ONLY,
    OUTOFRANGE, Result,
};
use crate::extents;
use crate::library::Library;
use crate::names;
use crate::pool::Pool;
use crate::session::Connection;
use crate::settings::{Function, When};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

pub struct Disk {
    /// First, so that it goes first: its requests use the rest.
    pub pool: Pool,
    pub connection: Arc<Connection>,
    pub transport: CString,
    /// In sectors.
    pub capacity: u64,
    file: File,
    read_only: bool,
    bucket: Option<Bucket>,
    /// 0 until the first request, then `SYNC` or `ASYNC`.
    mode: AtomicU8,
}

const SYNC: u8 = 1;
const ASYNC: u8 = 2;

impl Disk {
    pub fn open(
        library: &Library,
        connection: Arc<Connection>,
        name: &str,
        read_only: bool,
    ) -> Result<Self> {
        let path = names::find(&library.settings.datastores, name)?;
        let read_only = read_only || connection.read_only;
        let file =
            OpenOptions::new().read(true).write(!read_only).open(path).map_err(
                |error| match error.kind() {
                    ErrorKind::NotFound => FILE_NOT_FOUND,
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                        FILE_ACCESS_ERROR
                    }
                    _ => FILE_ERROR,
                },
            )?;
        // Devices have no length in their metadata; this is for files.
        let bytes = file.metadata().map_err(|_| FILE_ERROR)?.len();
        Ok(Self {
            pool: Pool::new(library.settings.threads).map_err(|_| FAIL)?,
            transport: CString::new(connection.transport.as_str()).unwrap_or_default(),
            connection,
            capacity: bytes.div_ceil(SECTOR),
            file,
            read_only,
            bucket: Bucket::new(library.settings.bandwidth_handle),
            mode: AtomicU8::new(0),
        })
    }

    /// Whether a request is accepted at all. What comes later is its completion.
    pub fn admit(
        &self,
        library: &Library,
        function: Function,
        start: u64,
        bytes: u64,
    ) -> Result<()> {
        self.connection.alive(&library.log)?;
        if matches!(function, Function::Write | Function::WriteAsync) && self.read_only {
            return Err(FILE_READ_ONLY);
        }
        let asynchronous = matches!(function, Function::ReadAsync | Function::WriteAsync);
        let mode = if asynchronous { ASYNC } else { SYNC };
        let before = self.mode.compare_exchange(0, mode, Ordering::SeqCst, Ordering::SeqCst);
        if before.is_err_and(|before| before != mode) {
            library
                .log
                .warn("VixDiskLib stub: synchronous and asynchronous requests on one handle.");
            return Err(ASYNC_MIXEDMODE);
        }
        let end = start.checked_add(bytes / SECTOR).filter(|&end| end <= self.capacity);
        end.ok_or(OUTOFRANGE)?;
        library.fault(function, When::Call, start * SECTOR, bytes).map_or(Ok(()), Err)
    }

    /// Moves the data of an admitted read.
    pub fn read(
        &self,
        library: &Library,
        function: Function,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        self.pace(library, function, start, buffer.len() as u64)?;
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], start * SECTOR + done as u64) {
                // The last sector of a file that ends within it.
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(FILE_ERROR),
            }
        }
        buffer[done..].fill(0);
        Ok(())
    }

    /// Moves the data of an admitted write.
    pub fn write(
        &self,
        library: &Library,
        function: Function,
        start: u64,
        buffer: &[u8],
    ) -> Result<()> {
        self.pace(library, function, start, buffer.len() as u64)?;
        self.file.write_all_at(buffer, start * SECTOR).map_err(|_| FILE_ERROR)
    }

    fn pace(&self, library: &Library, function: Function, start: u64, bytes: u64) -> Result<()> {
        delay(library);
        if matches!(function, Function::ReadAsync | Function::WriteAsync)
            && let Some(code) = library.fault(function, When::Completion, start * SECTOR, bytes)
        {
            return Err(code);
        }
        for bucket in [&self.bucket, &library.total].into_iter().flatten() {
            bucket.take(bytes);
        }
        Ok(())
    }

    pub fn flush(&self) -> Result<()> {
        self.pool.wait();
        if self.read_only { Ok(()) } else { self.file.sync_data().map_err(|_| FILE_ERROR) }
    }

    /// The allocated ranges, in sectors.
    pub fn allocated(
        &self,
        library: &Library,
        start: u64,
        count: u64,
        chunk: u64,
    ) -> Result<Vec<(u64, u64)>> {
        let function = Function::QueryAllocatedBlocks;
        self.connection.alive(&library.log)?;
        extents::check(start, count, chunk, self.capacity)?;
        library
            .fault(function, When::Call, start * SECTOR, count.saturating_mul(SECTOR))
            .map_or(Ok(()), Err)?;
        delay(library);
        if library.settings.sparse {
            extents::allocated(&self.file, start, count, chunk)
        } else {
            Ok(vec![(start, count)])
        }
    }
}

fn delay(library: &Library) {
    let latency = Duration::from_millis(library.settings.latency_ms);
    if !latency.is_zero() {
        std::thread::sleep(latency);
    }
}
