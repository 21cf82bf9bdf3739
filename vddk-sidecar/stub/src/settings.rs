//! The settings file: what the pretended server has, whom it lets in and how it fails.

use crate::codes::VixError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Names the settings file, where the environment reaches the library at all.
pub const VARIABLE: &str = "VDDK_STUB_CONFIG";
const FILE: &str = "stub.json";

/// A function of the library, under its name without the prefix `VixDiskLib_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub enum Function {
    InitEx,
    Exit,
    ListTransportModes,
    GetErrorText,
    FreeErrorText,
    AllocateConnectParams,
    FreeConnectParams,
    ConnectEx,
    Disconnect,
    Open,
    Close,
    GetTransportMode,
    GetInfo,
    FreeInfo,
    Read,
    Write,
    ReadAsync,
    WriteAsync,
    Wait,
    Flush,
    QueryAllocatedBlocks,
    FreeBlockList,
    Create,
}

/// Where `ReadAsync` and `WriteAsync` run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Asynchrony {
    /// On the handle's own threads, several at once: as VDDK does it.
    #[default]
    Callback,
    /// In the call itself, which returns after the callback.
    Inline,
}

/// What tells the client that the server did not let it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum LoginErrors {
    /// `ConnectEx` succeeds and `Open` fails: as VDDK 8 does it when no advanced transport is loaded.
    #[default]
    Open,
    /// `ConnectEx` fails.
    ConnectEx,
}

/// When an asynchronous call shows its fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// The call is accepted and its completion has the code.
    #[default]
    Completion,
    /// The call itself fails.
    Call,
}

/// Calls that fail.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The function that fails.
    pub function: Function,
    /// With which code.
    pub code: VixError,
    /// Only after so many of the calls meant by `min_bytes` and `range` have passed.
    #[serde(default)]
    pub after: u64,
    /// How many times; without it, always.
    pub count: Option<u64>,
    /// Which part of the calls, 0 to 1; without it, all.
    pub rate: Option<f64>,
    /// Only requests of at least so many bytes.
    #[serde(default)]
    pub min_bytes: u64,
    /// Only requests that touch bytes from the first (included) to the second (excluded).
    pub range: Option<[u64; 2]>,
    /// For `ReadAsync` and `WriteAsync`: in the call or in its completion.
    #[serde(default)]
    pub at: When,
}

/// A password. It has no way into a log.
#[derive(Clone, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub struct Secret(String);

/// Not serde's own way: its error about another type would show the value.
impl TryFrom<serde_json::Value> for Secret {
    type Error = &'static str;

    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        match value {
            serde_json::Value::String(text) => Ok(Self(text)),
            _ => Err("a password or cookie must be a string"),
        }
    }
}

impl Secret {
    /// Whether this is the password.
    pub fn is(&self, other: &[u8]) -> bool {
        self.0.as_bytes() == other
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(not shown)")
    }
}

/// Everything the file may say. What the server does not care about is left out of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Datastores and the directories that stand for them; relative ones are below the file's own directory.
    pub datastores: BTreeMap<String, PathBuf>,
    /// The name under which the server is reached.
    pub server: Option<String>,
    /// The one user.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// The cookie of a session that exists, for clients that come with one.
    pub cookie: Option<Secret>,
    /// SHA-1 of the server's certificate, as pairs of digits with colons.
    pub thumbprint: Option<String>,
    /// The one VM, such as `vm-16`.
    pub moref: Option<String>,
    /// The one snapshot, such as `snapshot-12`.
    pub snapshot: Option<String>,
    /// The VM runs: its disks open only with a snapshot.
    pub running_vm: bool,
    /// What tells of a failed login.
    pub login_errors: LoginErrors,
    /// Every request takes at least so long.
    pub latency_ms: u64,
    /// Bytes per second of one handle.
    pub bandwidth_handle: Option<u64>,
    /// Bytes per second of all handles of the process.
    pub bandwidth_total: Option<u64>,
    /// Calls that fail.
    pub faults: Vec<Fault>,
    /// A connection that is older fails in every call.
    pub session_expires_after_ms: Option<u64>,
    /// The function that ends the process with SIGSEGV.
    pub crash: Option<Function>,
    /// The function that never returns.
    pub hang: Option<Function>,
    /// The answer of `ListTransportModes`.
    pub transport_modes: String,
    /// The answer of `GetTransportMode`.
    pub transport: String,
    /// Allocated is what the file has data for; otherwise everything.
    pub sparse: bool,
    /// Where asynchronous requests run.
    #[serde(rename = "async")]
    pub asynchrony: Asynchrony,
    /// Threads of one handle.
    pub threads: usize,
    /// The disks' UUID in `GetInfo`.
    pub uuid: Option<String>,
    /// The logical sector size in `GetInfo`.
    pub logical_sector_size: u32,
    /// The physical sector size in `GetInfo`.
    pub physical_sector_size: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            datastores: BTreeMap::new(),
            server: None,
            user: None,
            password: None,
            password_file: None,
            cookie: None,
            thumbprint: None,
            moref: None,
            snapshot: None,
            running_vm: false,
            login_errors: LoginErrors::default(),
            latency_ms: 0,
            bandwidth_handle: None,
            bandwidth_total: None,
            faults: Vec::new(),
            session_expires_after_ms: None,
            crash: None,
            hang: None,
            transport_modes: "file:nbdssl:nbd".to_owned(),
            transport: "nbdssl".to_owned(),
            sparse: true,
            asynchrony: Asynchrony::default(),
            threads: 4,
            uuid: None,
            logical_sector_size: 512,
            physical_sector_size: 512,
        }
    }
}

