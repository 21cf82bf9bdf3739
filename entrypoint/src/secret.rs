//! Passwords: read in one way everywhere, and kept out of reach.
//!
//! A password file holds the password in its first line; a line feed at its end is not part of it. Everything that could
//! be read in two ways by the tools (virt-v2v, nbdkit, curl, virsh) is refused, so that they cannot disagree: a carriage
//! return at the end, a second line, a NUL.

use crate::failure::{Class, Failure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Forklift puts the whole secret into the pod's environment, with this prefix. Nobody reads a password or a key from there.
const SECRET_VARIABLES: [&str; 8] = [
    "V2V_secretKey",
    "V2V_password",
    "V2V_token",
    "V2V_ssh-privatekey",
    "V2V_sshprivatekey",
    "V2V_id_ed25519",
    "V2V_id_ecdsa",
    "V2V_id_rsa",
];

/// The password in a file.
pub fn read(path: &Path, what: &str) -> Result<String, Failure> {
    let shown = path.display();
    let failed = |why: &str| {
        Failure::new(Class::Config, format!("{shown} ({what}): {why}"))
            .advise(format!("put the {what} into {shown} as one line of text"))
    };
    let bytes = fs::read(path).map_err(|e| failed(&e.to_string()))?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if line.is_empty() || line.starts_with(b"\n") {
        return Err(failed("its first line is empty"));
    }
    if line.contains(&b'\n') {
        return Err(failed("it has more than one line, and tools differ in what they read of it"));
    }
    if line.ends_with(b"\r") {
        return Err(failed(
            "it ends with a carriage return (a Windows line end), which would count as part of it",
        ));
    }
    if line.contains(&0) {
        return Err(failed("it contains a NUL"));
    }
    String::from_utf8(line.to_vec()).map_err(|_| failed("it is not UTF-8"))
}

/// No core of this process or its children: it would hold the password. A limit of 1, since the kernel ignores a limit
/// of 0 when cores go to a program (systemd-coredump), and never starts that program with 1. A container that was started
/// with a limit of 0 cannot have 1, and keeps its own.
pub fn forbid_cores() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_CORE)?;
    let limit = most.min(1);
    Ok(setrlimit(Resource::RLIMIT_CORE, limit, limit)?)
}

/// Starts this program anew without the secret variables, if there are any: removing a variable leaves it in
/// `/proc/self/environ`. Returns when there is nothing to do.
pub fn leave_environment() -> io::Result<()> {
    let is_secret = |name: &OsStr| SECRET_VARIABLES.iter().any(|s| name == *s);
    if !std::env::vars_os().any(|(name, _)| is_secret(&name)) {
        return Ok(());
    }
    let text = |s: OsString| CString::new(s.into_vec()).map_err(io::Error::other);
    let args = std::env::args_os().map(text).collect::<io::Result<Vec<_>>>()?;
    let env = std::env::vars_os()
        .filter(|(name, _)| !is_secret(name))
        .map(|(mut pair, value)| {
            pair.push("=");
            pair.push(value);
            text(pair)
        })
        .collect::<io::Result<Vec<_>>>()?;
    // Not by name: the file may have been replaced meanwhile.
    nix::unistd::execve(c"/proc/self/exe", &args, &env).map(|never| match never {})?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> Result<String, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secretKey");
        fs::write(&path, bytes).unwrap();
        read(&path, "password")
    }

    #[test]
    fn every_key_of_the_secret_leaves_the_environment() {
        for name in crate::xen::secrets::IDENTITY {
            assert!(SECRET_VARIABLES.contains(&format!("V2V_{name}").as_str()), "{name}");
        }
    }

    #[test]
    fn a_limit_of_no_cores_at_all_is_kept() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        forbid_cores().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (hard.min(1), hard.min(1)));
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        forbid_cores().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0), "it was {soft}");
    }

    #[test]
    fn the_first_line_is_the_password() {
        assert_eq!(written(b"pass word").unwrap(), "pass word");
        assert_eq!(written(b"pass \xc3\xa9\n").unwrap(), "pass \u{e9}");
        assert_eq!(written(b" x \n").unwrap(), " x ");
    }

    #[test]
    fn what_tools_would_read_differently_is_refused_without_showing_it() {
        for bad in [
            &b""[..],
            b"\n",
            b"hunter2\r\n",
            b"hunter2\nmore",
            b"hunter2\n\n",
            b"hunt\0er2",
            b"\xff",
        ] {
            let failure = written(bad).unwrap_err();
            assert_eq!(failure.class, Class::Config);
            assert!(failure.message.contains("secretKey") && !failure.message.contains("hunter2"));
        }
    }
}
