//! Makes HTTPS clients trust what we trust. curl is told by a variable; libvirt and nbdkit have no setting and take the CAs of
//! the system, which therefore are replaced for them: in our image by the link that the system's list leads to, elsewhere, as
//! root, by a folder that is mounted over the system's for the tools alone.

use super::access::Anchors;
use crate::failure::{Class, Failure};
use crate::links;
use crate::toolbox::Toolbox;
use std::fs;
use std::path::{Path, PathBuf};

/// Where `OpenSSL` and `GnuTLS` find the system's CAs in one file, on Debian and on Fedora; their folders are read as well.
const SYSTEM_LISTS: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
/// Forklift's URLs name this path as `cacert=`; in our image the system's list of CAs leads to it.
pub const CA_LINK: &str = "/opt/ca-bundle.crt";
/// The system's CAs in our image, where their usual place is that link.
pub const SYSTEM_CA: &str = "/etc/pki/tls/certs/ca-bundle.crt.bak";
/// Of capabilities(7), as a bit.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// The file with the certificates, when they are not the system's; a pinned one is written into the run's folder.
pub fn file(anchors: &Anchors, run_dir: &Path) -> Result<Option<PathBuf>, Failure> {
    match anchors {
        Anchors::System | Anchors::None => Ok(None),
        Anchors::File(path) => Ok(Some(path.clone())),
        Anchors::Pinned(pem) => {
            let path = run_dir.join("pinned.pem");
            write(&path, pem)?;
            Ok(Some(path))
        }
    }
}

/// From now on the tools trust the certificates in `file` and no others.
pub fn narrow(toolbox: &mut Toolbox, file: &Path, run_dir: &Path) -> Result<(), Failure> {
    toolbox.set("SSL_CERT_FILE", file.as_os_str());
    toolbox.set("CURL_CA_BUNDLE", file.as_os_str());
    if leads_to(file) {
        return Ok(());
    }
    // In our image; in pod mode it was done already, or cannot be done.
    if is_our_image() && links::point(Path::new(CA_LINK), file).is_ok() && leads_to(file) {
        return Ok(());
    }
    let list = SYSTEM_LISTS.iter().map(Path::new).find(|l| l.exists());
    if let Some((list, system)) = list.and_then(|l| Some((l, l.parent()?))).filter(|_| may_mount())
    {
        let folder = run_dir.join("certificates");
        let name = list.file_name().unwrap_or_default();
        let pem = fs::read(file).map_err(|e| unreadable(file, &e))?;
        fs::create_dir_all(&folder).map_err(|e| unreadable(&folder, &e))?;
        write(&folder.join(name), &pem)?;
        toolbox.mount_certificates(folder, system.to_owned());
        return Ok(());
    }
    let message = format!(
        "libvirt and nbdkit take the CAs of the system, and {} does not lead to {}",
        SYSTEM_LISTS[0],
        file.display()
    );
    let advice = "use the v2v-pod image and make /opt writable (an emptyDir), run as root, or put the certificate into the system's CAs";
    // Another CA than the one that was asked for would do for them.
    Err(Failure::new(Class::Trust, message).advise(advice))
}

/// The tools trust the system's CAs again, after an earlier run in this container has narrowed them.
pub fn widen() {
    let all = Path::new(SYSTEM_CA);
    if !is_our_image() || !all.exists() || leads_to(all) {
        return;
    }
    if let Err(e) = links::point(Path::new(CA_LINK), all) {
        let advice = "make /opt writable (an emptyDir), or mount nothing there";
        tracing::warn!(error = %e, advice, "the tools trust what an earlier run trusted, or nothing");
    }
}

fn is_our_image() -> bool {
    SYSTEM_LISTS.iter().any(|list| fs::read_link(list).is_ok_and(|to| to == Path::new(CA_LINK)))
}

/// Whether the system's list is this file.
fn leads_to(file: &Path) -> bool {
    let wanted = fs::canonicalize(file).ok();
    wanted.is_some() && SYSTEM_LISTS.iter().any(|list| fs::canonicalize(list).ok() == wanted)
}

/// Whether this process may mount: root in a pod usually may not.
fn may_mount() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|b| b & CAP_SYS_ADMIN != 0)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, e: &std::io::Error) -> Failure {
    Failure::new(Class::Config, format!("{}: {e}", path.display()))
}
