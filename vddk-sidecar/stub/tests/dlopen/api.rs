//! The library as another program sees it: loaded by its path, called through its C interface.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub type Handle = *mut c_void;
type Completion = unsafe extern "C" fn(*mut c_void, u64);
type Log = unsafe extern "C" fn(*const c_char, *mut c_void);

/// `VixDiskLibConnectParams`, written down once more.
#[repr(C)]
struct Params {
    spec: *const c_char,
    server: *const c_char,
    thumbprint: *const c_char,
    reserved1: i64,
    kind: i32,
    user: *const c_char,
    password: *const c_char,
    third: *const c_char,
    rest: [u64; 8],
}

#[repr(C)]
pub struct Info {
    pub geometry: [u32; 6],
    pub capacity: u64,
    pub adapter: i32,
    pub links: i32,
    pub parent: *mut c_char,
    pub uuid: *mut c_char,
    pub logical: u32,
    pub physical: u32,
}

unsafe extern "C" {
    fn vsnprintf(to: *mut c_char, size: usize, format: *const c_char, args: *mut c_void) -> c_int;
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static ONE: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As nbdkit does it: format and `va_list` go to vsnprintf.
unsafe extern "C" fn log(format: *const c_char, args: *mut c_void) {
    let mut line = [0_u8; 1000];
    // SAFETY: the library's format and list; the buffer has the size given.
    unsafe { vsnprintf(line.as_mut_ptr().cast(), line.len(), format, args) };
    let line = CStr::from_bytes_until_nul(&line).unwrap().to_string_lossy();
    lock(&LINES).push(line.trim_end().to_owned());
}

/// What the library has logged since it was loaded.
pub fn lines() -> Vec<String> {
    lock(&LINES).clone()
}

pub fn logged(text: &str) -> bool {
    lines().iter().any(|line| line.contains(text))
}

/// Who comes in, and for what.
pub struct Login<'a> {
    pub user: Option<&'a str>,
    pub password: &'a str,
    pub thumbprint: &'a str,
    pub vm: &'a str,
    pub snapshot: Option<&'a str>,
    pub read_only: bool,
}

impl Default for Login<'_> {
    fn default() -> Self {
        Self {
            user: Some("root"),
            password: "pw",
            thumbprint: "AA",
            vm: "moref=vm-1",
            snapshot: None,
            read_only: true,
        }
    }
}

/// The loaded library. There is one per process, so tests take turns.
pub struct Api {
    library: *mut c_void,
    pub dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// The type of one function, and its name.
macro_rules! function {
    ($api:expr, $name:literal, fn($($argument:ty),*) -> $result:ty) => {{
        let pointer = $api.symbol(concat!("VixDiskLib_", $name));
        // SAFETY: the function has this type in VDDK's header.
        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> $result>(pointer) }
    }};
}

