//! A connection: who came in, and whether the pretended server lets it do anything.

use crate::codes::{
    FAIL, FILE_ACCESS_ERROR, HOST_CONNECTION_LOST, HOST_USER_PERMISSIONS, INVALID_ARG,
    NOT_SUPPORTED, Result, SNAPSHOT_NOTFOUND, VM_NOT_FOUND, VixError, text,
};
use crate::log::Log;
use crate::settings::{LoginErrors, Settings};
use std::time::{Duration, Instant};

/// What `ConnectEx` was given. It holds the password, hence no Debug.
pub struct Client {
    pub spec: Option<String>,
    pub server: Option<String>,
    pub thumbprint: Option<String>,
    pub user: Option<String>,
    pub password: Option<Vec<u8>>,
    /// Whether the client comes with the cookie of a session in place of a login.
    pub by_cookie: bool,
    pub cookie: Option<Vec<u8>>,
    pub snapshot: Option<String>,
    pub transports: Option<String>,
    pub read_only: bool,
}

/// An accepted `ConnectEx`. Its login may have failed all the same; then `Open` says so.
pub struct Connection {
    pub read_only: bool,
    pub transport: String,
    refused: Option<VixError>,
    snapshot: Option<String>,
    expires: Option<Instant>,
}

/// `ConnectEx`.
pub fn connect(settings: &Settings, log: &Log, client: &Client) -> Result<Connection> {
    log.info(&format!(
        "VixDiskLib: VixDiskLib_ConnectEx: Establish connection using {}.",
        client.transports.as_deref().unwrap_or("(null)")
    ));
    check_complete(log, client)?;
    let refused = login(settings, log, client).err();
    if let (Some(code), LoginErrors::ConnectEx) = (refused, settings.login_errors) {
        return Err(code);
    }
    let age = settings.session_expires_after_ms.map(Duration::from_millis);
    Ok(Connection {
        read_only: client.read_only,
        transport: transport(settings, log, client.transports.as_deref())?,
        refused,
        snapshot: client.snapshot.clone(),
        expires: age.and_then(|age| Instant::now().checked_add(age)),
    })
}

/// VDDK dereferences these without looking.
fn check_complete(log: &Log, client: &Client) -> Result<()> {
    let missing = match client {
        Client { server: None, .. } => "serverName",
        Client { user: None, .. } => "userName",
        Client { password: None, .. } => "password",
        Client { by_cookie: true, cookie: None, .. } => "cookie",
        Client { spec: None, .. } => "vmxSpec",
        _ => return Ok(()),
    };
    log.warn(&format!(
        "VixDiskLib stub: VixDiskLib_ConnectEx with {missing} NULL: VMware's library would crash here."
    ));
    Err(INVALID_ARG)
}

fn login(settings: &Settings, log: &Log, client: &Client) -> Result<()> {
    let (server, spec) = (client.server.as_deref(), client.spec.as_deref());
    let failed = |code: VixError| {
        log.info(&format!(
            "VixDiskLib: VixDiskLibConnectInt: Failed to start session. Error {code} ({}) at 6003.",
            text(code)
        ));
        Err(code)
    };
    if settings.server.as_deref().is_some_and(|expected| Some(expected) != server) {
        log.info(&format!("VixDiskLib: Resolve host {} failed.", server.unwrap_or_default()));
        return failed(FAIL);
    }
    if let Some(actual) = &settings.thumbprint {
        let expected = client.thumbprint.as_deref().unwrap_or_default();
        if !actual.eq_ignore_ascii_case(expected) {
            log.info(&format!(
                "VixDiskLibVim: Failed to verify SSL certificate: actual thumbprint={actual} expected={expected}"
            ));
            return failed(FAIL);
        }
    }
    if !credentials(settings, client) {
        log.info(&format!("VixDiskLibVim: Login failure. Callback error {HOST_USER_PERMISSIONS}."));
        return failed(HOST_USER_PERMISSIONS);
    }
    let moref = spec.and_then(|spec| spec.strip_prefix("moref="));
    if settings.moref.as_deref().is_some_and(|expected| Some(expected) != moref) {
        log.info(&format!("VixDiskLibVim: VM {} was not found.", spec.unwrap_or_default()));
        return failed(VM_NOT_FOUND);
    }
    if let (Some(expected), Some(given)) = (&settings.snapshot, &client.snapshot)
        && expected != given
    {
        log.info(&format!("VixDiskLibVim: snapshot {given} was not found."));
        return failed(SNAPSHOT_NOTFOUND);
    }
    Ok(())
}

fn credentials(settings: &Settings, client: &Client) -> bool {
    if settings.user.is_some() && settings.user != client.user {
        return false;
    }
    let (expected, given) = if client.by_cookie {
        (&settings.cookie, &client.cookie)
    } else {
        (&settings.password, &client.password)
    };
    expected.as_ref().is_none_or(|expected| expected.is(given.as_deref().unwrap_or_default()))
}

/// The mode the server has, when the client admits it, else the first that both know.
fn transport(settings: &Settings, log: &Log, wanted: Option<&str>) -> Result<String> {
    let Some(wanted) = wanted else { return Ok(settings.transport.clone()) };
    let known = |mode: &&str| settings.transport_modes.split(':').any(|known| known == *mode);
    if wanted.split(':').any(|mode| mode == settings.transport) {
        return Ok(settings.transport.clone());
    }
    if let Some(mode) = wanted.split(':').find(known) {
        return Ok(mode.to_owned());
    }
    log.info(&format!("VixDiskLib: None of the transport modes {wanted} is available."));
    Err(NOT_SUPPORTED)
}

