//! Access to a vCenter or ESXi host: the one trust setting, checked before anything is sent there, and what libvirt, curl
//! and VDDK get so that they come to the same conclusion.

use super::query::Query;
use super::transport::Transport;
use crate::failure::{Class, Failure};
use crate::preflight::Report;
use crate::trust::{self, Endpoint, EndpointError, Fingerprint, Limits, Trust, Trusted};
use std::path::{Path, PathBuf};
use std::time::Duration;
use v2v_args::Vddk;

/// The setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum TrustMode {
    /// By what is given: `no_verify=1` in the URL, a CA file, a thumbprint; else the system's CAs.
    #[default]
    Auto,
    /// A certificate under the given CA, or one of the system's.
    Ca,
    /// The certificate with the given thumbprint.
    Thumbprint,
    /// Any certificate.
    Insecure,
}

/// What the user gave.
#[derive(Debug, Clone)]
pub struct Given {
    /// `vpx://` or `esx://`.
    pub url: String,
    /// The setting.
    pub mode: TrustMode,
    /// The thumbprint.
    pub thumbprint: Option<Fingerprint>,
    /// CA certificates.
    pub ca: Option<PathBuf>,
    /// A path in the URL's `cacert=` that is not a file of the user's but where we put the CA.
    pub ca_link: Option<PathBuf>,
}

/// Which certificates HTTPS clients are to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchors {
    /// Those of the system.
    System,
    /// Those in this file, no others.
    File(PathBuf),
    /// This certificate (PEM), no others.
    Pinned(Vec<u8>),
    /// Nothing is verified.
    None,
}

/// A server that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// For libvirt and virt-v2v.
    pub url: String,
    /// `ca`, `thumbprint` or `insecure`.
    pub trust: &'static str,
    /// For HTTPS clients.
    pub anchors: Anchors,
    /// SHA-1, for VDDK.
    pub thumbprint: Option<String>,
    /// Where it is not 443.
    pub port: Option<u16>,
    /// Belongs into the result.
    pub warnings: Vec<String>,
}

impl Access {
    /// It is a vCenter or an ESXi host; other libvirts pass unchecked.
    pub fn is_vsphere(&self) -> bool {
        self.trust != NO_SERVER
    }

    /// The URL says who logs in.
    pub fn names_user(&self) -> bool {
        url::Url::parse(&self.url).is_ok_and(|url| !url.username().is_empty())
    }

    /// virt-v2v's options for a transport; `None` for HTTPS.
    pub fn vddk(&self, transport: &Transport, config: Option<PathBuf>) -> Option<Vddk> {
        let Transport::Vddk(vddk) = transport else { return None };
        Some(Vddk {
            libdir: vddk.libdir.clone(),
            thumbprint: self.thumbprint.clone(),
            config,
            transports: vddk.transports.map(str::to_owned),
            port: self.port,
        })
    }
}

const CHECK: &str = "trust";
/// The trust of what has no certificate.
const NO_SERVER: &str = "none";
/// A pod's network may take a moment to come up.
const ATTEMPTS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
const INSECURE: &str = "give the CA certificate (cacert in the secret) or the thumbprint (V2V_fingerprint); v2v-pod thumbprint HOST shows it";

