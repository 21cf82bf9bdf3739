//! TLS for NBD: certificates as libnbd lays them out, or pre-shared keys.

use super::error::NbdError;
use super::stream::Duplex;
use super::uri::{Address, TlsSettings};
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use std::path::Path;
use std::pin::Pin;

/// Upgrades a connection. Called when the server has acknowledged STARTTLS.
pub async fn upgrade(
    stream: Box<dyn Duplex>,
    settings: &TlsSettings,
    address: &Address,
) -> Result<Box<dyn Duplex>, NbdError> {
    let host = match (&settings.hostname, address) {
        (Some(name), _) => name.clone(),
        (None, Address::Tcp(host, _)) => host.clone(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
    };
    let connector = connector(settings)?;
    let mut config = connector.configure().map_err(failed)?;
    if settings.insecure || settings.psk_file.is_some() {
        config.set_verify_hostname(false);
    }
    let ssl = config.into_ssl(&host).map_err(failed)?;
    let mut tls = tokio_openssl::SslStream::new(ssl, stream).map_err(failed)?;
    Pin::new(&mut tls).connect().await.map_err(failed)?;
    Ok(Box::new(tls))
}

fn connector(settings: &TlsSettings) -> Result<SslConnector, NbdError> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(failed)?;
    if settings.insecure {
        builder.set_verify(SslVerifyMode::NONE);
    }
    if let Some(dir) = &settings.certificates {
        let ca = dir.join("ca-cert.pem");
        builder.set_ca_file(&ca).map_err(|e| file_failed(&ca, &e))?;
        let (cert, key) = (dir.join("client-cert.pem"), dir.join("client-key.pem"));
        if cert.exists() {
            builder.set_certificate_chain_file(&cert).map_err(|e| file_failed(&cert, &e))?;
            builder
                .set_private_key_file(&key, SslFiletype::PEM)
                .map_err(|e| file_failed(&key, &e))?;
        }
    }
    if let Some(file) = &settings.psk_file {
        let user = settings.username.clone().unwrap_or_else(default_user);
        let key = psk(file, &user)?;
        // Key exchange by pre-shared key has no certificate to verify.
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_cipher_list("PSK").map_err(failed)?;
        builder.set_psk_client_callback(move |_, _, identity, out| {
            let user = user.as_bytes();
            if identity.len() <= user.len() || out.len() < key.len() {
                return Ok(0);
            }
            identity[..user.len()].copy_from_slice(user);
            identity[user.len()] = 0;
            out[..key.len()].copy_from_slice(&key);
            Ok(key.len())
        });
    }
    Ok(builder.build())
}

fn default_user() -> String {
    nix::unistd::User::from_uid(nix::unistd::getuid())
        .ok()
        .flatten()
        .map_or_else(|| "root".to_owned(), |u| u.name)
}

/// The key of a user in a file of `USER:HEXKEY` lines.
fn psk(file: &Path, user: &str) -> Result<Vec<u8>, NbdError> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| NbdError::Tls(format!("{}: {e}", file.display())))?;
    let hex = text
        .lines()
        .find_map(|line| line.split_once(':').filter(|(name, _)| *name == user))
        .map(|(_, key)| key.trim())
        .ok_or_else(|| NbdError::Tls(format!("{} has no key for {user:?}", file.display())))?;
    decode_hex(hex).ok_or_else(|| {
        NbdError::Tls(format!("{}: the key of {user:?} is not hexadecimal", file.display()))
    })
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) || text.is_empty() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok()).collect()
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn failed(e: impl std::fmt::Display) -> NbdError {
    NbdError::Tls(e.to_string())
}

fn file_failed(file: &Path, e: &openssl::error::ErrorStack) -> NbdError {
    NbdError::Tls(format!("{}: {e}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_user_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("psk");
        std::fs::write(&file, "bob:00ff\nalice:0a0B\neve:xyz1\n").unwrap();
        assert_eq!(psk(&file, "alice").unwrap(), [10, 11]);
        assert!(psk(&file, "carol").unwrap_err().to_string().contains("carol"));
        let e = psk(&file, "eve").unwrap_err().to_string();
        assert!(e.contains("hexadecimal") && !e.contains("xyz1"));
    }
}