impl Api {
    /// Loads the library. The settings are in the directory that `init` will name.
    pub fn load(settings: &str) -> Self {
        let turn = lock(&ONE);
        lock(&LINES).clear();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("stub.json"), settings).unwrap();
        let path = CString::new(library().to_str().unwrap()).unwrap();
        // SAFETY: dlopen of a file of this build.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "{}", path.to_string_lossy());
        Self { library, dir, _turn: turn }
    }

    /// `load` and a successful `InitEx`.
    pub fn start(settings: &str) -> Self {
        let api = Self::load(settings);
        assert_eq!(api.init(), 0, "{:?}", lines());
        api
    }

    pub fn symbol(&self, name: &str) -> *mut c_void {
        let name = CString::new(name).unwrap();
        // SAFETY: the library stays loaded as long as `self`.
        let found = unsafe { libc::dlsym(self.library, name.as_ptr()) };
        assert!(!found.is_null(), "{name:?}");
        found
    }

    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn init(&self) -> u64 {
        let init = function!(
            self,
            "InitEx",
            fn(u32, u32, Log, Log, Log, *const c_char, *const c_char) -> u64
        );
        let dir = CString::new(self.dir.path().to_str().unwrap()).unwrap();
        // SAFETY: strings that outlive the call.
        unsafe { init(6, 5, log, log, log, dir.as_ptr(), null()) }
    }

    pub fn error_text(&self, error: u64) -> String {
        let text = function!(self, "GetErrorText", fn(u64, *const c_char) -> *mut c_char);
        let free = function!(self, "FreeErrorText", fn(*mut c_char) -> ());
        // SAFETY: the text is copied and then given back.
        unsafe {
            let text = text(error, null());
            let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
            free(text);
            copy
        }
    }

    pub fn connect(&self, login: &Login<'_>) -> Result<Handle, u64> {
        let allocate = function!(self, "AllocateConnectParams", fn() -> *mut Params);
        let free = function!(self, "FreeConnectParams", fn(*mut Params) -> ());
        let connect = function!(
            self,
            "ConnectEx",
            fn(*const Params, c_char, *const c_char, *const c_char, *mut Handle) -> u64
        );
        let text = |text: &str| CString::new(text).unwrap();
        let (spec, server) = (text(login.vm), text("vc"));
        let (thumbprint, password) = (text(login.thumbprint), text(login.password));
        let (user, snapshot) = (login.user.map(text), login.snapshot.map(text));
        let pointer = |text: &Option<CString>| text.as_ref().map_or(null(), |text| text.as_ptr());
        let mut connection = null_mut();
        // SAFETY: the library's own structure, with strings that outlive the call.
        let error = unsafe {
            let params = allocate();
            (*params).spec = spec.as_ptr();
            (*params).server = server.as_ptr();
            (*params).thumbprint = thumbprint.as_ptr();
            (*params).kind = 1;
            (*params).user = pointer(&user);
            (*params).password = password.as_ptr();
            let transports = c"file:nbdssl:nbd".as_ptr();
            let read_only = c_char::from(login.read_only);
            let error =
                connect(params, read_only, pointer(&snapshot), transports, &raw mut connection);
            free(params);
            error
        };
        if error == 0 { Ok(connection) } else { Err(error) }
    }

    pub fn open(&self, connection: Handle, path: &str) -> Result<Handle, u64> {
        let open = function!(self, "Open", fn(Handle, *const c_char, u32, *mut Handle) -> u64);
        let path = CString::new(path).unwrap();
        let mut disk = null_mut();
        // SAFETY: a string and a place for a handle.
        let error = unsafe { open(connection, path.as_ptr(), 0, &raw mut disk) };
        if error == 0 { Ok(disk) } else { Err(error) }
    }

    /// Connects and opens.
    pub fn disk(&self, login: &Login<'_>, path: &str) -> Result<Handle, u64> {
        self.open(self.connect(login)?, path)
    }

    /// A function that takes nothing but a handle.
    pub fn call(&self, name: &str, handle: Handle) -> u64 {
        let pointer = self.symbol(&format!("VixDiskLib_{name}"));
        // SAFETY: the caller names a function of this type: Close, Disconnect, Wait, Flush.
        unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Handle) -> u64>(pointer)(handle)
        }
    }

    pub fn transport(&self, disk: Handle) -> String {
        let mode = function!(self, "GetTransportMode", fn(Handle) -> *const c_char);
        // SAFETY: the string lives until Close.
        unsafe { CStr::from_ptr(mode(disk)) }.to_string_lossy().into_owned()
    }

    pub fn info<T>(&self, disk: Handle, look: impl FnOnce(&Info) -> T) -> Result<T, u64> {
        let get = function!(self, "GetInfo", fn(Handle, *mut *mut Info) -> u64);
        let free = function!(self, "FreeInfo", fn(*mut Info) -> ());
        let mut info = null_mut();
        // SAFETY: a place for a pointer; the structure is given back after `look`.
        unsafe {
            match get(disk, &raw mut info) {
                0 => {
                    let seen = look(&*info);
                    free(info);
                    Ok(seen)
                }
                error => Err(error),
            }
        }
    }

    pub fn read(&self, disk: Handle, start: u64, sectors: u64) -> Result<Vec<u8>, u64> {
        let read = function!(self, "Read", fn(Handle, u64, u64, *mut u8) -> u64);
        let mut buffer = vec![0xA5; usize::try_from(sectors * 512).unwrap()];
        // SAFETY: the buffer has room for these sectors.
        let error = unsafe { read(disk, start, sectors, buffer.as_mut_ptr()) };
        if error == 0 { Ok(buffer) } else { Err(error) }
    }

    pub fn write(&self, disk: Handle, start: u64, data: &[u8]) -> u64 {
        let write = function!(self, "Write", fn(Handle, u64, u64, *const u8) -> u64);
        // SAFETY: the buffer holds these sectors.
        unsafe { write(disk, start, data.len() as u64 / 512, data.as_ptr()) }
    }

    /// Starts a read into `slot`, which must stay where it is until `Wait`.
    pub fn read_async(&self, disk: Handle, start: u64, slot: &mut Slot) -> u64 {
        let read = function!(
            self,
            "ReadAsync",
            fn(Handle, u64, u64, *mut u8, Completion, *mut c_void) -> u64
        );
        let buffer = slot.buffer.as_mut_ptr();
        let sectors = slot.buffer.len() as u64 / 512;
        // SAFETY: the buffer has room for these sectors, and both stay until the completion.
        unsafe {
            read(disk, start, sectors, buffer, complete, (&raw const slot.done).cast_mut().cast())
        }
    }

    pub fn blocks(&self, disk: Handle, start: u64, count: u64) -> Result<Vec<(u64, u64)>, u64> {
        let query = function!(
            self,
            "QueryAllocatedBlocks",
            fn(Handle, u64, u64, u64, *mut *mut u64) -> u64
        );
        let free = function!(self, "FreeBlockList", fn(*mut u64) -> u64);
        let mut list = null_mut();
        // SAFETY: a place for a pointer; the count is 32 bits at the beginning, the blocks are pairs from byte 8 on.
        unsafe {
            match query(disk, start, count, 128, &raw mut list) {
                0 => {
                    let count = usize::try_from(list.cast::<u32>().read()).unwrap();
                    let pair = |index: usize| {
                        (list.add(1 + 2 * index).read(), list.add(2 + 2 * index).read())
                    };
                    let blocks = (0..count).map(pair).collect();
                    assert_eq!(free(list), 0);
                    Ok(blocks)
                }
                error => Err(error),
            }
        }
    }
}