/// What was given, as one of three ways to trust, with the URL that says the same to libvirt. Pure.
pub fn resolve(given: &Given) -> Result<(Trust, String), Failure> {
    let mut query = Query::of(&given.url);
    let unverified = no_verify(&query)?;
    let in_url = query.values("cacert").pop().map(PathBuf::from);
    let in_url = in_url.filter(|p| given.ca_link.as_ref() != Some(p));
    let file = given.ca.clone().or_else(|| in_url.clone());
    let pin = given.thumbprint;
    let mode = match given.mode {
        TrustMode::Auto if unverified => TrustMode::Insecure,
        TrustMode::Auto if file.is_some() || pin.is_none() => TrustMode::Ca,
        TrustMode::Auto => TrustMode::Thumbprint,
        mode => mode,
    };
    let trust = match (mode, pin) {
        (TrustMode::Insecure, pin) => Trust::Insecure { thumbprint: pin },
        (TrustMode::Thumbprint, Some(pin)) => Trust::Thumbprint(pin),
        (TrustMode::Thumbprint, None) => {
            return Err(Failure::new(Class::Config, "trust by thumbprint needs a thumbprint")
                .advise(
                    "give it (V2V_fingerprint, --thumbprint); v2v-pod thumbprint HOST shows it",
                ));
        }
        // Asked for by name, the CA alone decides; else both must agree.
        _ => Trust::Ca { file, pin: pin.filter(|_| given.mode == TrustMode::Auto) },
    };
    // A libvirt that knows `cacert` would believe another CA than we do.
    let other_ca = in_url.is_some() && !matches!(&trust, Trust::Ca { file, .. } if *file == in_url);
    let rewritten = given.url.contains('#') || other_ca;
    let insecure = matches!(trust, Trust::Insecure { .. });
    let said = query.values("no_verify").len();
    if !rewritten && (if insecure { said == 1 && query.has("no_verify=1") } else { said == 0 }) {
        refuse_look_alike(&query, insecure)?;
        return Ok((trust, given.url.clone()));
    }
    query.remove("no_verify");
    if other_ca {
        query.remove("cacert");
    }
    if insecure {
        query.add("no_verify=1");
    }
    refuse_look_alike(&query, insecure)?;
    Ok((trust, query.url()))
}

/// What libvirt makes of it: a number, the last one counts.
pub(crate) fn no_verify(query: &Query<'_>) -> Result<bool, Failure> {
    let mut unverified = false;
    for value in query.values("no_verify") {
        unverified = match value.trim_ascii_start().parse::<i32>() {
            Ok(0) => false,
            Ok(1) => true,
            _ => {
                let message = format!("no_verify in the URL is {value:?}, neither 0 nor 1");
                return Err(Failure::new(Class::Config, message)
                    .advise("leave it out to have the server verified"));
            }
        };
    }
    Ok(unverified)
}

/// virt-v2v turns verification off wherever it sees this text.
fn refuse_look_alike(query: &Query<'_>, insecure: bool) -> Result<(), Failure> {
    if insecure || !query.contains("no_verify=1") {
        return Ok(());
    }
    let message =
        "virt-v2v would take a parameter of the URL for no_verify=1 and not verify the server";
    Err(Failure::new(Class::Config, message).advise("take no_verify=1 out of the URL"))
}

/// Checks the server; problems go into the report. A URL of another kind (`qemu:///system`) passes as it is.
pub async fn check(given: &Given, report: &mut Report) -> Option<Access> {
    match admit(given, report).await {
        Ok(access) => Some(access),
        Err(failure) => {
            report.problem(CHECK, failure);
            None
        }
    }
}

async fn admit(given: &Given, report: &mut Report) -> Result<Access, Failure> {
    let endpoint = match Endpoint::of_url(&given.url) {
        Ok(endpoint) => endpoint,
        Err(EndpointError::Scheme(_)) => return Ok(untouched(given)),
        Err(e) => {
            let advice =
                "a source URL looks like vpx://user@vcenter/DC/Cluster/esx1 or esx://root@esx1";
            let message = format!("the URL of the source: {}", datapath::error_chain(&e));
            return Err(Failure::new(Class::Config, message).advise(advice));
        }
    };
    if url::Url::parse(&given.url).is_ok_and(|url| url.password().is_some()) {
        let message = "the URL of the source holds a password, which every process here could see";
        let advice = "take it out of the URL and give it as a file (secretKey, -ip FILE); write a colon in a user name as %3A";
        return Err(Failure::new(Class::Config, message).advise(advice));
    }
    let (trust, url) = resolve(given)?;
    let trusted = look(&trust, &endpoint, Endpoint::esxi_host(&given.url).as_ref()).await?;
    if let Some(problem) = &trusted.https_problem {
        let advice = "name the server in the URL as its certificate does, or give it a certificate that fits; libvirt and curl would refuse it";
        return Err(Failure::new(Class::Trust, problem).advise(advice));
    }
    say(&trust, &endpoint, &trusted, report);
    Ok(Access {
        url,
        trust: name(&trust),
        anchors: anchors(&trust, &trusted),
        thumbprint: trusted.thumbprint.as_ref().map(ToString::to_string),
        port: (endpoint.port != 443).then_some(endpoint.port),
        // Only insecure mode has any.
        warnings: trusted.warnings,
    })
}

