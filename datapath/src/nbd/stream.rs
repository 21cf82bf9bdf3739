//! The byte stream under a connection: Unix, TCP, or TLS over either.

use super::error::NbdError;
use super::uri::Address;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Duplex for T {}

/// Opens the stream, in at most `limit`.
pub async fn open(address: &Address, limit: Duration) -> Result<Box<dyn Duplex>, NbdError> {
    let connecting = async {
        Ok::<Box<dyn Duplex>, std::io::Error>(match address {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    };
    let failed = |source| NbdError::Connect { address: address.to_string(), source };
    match tokio::time::timeout(limit, connecting).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
    }
}