impl Connection {
    /// Whether a disk may be opened.
    pub fn may_open(&self, settings: &Settings, log: &Log) -> Result<()> {
        if let Some(code) = self.refused {
            log.info(&format!(
                "VixDiskLib: VixDiskLib_OpenEx: Failed to start session. Error {code} ({}) at 7403.",
                text(code)
            ));
            return Err(code);
        }
        self.alive(log)?;
        if settings.running_vm && self.snapshot.is_none() { Err(FILE_ACCESS_ERROR) } else { Ok(()) }
    }

    /// Whether the session still lives.
    pub fn alive(&self, log: &Log) -> Result<()> {
        if self.expires.is_none_or(|end| Instant::now() < end) {
            return Ok(());
        }
        log.info("VixDiskLibVim: The session is not authenticated.");
        Err(HOST_CONNECTION_LOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(text: &str) -> Settings {
        Settings::parse(text, Path::new("/")).unwrap()
    }

    fn client() -> Client {
        Client {
            spec: Some("moref=vm-16".to_owned()),
            server: Some("vc".to_owned()),
            thumbprint: Some("aa:bb".to_owned()),
            user: Some("root".to_owned()),
            password: Some(b"pw".to_vec()),
            by_cookie: false,
            cookie: None,
            snapshot: None,
            transports: Some("nbdssl:nbd".to_owned()),
            read_only: true,
        }
    }

    fn open(settings: &Settings, client: &Client) -> Result<()> {
        let log = Log::default();
        connect(settings, &log, client)?.may_open(settings, &log)
    }

    #[test]
    fn each_expectation_has_its_code() {
        let strict = settings(
            r#"{"server": "vc", "user": "root", "password": "pw", "thumbprint": "AA:BB", "moref": "vm-16",
                "snapshot": "snapshot-1"}"#,
        );
        assert_eq!(open(&strict, &client()), Ok(()));
        let server = Client { server: Some("other".to_owned()), ..client() };
        assert_eq!(open(&strict, &server), Err(FAIL));
        let thumbprint = Client { thumbprint: Some("AA:BC".to_owned()), ..client() };
        assert_eq!(open(&strict, &thumbprint), Err(FAIL));
        let user = Client { user: Some("me".to_owned()), ..client() };
        assert_eq!(open(&strict, &user), Err(HOST_USER_PERMISSIONS));
        let password = Client { password: Some(b"pw ".to_vec()), ..client() };
        assert_eq!(open(&strict, &password), Err(HOST_USER_PERMISSIONS));
        let vm = Client { spec: Some("moref=vm-17".to_owned()), ..client() };
        assert_eq!(open(&strict, &vm), Err(VM_NOT_FOUND));
        let snapshot = Client { snapshot: Some("snapshot-2".to_owned()), ..client() };
        assert_eq!(open(&strict, &snapshot), Err(SNAPSHOT_NOTFOUND));
    }

    #[test]
    fn what_is_missing_is_an_argument_error() {
        let lenient = settings("{}");
        for client in [
            Client { server: None, ..client() },
            Client { user: None, ..client() },
            Client { password: None, ..client() },
            Client { by_cookie: true, ..client() },
        ] {
            assert_eq!(open(&lenient, &client), Err(INVALID_ARG));
        }
    }

    #[test]
    fn a_running_vm_needs_a_snapshot() {
        let running = settings(r#"{"running_vm": true}"#);
        assert_eq!(open(&running, &client()), Err(FILE_ACCESS_ERROR));
        let with = Client { snapshot: Some("snapshot-1".to_owned()), ..client() };
        assert_eq!(open(&running, &with), Ok(()));
    }

    #[test]
    fn login_errors_may_come_at_once() {
        let early = settings(r#"{"thumbprint": "CC", "login_errors": "ConnectEx"}"#);
        assert!(matches!(connect(&early, &Log::default(), &client()), Err(FAIL)));
        let late = settings(r#"{"thumbprint": "CC"}"#);
        assert!(connect(&late, &Log::default(), &client()).is_ok());
    }

    #[test]
    fn sessions_end() {
        let short = settings(r#"{"session_expires_after_ms": 0}"#);
        assert_eq!(open(&short, &client()), Err(HOST_CONNECTION_LOST));
    }

    #[test]
    fn a_cookie_in_place_of_the_password() {
        let both = settings(r#"{"password": "pw", "cookie": "c00kie"}"#);
        let right = Client { by_cookie: true, cookie: Some(b"c00kie".to_vec()), ..client() };
        assert_eq!(open(&both, &right), Ok(()));
        let wrong = Client { by_cookie: true, cookie: Some(b"other".to_vec()), ..client() };
        assert_eq!(open(&both, &wrong), Err(HOST_USER_PERMISSIONS));
    }

    #[test]
    fn transports() {
        let nbdssl = settings("{}");
        let mode = |wanted| transport(&nbdssl, &Log::default(), wanted);
        assert_eq!(mode(None).as_deref(), Ok("nbdssl"));
        assert_eq!(mode(Some("file:nbdssl:nbd")).as_deref(), Ok("nbdssl"));
        assert_eq!(mode(Some("san:nbd")).as_deref(), Ok("nbd"));
        assert_eq!(mode(Some("san")), Err(NOT_SUPPORTED));
    }
}