impl Settings {
    /// From a file's text. Paths in it are below `directory`.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let mut settings: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for path in settings.datastores.values_mut() {
            *path = directory.join(&path);
        }
        if let Some(path) = settings.password_file.take() {
            if settings.password.is_some() {
                return Err("password and password_file exclude each other".to_owned());
            }
            let path = directory.join(path);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            settings.password = Some(Secret(text.lines().next().unwrap_or_default().to_owned()));
        }
        if settings.threads == 0 {
            return Err("threads: at least 1".to_owned());
        }
        for fault in &settings.faults {
            if fault.rate.is_some_and(|rate| !(0.0..=1.0).contains(&rate)) {
                return Err("rate: from 0 to 1".to_owned());
            }
        }
        Ok(settings)
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text, path.parent().unwrap_or_else(|| Path::new(".")))
            .map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// The settings file: the one the environment names; else `stub.json` in the directory the client gave, in its `lib64`
/// or beside the library. The environment often does not get here: supervisors and wrappers clean it.
pub fn find(
    variable: Option<OsString>,
    lib_dir: Option<&Path>,
    library: Option<&Path>,
) -> Result<PathBuf, String> {
    if let Some(path) = variable.filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let beside = library.and_then(Path::parent);
    let candidates =
        [lib_dir.map(|dir| dir.join(FILE)), lib_dir.map(|dir| dir.join("lib64").join(FILE))]
            .into_iter()
            .chain([
                beside.map(|dir| dir.join(FILE)),
                beside.and_then(Path::parent).map(|dir| dir.join(FILE)),
            ])
            .flatten();
    let mut tried = Vec::new();
    for path in candidates {
        if path.exists() {
            return Ok(path);
        }
        tried.push(path.display().to_string());
    }
    Err(format!("no settings: {VARIABLE} is not set and there is none of {}", tried.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_lenient_server() {
        let settings = Settings::parse("{}", Path::new("/d")).unwrap();
        assert_eq!(settings.transport_modes, "file:nbdssl:nbd");
        assert_eq!(settings.transport, "nbdssl");
        assert_eq!(settings.asynchrony, Asynchrony::Callback);
        assert!(settings.sparse);
    }

    #[test]
    fn unknown_words_are_refused() {
        for text in [
            r#"{"datastore": {}}"#,
            r#"{"async": "later"}"#,
            r#"{"crash": "Initex"}"#,
            r#"{"faults": [{"function": "Read", "code": 1, "often": 2}]}"#,
            r#"{"faults": [{"function": "Read", "code": 1, "rate": 2}]}"#,
            r#"{"threads": 0}"#,
        ] {
            assert!(Settings::parse(text, Path::new("/")).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_below_the_file_and_passwords_are_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pw"), "s3cret\nsecond\n").unwrap();
        let text = r#"{"datastores": {"a": "x", "b": "/abs"}, "password_file": "pw"}"#;
        let settings = Settings::parse(text, dir.path()).unwrap();
        assert_eq!(settings.datastores["a"], dir.path().join("x"));
        assert_eq!(settings.datastores["b"], Path::new("/abs"));
        assert!(settings.password.as_ref().unwrap().is(b"s3cret"));
        assert!(!format!("{settings:?}").contains("s3cret"));
        let error = Settings::parse(r#"{"password": 1234567}"#, dir.path()).unwrap_err();
        assert!(error.contains("must be a string") && !error.contains("1234567"), "{error}");
    }

    #[test]
    fn the_variable_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let lib = dir.path().join("lib64/libvixDiskLib.so");
        std::fs::create_dir(dir.path().join("lib64")).unwrap();
        assert!(find(None, Some(dir.path()), Some(&lib)).unwrap_err().contains("lib64/stub.json"));
        let near = dir.path().join("lib64/stub.json");
        std::fs::write(&near, "{}").unwrap();
        assert_eq!(find(None, None, Some(&lib)), Ok(near.clone()));
        assert_eq!(find(None, Some(dir.path()), None), Ok(near));
        let top = dir.path().join("stub.json");
        std::fs::write(&top, "{}").unwrap();
        assert_eq!(find(None, Some(dir.path()), Some(&lib)), Ok(top));
        assert_eq!(find(Some("/e".into()), Some(dir.path()), None), Ok("/e".into()));
    }
}
