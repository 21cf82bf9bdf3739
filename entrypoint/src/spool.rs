//! The log's way out: takes lines at any speed, writes them at the reader's.
//!
//! A slow log reader must not slow the conversion down, and a fast run must not lose its last
//! lines. So lines go into memory, then into an unlinked file on the work volume, and a thread
//! carries them out. Only when that file is full as well are lines dropped, and their number said.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Waiting lines held in memory. Twenty thousand lines of virt-v2v's trace are about 2 MiB.
const MEMORY_BYTES: usize = 4 << 20;
/// Waiting lines held in the file.
const FILE_BYTES: u64 = 512 << 20;
/// What the thread takes at once.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
struct Queue {
    memory: VecDeque<u8>,
    spill: Option<File>,
    /// Where spilled bytes are read and written next; equal when none wait.
    read_at: u64,
    write_at: u64,
    dropped_lines: u64,
    in_flight: bool,
    closed: bool,
    broken: bool,
    /// Counts chunks written; tells a slow reader from a dead one.
    progress: u64,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.read_at == self.write_at && !self.in_flight
    }

    /// Adds one line (or several); `spill_dir` is where the file is made when memory is full.
    fn push(&mut self, bytes: &[u8], spill_dir: &std::path::Path) {
        if self.broken {
            return;
        }
        let spilled = self.read_at != self.write_at;
        if !spilled && self.memory.len() + bytes.len() <= MEMORY_BYTES {
            self.memory.extend(bytes);
            return;
        }
        if self.spill(bytes, spill_dir).is_err() {
            self.dropped_lines += 1;
        }
    }

    fn spill(&mut self, bytes: &[u8], dir: &std::path::Path) -> io::Result<()> {
        if self.write_at + bytes.len() as u64 > FILE_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = match &self.spill {
            Some(file) => file,
            None => self.spill.insert(tempfile::tempfile_in(dir)?),
        };
        file.write_all_at(bytes, self.write_at)?;
        self.write_at += bytes.len() as u64;
        Ok(())
    }

    /// The next bytes to write, oldest first.
    fn take(&mut self) -> Vec<u8> {
        if !self.memory.is_empty() {
            let n = self.memory.len().min(CHUNK_BYTES);
            return self.memory.drain(..n).collect();
        }
        let waiting =
            usize::try_from(self.write_at - self.read_at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let mut chunk = vec![0; waiting];
        let read =
            self.spill.as_ref().map_or(Ok(0), |f| f.read_at(&mut chunk, self.read_at)).unwrap_or(0);
        chunk.truncate(read);
        self.read_at += read as u64;
        if read == 0 || self.read_at == self.write_at {
            // All of it is read: start over with memory, and give the space back.
            (self.read_at, self.write_at) = (0, 0);
            if let Some(file) = &self.spill {
                let _ = file.set_len(0);
            }
        }
        if self.dropped_lines > 0 && self.read_at == self.write_at {
            chunk.extend(
                format!(
                    "[v2v-pod: {} log lines were dropped: the log was read too slowly]\n",
                    self.dropped_lines
                )
                .bytes(),
            );
            self.dropped_lines = 0;
        }
        chunk
    }
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    spill_dir: PathBuf,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle for writing; cheap to clone.
#[derive(Debug, Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

impl Spool {
    /// Starts the thread that writes to `out`.
    pub fn start(mut out: impl Write + Send + 'static, spill_dir: PathBuf) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new(), spill_dir });
        let for_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || carry(&for_thread, &mut out))?;
        Ok(Self { shared })
    }

    /// Waits until everything is written, as long as the reader takes something every `patience`.
    /// A reader that is dead or asleep is given up after that.
    pub fn finish(&self, patience: Duration) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        self.shared.wake.notify_all();
        let mut seen = queue.progress;
        let mut since = Instant::now();
        while !queue.is_empty() && !queue.broken && since.elapsed() < patience {
            queue = self
                .shared
                .wake
                .wait_timeout(queue, Duration::from_millis(50))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if queue.progress != seen {
                seen = queue.progress;
                since = Instant::now();
            }
        }
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.shared.lock().push(bytes, &self.shared.spill_dir);
        self.shared.wake.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn carry(shared: &Shared, out: &mut impl Write) {
    loop {
        let chunk = {
            let mut queue = shared.lock();
            while queue.is_empty() {
                if queue.closed {
                    return;
                }
                queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.in_flight = true;
            queue.take()
        };
        let result = out.write_all(&chunk).and_then(|()| out.flush());
        let mut queue = shared.lock();
        queue.in_flight = false;
        queue.progress += 1;
        if result.is_err() {
            // The reader is gone; the run goes on without a log.
            queue.broken = true;
            queue.memory.clear();
            queue.spill = None;
            (queue.read_at, queue.write_at) = (0, 0);
            shared.wake.notify_all();
            return;
        }
        shared.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A reader that waits for permission before each write.
    struct Gate {
        go: mpsc::Receiver<()>,
        seen: Arc<Mutex<Vec<u8>>>,
        open: bool,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.open {
                self.open = self.go.recv().is_ok();
            }
            self.seen.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Spool, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (send, go) = mpsc::channel();
        let seen = Arc::default();
        let spool =
            Spool::start(Gate { go, seen: Arc::clone(&seen), open: false }, std::env::temp_dir())
                .unwrap();
        (spool, send, seen)
    }

    #[test]
    fn a_late_reader_gets_every_line_in_order() {
        let (mut spool, go, seen) = gated();
        let mut want = Vec::new();
        for i in 0..200_000 {
            let line = format!("line {i} {}\n", "x".repeat(60));
            want.extend(line.bytes());
            spool.write_all(line.as_bytes()).unwrap();
        }
        assert!(want.len() > 2 * MEMORY_BYTES, "the file is used");
        go.send(()).unwrap();
        spool.finish(Duration::from_secs(20));
        assert!(*seen.lock().unwrap() == want, "lines were lost or reordered");
    }

    #[test]
    fn a_dead_reader_ends_nothing() {
        let (mut spool, _go, _seen) = gated();
        spool.write_all(b"x\n").unwrap();
        let began = Instant::now();
        spool.finish(Duration::from_millis(200));
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_closed_reader_is_noticed() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut spool = Spool::start(Closed, std::env::temp_dir()).unwrap();
        for _ in 0..1000 {
            spool.write_all(&[b'x'; 10_000]).unwrap();
        }
        spool.finish(Duration::from_secs(5));
        assert!(spool.shared.lock().broken);
    }
}
