//! Requests: reads, writes, extents.

use super::Handle;
use crate::abi::{BlockList, CompletionFn, Geometry, Info, SECTOR};
use crate::codes::{ASYNC, INVALID_ARG, OUT_OF_MEMORY, OUTOFRANGE, Result, VixError};
use crate::disk::Disk;
use crate::library::{Library, code, enter};
use crate::memory;
use crate::settings::{Asynchrony, Function, Settings};
use std::ffi::c_void;
use std::sync::Arc;

/// The client's buffer and completion, on their way to another thread.
struct Request {
    library: Arc<Library>,
    disk: Arc<Disk>,
    function: Function,
    start: u64,
    buffer: *mut u8,
    length: usize,
    completion: Option<CompletionFn>,
    data: *mut c_void,
}

// SAFETY: by VDDK's interface the buffer is left to the library until the completion, and the completion may be called on
// any thread, with its data.
unsafe impl Send for Request {}

impl Request {
    /// Finds the disk and checks the request.
    fn new(
        function: Function,
        disk: Handle,
        start: u64,
        count: u64,
        buffer: *mut u8,
    ) -> Result<Self> {
        let library = enter(function)?;
        let disk = library.disk(disk.addr())?;
        let bytes = count.checked_mul(SECTOR).ok_or(OUTOFRANGE)?;
        let length = usize::try_from(bytes).map_err(|_| OUTOFRANGE)?;
        if buffer.is_null() {
            return Err(INVALID_ARG);
        }
        disk.admit(&library, function, start, bytes)?;
        let data = std::ptr::null_mut();
        Ok(Self { library, disk, function, start, buffer, length, completion: None, data })
    }

    fn run(&self) -> Result<()> {
        if matches!(self.function, Function::Write | Function::WriteAsync) {
            // SAFETY: by the interface the buffer holds `length` bytes until the completion.
            let buffer = unsafe { std::slice::from_raw_parts(self.buffer, self.length) };
            self.disk.write(&self.library, self.function, self.start, buffer)
        } else {
            // SAFETY: by the interface the buffer has room for `length` bytes, and is the library's alone until the
            // completion.
            let buffer = unsafe { std::slice::from_raw_parts_mut(self.buffer, self.length) };
            self.disk.read(&self.library, self.function, self.start, buffer)
        }
    }

    fn complete(&self) {
        let result = code(self.run());
        if let Some(completion) = self.completion {
            // SAFETY: the client's function with the client's data, called once.
            unsafe { completion(self.data, result) };
        }
    }

    fn submit(mut self, completion: Option<CompletionFn>, data: *mut c_void) -> VixError {
        self.completion = completion;
        self.data = data;
        match self.library.settings.asynchrony {
            Asynchrony::Inline => self.complete(),
            Asynchrony::Callback => {
                // The job owns the disk, and the disk the job's thread; Close and Exit wait for the jobs before they let
                // go of the disk, so that no job is its last owner.
                let disk = Arc::clone(&self.disk);
                disk.pool.submit(Box::new(move || self.complete()));
            }
        }
        ASYNC
    }
}

fn now(function: Function, disk: Handle, start: u64, count: u64, buffer: *mut u8) -> VixError {
    code(Request::new(function, disk, start, count, buffer).and_then(|request| request.run()))
}

#[unsafe(export_name = "VixDiskLib_Read")]
extern "C" fn read(disk: Handle, start: u64, count: u64, buffer: *mut u8) -> VixError {
    now(Function::Read, disk, start, count, buffer)
}

#[unsafe(export_name = "VixDiskLib_Write")]
extern "C" fn write(disk: Handle, start: u64, count: u64, buffer: *const u8) -> VixError {
    now(Function::Write, disk, start, count, buffer.cast_mut())
}

#[unsafe(export_name = "VixDiskLib_ReadAsync")]
extern "C" fn read_async(
    disk: Handle,
    start: u64,
    count: u64,
    buffer: *mut u8,
    completion: Option<CompletionFn>,
    data: *mut c_void,
) -> VixError {
    Request::new(Function::ReadAsync, disk, start, count, buffer)
        .map_or_else(|error| error, |request| request.submit(completion, data))
}

#[unsafe(export_name = "VixDiskLib_WriteAsync")]
extern "C" fn write_async(
    disk: Handle,
    start: u64,
    count: u64,
    buffer: *const u8,
    completion: Option<CompletionFn>,
    data: *mut c_void,
) -> VixError {
    Request::new(Function::WriteAsync, disk, start, count, buffer.cast_mut())
        .map_or_else(|error| error, |request| request.submit(completion, data))
}

#[unsafe(export_name = "VixDiskLib_Wait")]
extern "C" fn wait(disk: Handle) -> VixError {
    let wait = || {
        let library = enter(Function::Wait)?;
        let disk = library.disk(disk.addr())?;
        disk.pool.wait();
        disk.connection.alive(&library.log)?;
        library.call(Function::Wait)
    };
    code(wait())
}

#[unsafe(export_name = "VixDiskLib_Flush")]
extern "C" fn flush(disk: Handle) -> VixError {
    let flush = || {
        let library = enter(Function::Flush)?;
        let disk = library.disk(disk.addr())?;
        disk.connection.alive(&library.log)?;
        library.call(Function::Flush)?;
        disk.flush()
    };
    code(flush())
}

#[unsafe(export_name = "VixDiskLib_QueryAllocatedBlocks")]
unsafe extern "C" fn query_allocated_blocks(
    disk: Handle,
    start: u64,
    count: u64,
    chunk: u64,
    out: *mut *mut BlockList,
) -> VixError {
    let query = || {
        let library = enter(Function::QueryAllocatedBlocks)?;
        let disk = library.disk(disk.addr())?;
        if out.is_null() {
            return Err(INVALID_ARG);
        }
        let list = memory::give_blocks(&disk.allocated(&library, start, count, chunk)?);
        if list.is_null() { Err(OUT_OF_MEMORY) } else { Ok(list) }
    };
    let list = query();
    code(list.map(|list| {
        // SAFETY: not NULL, and a place for a pointer by the interface.
        unsafe { out.write(list) };
    }))
}

#[unsafe(export_name = "VixDiskLib_FreeBlockList")]
unsafe extern "C" fn free_block_list(list: *mut BlockList) -> VixError {
    let _ = enter(Function::FreeBlockList);
    // SAFETY: NULL or from QueryAllocatedBlocks, by the interface.
    unsafe { memory::free_blocks(list) };
    code(Ok(()))
}

/// What `GetInfo` answers. The geometry is the usual made-up one.
pub fn info(settings: &Settings, capacity: u64) -> Info {
    const HEADS: u32 = 255;
    const SECTORS: u32 = 63;
    const LSI_LOGIC: i32 = 3;
    let cylinders = capacity / u64::from(HEADS * SECTORS);
    let geometry = Geometry {
        cylinders: u32::try_from(cylinders).unwrap_or(u32::MAX),
        heads: HEADS,
        sectors: SECTORS,
    };
    Info {
        bios_geo: geometry,
        phys_geo: geometry,
        capacity,
        adapter_type: LSI_LOGIC,
        num_links: 1,
        parent_file_name_hint: std::ptr::null_mut(),
        uuid: settings.uuid.as_deref().map_or(std::ptr::null_mut(), memory::give_string),
        logical_sector_size: settings.logical_sector_size,
        physical_sector_size: settings.physical_sector_size,
    }
}
