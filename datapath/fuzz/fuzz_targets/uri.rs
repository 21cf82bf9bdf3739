//! The bytes are the text of a place, a size or a rate. Proves that none panics, that errors name
//! the text, that a URI is understood the same after it is taken apart and written again, and that
//! plain characters of export and socket come out as they went in.

#![no_main]

use datapath::nbd::uri::Address;
use datapath::nbd::{NbdUri, is_nbd_uri};
use datapath::place::{Place, nbd_name};
use datapath::units::{Rate, Size};
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::path::Path;

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn encoded_path(path: &Path) -> String {
    encoded(path.to_str().expect("URIs are UTF-8"))
}

/// Writes a URI in a form that leaves nothing to guess.
fn written(uri: &NbdUri) -> String {
    let mut query = Vec::new();
    let scheme = if uri.tls.is_some() { "nbds" } else { "nbd" };
    let (plus, place) = match &uri.address {
        Address::Unix(path) => {
            query.push(format!("socket={}", encoded_path(path)));
            ("+unix", String::new())
        }
        Address::Tcp(host, port) => ("", format!("{}:{port}", encoded(host))),
    };
    let mut user = String::new();
    if let Some(tls) = &uri.tls {
        let mut add = |key, value: Option<String>| {
            query.extend(value.map(|v| format!("{key}={v}")));
        };
        add("tls-certificates", tls.certificates.as_deref().map(encoded_path));
        add("tls-psk-file", tls.psk_file.as_deref().map(encoded_path));
        add("tls-hostname", tls.hostname.as_deref().map(encoded));
        add("tls-verify-peer", tls.insecure.then(|| "0".into()));
        user = tls.username.as_ref().map(|n| encoded(n) + "@").unwrap_or_default();
    }
    format!("{scheme}{plus}://{user}{place}/{}?{}", encoded(&uri.export), query.join("&"))
}

/// Where nothing is escaped, export and socket stand in the text as they are.
fn plain_parts_stay(text: &str, uri: &NbdUri) {
    if text.contains('%') || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return;
    }
    let (_, rest) = text.split_once("://").expect("a scheme");
    let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let export = path.split_once('/').map_or("", |(_, export)| export);
    assert_eq!(uri.export, export, "the export of {text:?}");
    if let Address::Unix(socket) = &uri.address {
        let pairs = query.split('&').map(|p| p.split_once('=').unwrap_or((p, "")));
        let plain = pairs.filter(|(key, _)| *key == "socket").map(|(_, value)| value).next_back();
        assert_eq!(socket.to_str(), plain, "the socket of {text:?}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let text = &*String::from_utf8_lossy(bytes);
    match (text.parse::<NbdUri>(), text.parse::<Place>()) {
        (Ok(uri), place) => {
            assert_eq!(place, Ok(Place::Nbd(uri.clone())));
            assert!(uri.export.len() <= 4096 && !nbd_name(&uri).is_empty());
            plain_parts_stay(text, &uri);
            let again = written(&uri);
            assert_eq!(again.parse::<NbdUri>().as_ref(), Ok(&uri), "{text:?} became {again:?}");
        }
        (Err(e), place) => {
            assert!(e.to_string().contains(&format!("{text:?}")));
            assert_eq!(place.is_err(), is_nbd_uri(text));
        }
    }
    match (text.parse::<Size>(), text.parse::<Rate>()) {
        (Ok(size), rate) => {
            assert_eq!(rate.map(|r| r.0.map_or(0, u64::from)), Ok(size.0));
            assert!(!size.to_string().is_empty());
            assert!(text.parse::<u64>().is_ok_and(|n| n == size.0) || text.parse::<u64>().is_err());
        }
        (Err(e), rate) => {
            assert!(e.to_string().contains(&format!("{text:?}")));
            drop(rate.map(|r| r.to_string()));
        }
    }
});