/// A vCenter or an ESXi host is meant, maybe wrongly written.
pub fn is_for_vsphere(url: &str) -> bool {
    !matches!(Endpoint::of_url(url), Err(EndpointError::Scheme(_)))
}

fn untouched(given: &Given) -> Access {
    Access {
        url: given.url.clone(),
        trust: NO_SERVER,
        anchors: Anchors::System,
        thumbprint: given.thumbprint.as_ref().map(ToString::to_string),
        port: None,
        warnings: Vec::new(),
    }
}

/// What is only unreachable is tried again: for a short time, since a person may be waiting.
async fn look(
    trust: &Trust,
    endpoint: &Endpoint,
    other: Option<&Endpoint>,
) -> Result<Trusted, Failure> {
    let limits = Limits::default();
    for wait in ATTEMPTS {
        match trust::check(trust, endpoint, other, &limits).await.map_err(Failure::from) {
            Err(failure) if failure.class == Class::Network => {
                tracing::info!("{failure}; trying again in {} s", wait.as_secs());
            }
            result => return result,
        }
        tokio::time::sleep(wait).await;
    }
    Ok(trust::check(trust, endpoint, other, &limits).await?)
}

fn say(trust: &Trust, endpoint: &Endpoint, trusted: &Trusted, report: &mut Report) {
    match trust {
        Trust::Insecure { .. } => report.note(CHECK, trusted.warnings.join("; "), INSECURE),
        Trust::Ca { file, .. } => {
            let by =
                file.as_ref().map_or("the system's CAs".to_owned(), |f| f.display().to_string());
            report.ok(CHECK, format!("{endpoint} verified by {by}"));
        }
        Trust::Thumbprint(_) => report.ok(CHECK, format!("{endpoint} verified by its thumbprint")),
    }
}

fn name(trust: &Trust) -> &'static str {
    match trust {
        Trust::Ca { .. } => "ca",
        Trust::Thumbprint(_) => "thumbprint",
        Trust::Insecure { .. } => "insecure",
    }
}

fn anchors(trust: &Trust, trusted: &Trusted) -> Anchors {
    match (trust, &trusted.anchor_pem) {
        (Trust::Insecure { .. }, _) => Anchors::None,
        (_, Some(pem)) => Anchors::Pinned(pem.clone()),
        (Trust::Ca { file: Some(file), .. }, None) => Anchors::File(file.clone()),
        (_, None) => Anchors::System,
    }
}

