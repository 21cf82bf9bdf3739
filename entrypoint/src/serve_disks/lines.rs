//! The command lines: nbdkit for a disk at a vCenter or an ESXi host, and qemu-nbd for an image. Pure.
//!
//! nbdkit's are taken from `virt-v2v -v` (2.6); left out is what comes with `-v` only.
//! `benches/transportbench/lines.py` has the same ones.

use super::Way;
use super::vm::{Vm, parts};
use crate::guest::image::ImageFormat;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// virt-v2v's.
const COOKIE_RENEW: Duration = Duration::from_secs(1500);

/// All that has a meaning in a URL, and all else but what stays readable.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const PATH: &AsciiSet = &VALUE.remove(b'/');

/// The server and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Without port.
    pub host: String,
    /// Of HTTPS.
    pub port: u16,
    /// Decoded.
    pub user: String,
    /// SHA-1.
    pub thumbprint: Option<String>,
    /// Nothing is verified.
    pub insecure: bool,
    /// VDDK.
    pub libdir: PathBuf,
    /// `transports=`, where the library must be told.
    pub vddk_transports: Option<String>,
    /// `config=`, the library's settings.
    pub vddk_config: Option<PathBuf>,
    /// How often the session is begun anew over HTTPS, where virt-v2v's rule is not good enough.
    pub cookie_renew: Option<Duration>,
}

/// What a disk is served for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// As virt-v2v has it: what is written stays in a layer above the disk.
    Conversion,
    /// It is only read.
    Copy,
}

/// Files of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Holds all of them.
    pub folder: PathBuf,
}

impl Files {
    /// The password, for VDDK.
    pub fn password(&self) -> PathBuf {
        self.folder.join("password")
    }

    /// The login, for curl.
    pub fn curl(&self) -> PathBuf {
        self.folder.join("curl")
    }

    /// Fetches a session cookie for a disk.
    pub fn cookie(&self, number: usize) -> PathBuf {
        self.folder.join(format!("cookie{number}"))
    }

    /// Where nbdkit serves it.
    pub fn socket(&self, number: usize) -> PathBuf {
        self.folder.join(format!("in{number}"))
    }

    /// There when nbdkit serves it.
    pub fn pidfile(&self, number: usize) -> PathBuf {
        self.folder.join(format!("in{number}.pid"))
    }

    /// The disk as a source.
    pub fn uri(&self, number: usize) -> String {
        format!("nbd+unix:///?socket={}", self.socket(number).display())
    }
}

/// Where the server has the flat file of a disk.
pub fn folder_url(server: &Server, datacenter: &str, disk: &str) -> Option<String> {
    let (datastore, path) = parts(disk)?;
    let port = if server.port == 443 { String::new() } else { format!(":{}", server.port) };
    let flat = format!("{}-flat.vmdk", path.strip_suffix(".vmdk")?);
    Some(format!(
        "https://{}{port}/folder/{}?dcPath={}&dsName={}",
        server.host,
        utf8_percent_encode(&flat, PATH),
        utf8_percent_encode(datacenter, VALUE),
        utf8_percent_encode(datastore, VALUE),
    ))
}

/// virt-v2v's, but for the password, which it would give to curl as an argument.
pub fn cookie_script(server: &Server, files: &Files, url: &str) -> String {
    let insecure = if server.insecure { "--insecure " } else { "" };
    format!(
        "curl --head -s {insecure}-K {} {} | sed -ne '{{ s/^Set-Cookie: \\([^;]*\\);.*/\\1/ip }}'\n",
        quoted(&files.curl().to_string_lossy()),
        quoted(url)
    )
}

/// The login as a file of curl's options has it.
pub fn curl_options(user: &str, password: &str) -> String {
    let text = format!("{user}:{password}").replace('\\', "\\\\").replace('"', "\\\"");
    format!("user = \"{text}\"\n")
}

/// nbdkit for the disk of that number; `None` for a disk whose name is none.
pub fn nbdkit(
    way: Way,
    server: &Server,
    vm: &Vm,
    disk: &str,
    (files, number): (&Files, usize),
    used: Use,
) -> Option<Vec<String>> {
    let path = |p: PathBuf| p.to_string_lossy().into_owned();
    let mut line: Vec<String> =
        ["--exit-with-parent", "--foreground", "--pidfile"].map(str::to_owned).to_vec();
    line.extend([path(files.pidfile(number)), "--unix".to_owned(), path(files.socket(number))]);
    line.extend(["--threads", "16", "-D", "nbdkit.backend.datapath=0"].map(str::to_owned));
    let cow = match used {
        Use::Conversion => Some(format!("cow-on-read={}", path(files.folder.join("convert")))),
        Use::Copy => {
            line.push("--readonly".to_owned());
            None
        }
    };
    let layer = cow.as_ref().map(|_| "cow");
    match way {
        Way::Https => {
            let cookie = quoted(&path(files.cookie(number)));
            let renew = server.cookie_renew.unwrap_or(COOKIE_RENEW).as_secs();
            line.extend(filters(layer.into_iter().chain(["cacheextents", "retry"])));
            line.extend([
                "curl".to_owned(),
                format!("url={}", folder_url(server, &vm.datacenter, disk)?),
                "timeout=2000".to_owned(),
                format!("cookie-script=sh {cookie}"),
                format!("cookie-script-renew={renew}"),
            ]);
            line.extend(server.insecure.then(|| "sslverify=false".to_owned()));
            line.extend(cow);
        }
        Way::Vddk => {
            // The library's own log has the reasons for its errors.
            line.extend((used == Use::Copy).then(|| "--verbose".to_owned()));
            line.extend(["-D", "vddk.stats=1", "-D", "vddk.datapath=0"].map(str::to_owned));
            let names = ["multi-conn"].into_iter().chain(layer);
            line.extend(filters(names.chain(["blocksize", "cacheextents", "retry"])));
            line.extend([
                "vddk".to_owned(),
                format!("server={}", server.host),
                format!("vm=moref={}", vm.moref),
                format!("file={disk}"),
                format!("user={}", server.user),
                format!("libdir={}", server.libdir.display()),
            ]);
            line.extend((server.port != 443).then(|| format!("port={}", server.port)));
            line.extend(server.thumbprint.as_ref().map(|t| format!("thumbprint={t}")));
            line.extend(server.vddk_transports.as_ref().map(|t| format!("transports={t}")));
            line.extend(server.vddk_config.as_ref().map(|c| format!("config={}", c.display())));
            line.extend(
                ["minblock=512", "maxdata=2M", "multi-conn-mode=disable"].map(str::to_owned),
            );
            line.extend(cow.into_iter().flat_map(|c| ["cow-block-size=4096".to_owned(), c]));
            line.push(format!("password=+{}", path(files.password())));
        }
    }
    Some(line)
}

/// qemu-nbd for the image of that number, read in this format and no other.
pub fn qemu_nbd(image: &Path, format: ImageFormat, files: &Files, number: usize) -> Vec<String> {
    let path = |p: &Path| p.to_string_lossy().into_owned();
    let mut line = ["--read-only", "--persistent", "--shared=16"].map(str::to_owned).to_vec();
    line.push(format!("--format={}", format.as_str()));
    line.push(format!("--pid-file={}", path(&files.pidfile(number))));
    line.push(format!("--socket={}", path(&files.socket(number))));
    line.extend(["--".to_owned(), path(image)]);
    line
}

fn filters<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.flat_map(|n| ["--filter".to_owned(), n.to_owned()]).collect()
}

/// A word as a shell reads it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