/// Runs `body` in a child made by fork; the wait status of the child.
pub fn in_fork(body: impl FnOnce() -> i32) -> i32 {
    let mut status = 0;
    // SAFETY: the child runs `body` and ends without unwinding into the parent's test.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::_exit(body());
        }
        assert!(child > 0);
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
    }
    status
}

impl Drop for Api {
    fn drop(&mut self) {
        let exit = function!(self, "Exit", fn() -> ());
        // SAFETY: nothing of the library is in use any more; unloading it is part of the test.
        unsafe {
            exit();
            libc::dlclose(self.library);
        }
    }
}

/// One asynchronous read.
pub struct Slot {
    pub buffer: Vec<u8>,
    done: Done,
}

#[derive(Default)]
struct Done {
    result: Mutex<Option<(u64, std::thread::ThreadId)>>,
    changed: Condvar,
}

impl Slot {
    pub fn new(sectors: usize) -> Self {
        Self { buffer: vec![0xA5; sectors * 512], done: Done::default() }
    }

    /// The code of the completion, and whether it came on this thread; `None` before it has come.
    pub fn result(&self) -> Option<(u64, bool)> {
        let result = *lock(&self.done.result);
        result.map(|(code, thread)| (code, thread == std::thread::current().id()))
    }
}

unsafe extern "C" fn complete(data: *mut c_void, result: u64) {
    // SAFETY: the slot's `done`, which stays until the completion.
    let done = unsafe { &*data.cast::<Done>() };
    *lock(&done.result) = Some((result, std::thread::current().id()));
    done.changed.notify_all();
}

/// The library of this build: cargo puts it beside the test, or one directory up.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let near = test.parent().unwrap();
    let candidates = [
        near.join("libvixDiskLib.so"),
        near.parent().unwrap_or(Path::new("/")).join("libvixDiskLib.so"),
    ];
    candidates
        .iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("none of {candidates:?}"))
        .clone()
}