/// Names the real CA file in the URL of a libvirt that reads it from there.
pub fn with_ca(url: &str, link: &Path, file: &Path) -> String {
    url.replace(&format!("cacert={}", link.display()), &format!("cacert={}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA1: &str = "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD";

    fn given(url: &str) -> Given {
        Given {
            url: url.to_owned(),
            mode: TrustMode::Auto,
            thumbprint: None,
            ca: None,
            ca_link: Some("/opt/ca-bundle.crt".into()),
        }
    }

    fn pin() -> Fingerprint {
        SHA1.parse().unwrap()
    }

    #[test]
    fn what_is_given_decides() {
        let url = "vpx://u@vc/DC/h?cacert=/opt/ca-bundle.crt";
        let mut g = given(url);
        assert_eq!(resolve(&g).unwrap(), (Trust::Ca { file: None, pin: None }, url.to_owned()));
        g.thumbprint = Some(pin());
        assert_eq!(resolve(&g).unwrap().0, Trust::Thumbprint(pin()));
        g.ca = Some("/etc/secret/cacert".into());
        assert_eq!(resolve(&g).unwrap().0, Trust::Ca { file: g.ca.clone(), pin: Some(pin()) });
        g.url = "vpx://u@vc/DC/h?no_verify=1".to_owned();
        assert_eq!(
            resolve(&g).unwrap(),
            (Trust::Insecure { thumbprint: Some(pin()) }, g.url.clone())
        );
        let own = given("esx://u@h?cacert=/my/ca.pem&no_verify=0");
        let (trust, url) = resolve(&own).unwrap();
        assert_eq!(trust, Trust::Ca { file: Some("/my/ca.pem".into()), pin: None });
        assert_eq!(url, "esx://u@h?cacert=/my/ca.pem");
    }

    #[test]
    fn the_setting_wins_and_the_url_says_the_same() {
        let mut g = given("vpx://u@vc/DC/h?no_verify=1&auto_answer=1");
        g.mode = TrustMode::Thumbprint;
        assert_eq!(resolve(&g).unwrap_err().class, Class::Config);
        g.thumbprint = Some(pin());
        let (trust, url) = resolve(&g).unwrap();
        assert_eq!(
            (trust, url.as_str()),
            (Trust::Thumbprint(pin()), "vpx://u@vc/DC/h?auto_answer=1")
        );
        g.mode = TrustMode::Ca;
        assert_eq!(resolve(&g).unwrap().0, Trust::Ca { file: None, pin: None });
        g.mode = TrustMode::Insecure;
        g.url = "esx://u@h".to_owned();
        assert_eq!(resolve(&g).unwrap().1, "esx://u@h?no_verify=1");
    }

    #[test]
    fn no_spelling_of_no_verify_gets_past_us_to_libvirt() {
        for text in [
            "no%5Fverify=1",
            "NO_VERIFY=1",
            "no_verify=01",
            "no_verify=%201",
            "no_verify=+1",
            "no_verify=1%00",
            "no_verify=0&no_verify=1",
            "x=1;no_verify=1",
            "no_verify=1#x",
        ] {
            let mut g = given(&format!("vpx://u@vc/DC/h?{text}"));
            let (trust, url) = resolve(&g).unwrap();
            assert_eq!(trust, Trust::Insecure { thumbprint: None }, "{text}");
            assert!(url.ends_with("no_verify=1"), "{text}: {url}");
            g.mode = TrustMode::Ca;
            let (trust, url) = resolve(&g).unwrap();
            assert_eq!(trust, Trust::Ca { file: None, pin: None }, "{text}");
            assert!(!url.contains("erify") && !url.contains("VERIFY"), "{text}: {url}");
        }
        // Without the last parameter the semicolon would separate.
        let (trust, url) =
            resolve(&given("vpx://u@vc/DC/h?a=b;auto_answer=1&no_verify=0")).unwrap();
        assert_eq!(trust, Trust::Ca { file: None, pin: None });
        assert_eq!(url, "vpx://u@vc/DC/h?a=b%3Bauto_answer=1");
        for bad in ["no_verify", "no_verify=2", "x=no_verify=1", "a=b;no_verify=1&no_verify=0"] {
            let e = resolve(&given(&format!("vpx://u@vc/DC/h?{bad}"))).unwrap_err();
            assert_eq!(e.class, Class::Config, "{bad}");
        }
        let mut g = given("vpx://u@vc/DC/h#?no_verify=1");
        assert_eq!(resolve(&g).unwrap().0, Trust::Ca { file: None, pin: None });
        g.mode = TrustMode::Insecure;
        assert_eq!(resolve(&g).unwrap().1, "vpx://u@vc/DC/h?no_verify=1");
    }

    #[test]
    fn the_url_names_no_other_ca_than_ours() {
        let mut g = given("esx://u@h?cacert=/my/ca.pem&auto_answer=1");
        g.ca = Some("/etc/secret/cacert".into());
        assert_eq!(resolve(&g).unwrap().1, "esx://u@h?auto_answer=1");
        g.ca = None;
        g.mode = TrustMode::Thumbprint;
        g.thumbprint = Some(pin());
        assert_eq!(resolve(&g).unwrap().1, "esx://u@h?auto_answer=1");
    }

    #[tokio::test]
    async fn a_password_in_the_url_is_refused_and_not_shown() {
        let mut report = Report::default();
        assert!(check(&given("vpx://u:hunter2@localhost:1/DC/h"), &mut report).await.is_none());
        let failure = report.failure().unwrap();
        assert_eq!(failure.class, Class::Config);
        assert!(!failure.message.contains("hunter2") && failure.message.contains("password"));
    }

    #[tokio::test]
    async fn other_urls_pass_as_they_are_and_bad_ones_are_named() {
        let mut report = Report::default();
        let access = check(&given("qemu:///system"), &mut report).await.unwrap();
        assert_eq!((access.trust, access.url.as_str()), ("none", "qemu:///system"));
        assert!(check(&given("vpx://"), &mut report).await.is_none());
        assert_eq!(report.failure().unwrap().class, Class::Config);
    }
}
