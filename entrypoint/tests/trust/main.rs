//! Trust against real TLS servers: `openssl s_server` and `gnutls-serv`, with certificates of every
//! shape, and servers that misbehave. Names that do not resolve here are `localhost`.

// clippy.toml allows these in `#[test]` functions only; here everything is test code.
#![allow(clippy::unwrap_used, clippy::panic)]

mod command;
mod lab;
mod pin;
mod server;
mod verify;
