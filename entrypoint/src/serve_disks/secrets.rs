//! The login of the servers that read from a vCenter or an ESXi host: files in a folder of the run, for nobody else, never
//! an argument.

use super::lines::{self, Files, Server};
use super::vm::Vm;
use crate::failure::{Class, Failure};
use crate::secret;
use percent_encoding::percent_decode_str;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Who asks.
pub struct Login {
    /// As it is, not encoded.
    pub user: String,
    password: String,
}

/// The user that a URL names.
pub fn user_of(url: &str) -> Option<String> {
    let user = url::Url::parse(url).map(|u| u.username().to_owned()).unwrap_or_default();
    let user = percent_decode_str(&user).decode_utf8_lossy().into_owned();
    (!user.is_empty()).then_some(user)
}

impl Login {
    /// Reads the password.
    pub fn new(user: String, password_file: &Path) -> Result<Self, Failure> {
        if user.contains(['\n', '\0', ':']) {
            let message = "the user of the source has a line end or a colon in the name";
            return Err(Failure::new(Class::Config, message).advise("use another user"));
        }
        Ok(Self { user, password: secret::read(password_file, "password")? })
    }
}

/// For the tools, and nobody else: the folder is the run's.
pub fn write_secrets(
    files: &Files,
    server: &Server,
    vm: &Vm,
    disks: &[String],
    login: &Login,
) -> Result<(), Failure> {
    std::fs::create_dir_all(&files.folder).map_err(|e| {
        Failure::new(Class::NoSpace, format!("cannot make {}: {e}", files.folder.display()))
    })?;
    write_private(&files.password(), &login.password)?;
    write_private(&files.curl(), &lines::curl_options(&login.user, &login.password))?;
    for (number, disk) in disks.iter().enumerate() {
        let url = lines::folder_url(server, &vm.datacenter, disk).unwrap_or_default();
        write_private(&files.cookie(number), &lines::cookie_script(server, files, &url))?;
    }
    Ok(())
}

/// A file for nobody else.
fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e: std::io::Error| {
        Failure::new(Class::NoSpace, format!("cannot write {}: {e}", path.display()))
    };
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}
