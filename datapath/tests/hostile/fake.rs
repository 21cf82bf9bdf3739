//! A scripted server on a Unix socket: what a connection gets is a function of the test.

use crate::frames::{READ, Request, WRITE};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

const DRIP: Duration = Duration::from_millis(50);

/// What goes wrong after so many sent bytes.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Never,
    Close(usize),
    Hang(usize),
    Drip(usize),
}

/// One connection, from the server's side.
#[derive(Debug)]
pub struct Peer {
    stream: UnixStream,
    pub fault: Fault,
    pub sent: usize,
}

impl Peer {
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (Fault::Close(after) | Fault::Hang(after) | Fault::Drip(after)) = self.fault else {
            return self.put(bytes).await;
        };
        let good = bytes.len().min(after.saturating_sub(self.sent));
        self.put(&bytes[..good]).await?;
        if good == bytes.len() {
            return Ok(());
        }
        match self.fault {
            Fault::Close(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            Fault::Hang(_) => std::future::pending().await,
            Fault::Drip(_) | Fault::Never => {}
        }
        for byte in &bytes[good..] {
            tokio::time::sleep(DRIP).await;
            self.put(&[*byte]).await?;
        }
        Ok(())
    }

    async fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.sent += bytes.len();
        Ok(())
    }

    /// The same bytes until the client has enough of it.
    pub async fn send_for_ever(&mut self, bytes: &[u8]) -> io::Result<()> {
        let many = bytes.repeat((64 << 10) / bytes.len() + 1);
        loop {
            self.send(&many).await?;
        }
    }

    /// Silence on an open connection.
    pub async fn hang(&mut self) -> io::Result<()> {
        std::future::pending().await
    }

    pub async fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    pub async fn take_vec(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// An option and its data.
    pub async fn option(&mut self) -> io::Result<(u32, Vec<u8>)> {
        assert_eq!(&self.take::<8>().await?, b"IHAVEOPT");
        let option = u32::from_be_bytes(self.take().await?);
        let length = u32::from_be_bytes(self.take().await?);
        Ok((option, self.take_vec(length as usize).await?))
    }

    /// A request, and the payload of a write.
    pub async fn request(&mut self, extended: bool) -> io::Result<Request> {
        let magic = if extended { 0x21e4_1c71 } else { 0x2560_9513 };
        assert_eq!(u32::from_be_bytes(self.take().await?), magic);
        let flags = u16::from_be_bytes(self.take().await?);
        let command = u16::from_be_bytes(self.take().await?);
        let cookie = u64::from_be_bytes(self.take().await?);
        let offset = u64::from_be_bytes(self.take().await?);
        let length = if extended {
            u64::from_be_bytes(self.take().await?)
        } else {
            u32::from_be_bytes(self.take().await?).into()
        };
        let mut payload = Vec::new();
        if command == WRITE {
            // With extended headers the flag says that the length is a payload's.
            assert_eq!(flags & 1 << 5 != 0, extended);
            payload = self.take_vec(usize::try_from(length).unwrap()).await?;
        } else {
            assert!(flags & 1 << 5 == 0 && (command != READ || flags == 0));
        }
        Ok(Request { flags, command, cookie, offset, length, payload })
    }
}

/// A listening server; dropping it ends it and all its connections.
#[derive(Debug)]
pub struct Server {
    dir: TempDir,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    /// Every connection gets the script, with its number (from 0).
    pub fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Peer, usize) -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(script(Peer { stream, fault: Fault::Never, sent: 0 }, number));
            }
        });
        Self { dir, accepted, task }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket().display())
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
