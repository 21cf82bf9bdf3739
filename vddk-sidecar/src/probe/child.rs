//! The throw-away process: loads the library and says how far it comes.

use super::{Connect, Connected, Order, Step, Word};
use crate::vix::api::{Api, CallError, LoadError, Remote};
use crate::vix::types::SECTOR;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

const HIGH: i32 = 100;

/// Runs the child; its exit code. It must have been started with the library's folder in `LD_LIBRARY_PATH`: the library
/// finds its plugins by name.
pub fn child_main() -> u8 {
    match set_up() {
        Err(e) => {
            eprintln!("probe: {e}");
            70
        }
        Ok((order, out)) => {
            let mut voice = Voice { out };
            match run(&order, &mut voice) {
                Ok(()) => voice.say(&Word::Done),
                Err(failed) => voice.say(&failed),
            }
            0
        }
    }
}

/// Reads the order, and keeps standard output for ourselves: the library may print.
fn set_up() -> io::Result<(Order, File)> {
    // The order may hold a password. 1, not 0: the kernel then does not feed a core to a pipe either.
    match setrlimit(Resource::RLIMIT_CORE, 1, 1) {
        // The limit is 0, and only root may raise it: then there is no core file, and this keeps it from a pipe.
        Err(Errno::EPERM) => nix::sys::prctl::set_dumpable(false)?,
        other => other?,
    }
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    let order = serde_json::from_slice(&text)?;
    let out = high_copy(io::stdout())?;
    nix::unistd::dup2_stdout(io::stderr())?;
    Ok((order, File::from(out)))
}

/// A copy with a number that nobody hits by mistake, and that programs started by the library do not inherit.
fn high_copy(of: impl AsFd) -> io::Result<OwnedFd> {
    let mut high = nix::unistd::dup(&of)?;
    let mut low = Vec::new();
    while high.as_raw_fd() < HIGH
        && let Ok(next) = nix::unistd::dup(&of)
    {
        low.push(std::mem::replace(&mut high, next));
    }
    fcntl(&high, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(high)
}

struct Voice {
    out: File,
}

impl Voice {
    fn say(&mut self, word: &Word) {
        let mut line = serde_json::to_vec(word).unwrap_or_default();
        line.push(b'\n');
        // A parent that has gone needs no words.
        let _ = self.out.write_all(&line);
    }
}

fn run(order: &Order, voice: &mut Voice) -> Result<(), Word> {
    voice.say(&Word::Step(Step::Load));
    let api = Api::load(&order.library).map_err(|e| not_loaded(&e))?;
    voice.say(&Word::Step(Step::Init));
    api.init(&order.libdir, order.conf.as_deref()).map_err(call)?;
    voice.say(&Word::Step(Step::Modes));
    voice.say(&Word::Modes(api.transport_modes().map_err(call)?));
    match &order.connect {
        None => {
            voice.say(&Word::Step(Step::Finish));
            api.finish(None, None).map_err(call)
        }
        Some(connect) => read(&api, connect, voice),
    }
}

fn read(api: &Api, connect: &Connect, voice: &mut Voice) -> Result<(), Word> {
    let vm = if connect.vm.starts_with("moref=") {
        connect.vm.clone()
    } else {
        format!("moref={}", connect.vm)
    };
    let remote = Remote {
        server: &connect.server,
        port: u32::from(connect.port),
        nfc_port: connect.nfc_port.map_or(0, u32::from),
        user: &connect.user,
        password: &connect.password,
        thumbprint: connect.thumbprint.as_deref(),
        vm: &vm,
        snapshot: connect.snapshot.as_deref(),
        transports: connect.transports.as_deref(),
    };
    let start = Instant::now();
    voice.say(&Word::Step(Step::Connect));
    let link = api.connect(&remote).map_err(call)?;
    voice.say(&Word::Step(Step::Open));
    let handle = api.open(&link, &connect.disk).map_err(call)?;
    let connect_ms = millis(start.elapsed());
    let sectors = api.capacity(handle).map_err(call)?;
    let transport = api.transport(handle).map_err(call)?;
    voice.say(&Word::Step(Step::Read));
    let start = Instant::now();
    api.read_first_sector(handle).map_err(call)?;
    voice.say(&Word::Connected(Connected {
        disk: connect.disk.clone(),
        size: sectors.saturating_mul(SECTOR as u64),
        transport,
        connect_ms,
        read_ms: millis(start.elapsed()),
    }));
    voice.say(&Word::Step(Step::Finish));
    api.finish(Some(link), Some(handle)).map_err(call)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn not_loaded(error: &LoadError) -> Word {
    let symbols = if let LoadError::Symbols(names) = error { names.clone() } else { Vec::new() };
    Word::Failed { function: None, code: None, text: error.to_string(), symbols }
}

fn call(error: CallError) -> Word {
    Word::Failed {
        function: Some(error.function.to_owned()),
        code: Some(error.code),
        text: error.text,
        symbols: Vec::new(),
    }
}
