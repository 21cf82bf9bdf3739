//! An OVA on a web server: trusted like any other source, read in ranges by curl.
//!
//! Passwords go to curl in a file of the run's own folder and to nbdkit by the name of their file.

use super::answer::{Answer, Version, WRITE_OUT};
use super::place::without_secrets;
use crate::failure::{Class, Failure};
use crate::preflight::Report;
use crate::secret;
use crate::toolbox::Toolbox;
use crate::vsphere::access::{self, Anchors, Given, TrustMode};
use crate::vsphere::anchors::{self, SYSTEM_CA};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// A transfer may take so long, and longer by what is asked for at this many bytes in a second. A server that says nothing
/// for a minute is given up earlier, by curl itself.
const BASE_SECONDS: u64 = 120;
const SLOWEST: u64 = 32 << 10;
/// No more is asked again then, nor when the server wants a longer pause.
const RETRY_SECONDS: u64 = 120;
/// The page of a redirection counts, too.
const LEAST_LIMIT: u64 = 64 << 10;
/// Large enough for a fast link, small enough to begin again.
const PART_BYTES: u64 = 64 << 20;
/// For a request whose connection breaks, and the first of the pauses between, which double.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const CONFIG: &str = "curl.conf";
const FETCHED: &str = "fetched";

/// Who asks, and whom he trusts.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// Where the URL has none.
    pub user: Option<String>,
    /// Its first line is the password.
    pub password_file: Option<PathBuf>,
    /// CA certificates.
    pub ca: Option<PathBuf>,
}

/// A server that may be read from.
#[derive(Debug, Clone)]
pub struct Remote {
    toolbox: Toolbox,
    /// A private folder of this run.
    dir: PathBuf,
    /// For curl, in all its calls.
    config: String,
    /// For nbdkit's curl plugin.
    plugin: Vec<String>,
    /// Of the files that were looked at.
    known: Arc<Mutex<BTreeMap<Url, Version>>>,
    /// `ca`, `thumbprint`, `insecure` or `none`.
    pub trust: &'static str,
    /// For the result.
    pub warnings: Vec<String>,
}

impl Remote {
    /// Checks the server; nothing is sent to one that is not trusted.
    pub async fn admit(
        url: &Url,
        login: &Login,
        mode: TrustMode,
        thumbprint: Option<crate::trust::Fingerprint>,
        (toolbox, dir): (&Toolbox, &Path),
        report: &mut Report,
    ) -> Result<Self, Failure> {
        let mut remote = Self {
            toolbox: toolbox.clone(),
            dir: dir.to_owned(),
            config: String::from("silent\nshow-error\ngloboff\nlocation\nmax-redirs = 5\n"),
            plugin: Vec::new(),
            known: Arc::default(),
            trust: "none",
            warnings: Vec::new(),
        };
        let verified = url.scheme() == "https";
        remote.log_in(url, login, verified || mode == TrustMode::Insecure)?;
        if !verified {
            let wanted = thumbprint.is_some() || login.ca.is_some() || mode != TrustMode::Auto;
            if wanted && mode != TrustMode::Insecure {
                return Err(unverifiable(url));
            }
            let warning =
                format!("{} is read without encryption, and not verified", without_secrets(url));
            report.note("trust", &*warning, "use an https:// URL");
            remote.warnings.push(warning);
            remote.set("proto", "=http,https");
            remote.plugin.push("protocols=http,https".to_owned());
            return Ok(remote);
        }
        remote.set("proto", "=https");
        remote.plugin.push("protocols=https".to_owned());
        let mut origin = url.clone();
        origin.set_path("/");
        origin.set_query(None);
        origin.set_fragment(None);
        let given =
            Given { url: origin.into(), mode, thumbprint, ca: login.ca.clone(), ca_link: None };
        let mut trusted = Report::default();
        let Some(access) = access::check(&given, &mut trusted).await else {
            let failure = trusted.failure();
            return Err(failure.unwrap_or_else(|| Failure::new(Class::Internal, "no verdict")));
        };
        report.findings.append(&mut trusted.findings);
        remote.trust_only(&access.anchors)?;
        remote.trust = access.trust;
        remote.warnings.extend(access.warnings);
        Ok(remote)
    }

    fn log_in(&mut self, url: &Url, login: &Login, may_send: bool) -> Result<(), Failure> {
        let in_url = percent_encoding::percent_decode_str(url.username()).decode_utf8_lossy();
        let user = Some(in_url.into_owned()).filter(|u| !u.is_empty()).or(login.user.clone());
        let (Some(user), Some(file)) = (user, &login.password_file) else { return Ok(()) };
        if !may_send {
            let message = format!("the password would go to {} unencrypted", without_secrets(url));
            return Err(Failure::new(Class::Config, message).advise(
                "use an https:// URL, or allow it with V2V_trust=insecure (--trust insecure)",
            ));
        }
        if user.contains(':') || user.chars().any(char::is_control) {
            let message = format!(
                "the user name {user:?} has a colon or a control character, which HTTP cannot send"
            );
            return Err(Failure::new(Class::Config, message));
        }
        let password = secret::read(file, "password")?;
        self.set("user", &format!("{user}:{password}"));
        self.plugin.push(format!("user={user}"));
        self.plugin.push(format!("password=+{}", file.display()));
        Ok(())
    }

    /// The certificates that count, and no others.
    fn trust_only(&mut self, trusted: &Anchors) -> Result<(), Failure> {
        if *trusted == Anchors::None {
            self.config.push_str("insecure\n");
            self.plugin.push("sslverify=false".to_owned());
            return Ok(());
        }
        let file = anchors::file(trusted, &self.dir)?;
        // In our image the usual place leads to what a vSphere source is verified by, or nowhere.
        let file = file.or_else(|| Some(PathBuf::from(SYSTEM_CA)).filter(|f| f.exists()));
        let Some(file) = file else { return Ok(()) };
        let none = self.dir.join("no-certificates");
        fs::create_dir_all(&none).map_err(|e| self.unwritable(&none, &e))?;
        let (file, none) = (file.display().to_string(), none.display().to_string());
        self.set("cacert", &file);
        self.set("capath", &none);
        self.plugin.push(format!("cainfo={file}"));
        self.plugin.push(format!("capath={none}"));
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.config, "{name} = {}", quoted(value));
    }

    fn unwritable(&self, path: &Path, e: &std::io::Error) -> Failure {
        Failure::new(Class::NoSpace, format!("{} in {}: {e}", path.display(), self.dir.display()))
    }

    /// Arguments for nbdkit that serve a file.
    pub fn plugin(&self, url: &Url) -> Vec<String> {
        let mut words = vec!["curl".to_owned(), format!("url={}", bare(url))];
        words.extend(self.plugin.iter().cloned());
        words
    }

    /// How long a file is; `None` when there is none.
    pub async fn size(&self, url: &Url) -> Result<Option<u64>, Failure> {
        match self.fetch(url, 0, 1).await? {
            Answer { status: 404 | 410, .. } => Ok(None),
            answer => self.good(url, 0, &answer).map(Some),
        }
    }

    /// The same of a file that need not be there: an object store that may not be listed answers with 403 then.
    pub async fn size_of_optional(
        &self,
        url: &Url,
        notes: &mut Vec<String>,
    ) -> Result<Option<u64>, Failure> {
        match self.fetch(url, 0, 1).await? {
            Answer { status: 404 | 410, .. } => Ok(None),
            Answer { status: 403, .. } => {
                let shown = without_secrets(url);
                notes.push(format!(
                    "{shown} is taken for absent: the server does not give it out (403)"
                ));
                Ok(None)
            }
            answer => self.good(url, 0, &answer).map(Some),
        }
    }

    /// Some bytes of a file; fewer at its end. Also how long it is.
    pub async fn read(&self, url: &Url, from: u64, bytes: u64) -> Result<(Vec<u8>, u64), Failure> {
        let answer = self.fetch(url, from, bytes).await?;
        let total = self.good(url, from, &answer)?;
        let path = self.dir.join(FETCHED);
        let mut content = Vec::new();
        let read = File::open(&path).and_then(|f| f.take(bytes).read_to_end(&mut content));
        read.map_err(|e| self.unwritable(&path, &e))?;
        let expected = bytes.min(total.saturating_sub(from));
        if content.len() as u64 == expected {
            return Ok((content, total));
        }
        let message = format!(
            "{} gave {} bytes instead of {expected} from byte {from} on",
            without_secrets(url),
            content.len()
        );
        Err(Failure::new(Class::Network, message))
    }

    /// Gives a range of a file to `take`, in parts.
    pub async fn each_part(
        &self,
        url: &Url,
        (from, bytes): (u64, u64),
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut done = 0;
        while done < bytes {
            let (part, _) = self.read(url, from + done, PART_BYTES.min(bytes - done)).await?;
            if part.is_empty() {
                let message = format!("{} became shorter while it was read", without_secrets(url));
                return Err(Failure::new(Class::Io, message));
            }
            done += part.len() as u64;
            take(&part)?;
        }
        Ok(())
    }

    /// The length, when it is an answer with the range that was asked for, of the file that was there before.
    fn good(&self, url: &Url, from: u64, answer: &Answer) -> Result<u64, Failure> {
        let found = answer.version(&without_secrets(url), from)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(url) {
            Some(first) if !first.is_same(&found) => Err(Self::changed(url)),
            Some(first) => Ok(first.total),
            None => {
                let total = found.total;
                known.insert(url.clone(), found);
                Ok(total)
            }
        }
    }

    /// How long a file was when it was looked at.
    pub fn known_size(&self, url: &Url) -> Option<u64> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(url).map(|v| v.total)
    }

    /// Two readings of a file that differ.
    pub fn changed(url: &Url) -> Failure {
        let message = format!("{} was changed while it was read", without_secrets(url));
        Failure::new(Class::Io, message).advise(
            "start again when nobody writes it any more; servers behind one address must have the same file",
        )
    }

    /// One request, and again when the connection broke.
    async fn fetch(&self, url: &Url, from: u64, bytes: u64) -> Result<Answer, Failure> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            let answer = self.fetch_once(url, from, bytes).await?;
            if !answer.is_broken() {
                return Ok(answer);
            }
            tracing::warn!(
                "{} from {}, trying again in {} s",
                answer.text,
                without_secrets(url),
                pause.as_secs()
            );
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.fetch_once(url, from, bytes).await
    }

    async fn fetch_once(&self, url: &Url, from: u64, bytes: u64) -> Result<Answer, Failure> {
        let (config, out) = (self.dir.join(CONFIG), self.dir.join(FETCHED));
        let last = from.saturating_add(bytes).saturating_sub(1);
        let (answer, seconds, most) = (WRITE_OUT, most_seconds(bytes), bytes.max(LEAST_LIMIT));
        let text = format!(
            "{}url = {}\nrange = \"{from}-{last}\"\nmax-filesize = {most}\noutput = {}\nconnect-timeout = 15\nspeed-limit = 1\nspeed-time = 60\nmax-time = {seconds}\nretry = 3\nretry-max-time = {RETRY_SECONDS}\nwrite-out = \"{answer}\"\n",
            self.config,
            quoted(bare(url).as_str()),
            quoted(&out.display().to_string()),
        );
        let _ = fs::remove_file(&out);
        let private =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&config);
        private
            .and_then(|mut f| f.write_all(text.as_bytes()))
            .map_err(|e| self.unwritable(&config, &e))?;
        let args = ["-q", "--config", &config.to_string_lossy()];
        // The last try may begin when no other does any more.
        let limit = Duration::from_secs(RETRY_SECONDS + seconds + 30);
        let answer = self.toolbox.ask("curl", &args, limit).await;
        let _ = fs::remove_file(&config);
        let installed = self.toolbox.find("curl").is_some();
        let (status, said) =
            answer.ok_or_else(|| no_answer(installed, &without_secrets(url), limit))?;
        Ok(Answer::parse(status.code(), &said))
    }
}

/// Trust was asked for by name, so that going on without would be a surprise.
fn unverifiable(url: &Url) -> Failure {
    let message = format!(
        "{} has no certificate, so that the server cannot be verified by a CA or a thumbprint as asked for",
        without_secrets(url)
    );
    Failure::new(Class::Config, message)
        .advise("use an https:// URL, or allow it with V2V_trust=insecure (--trust insecure)")
}

/// curl was stopped, or is not there.
fn no_answer(installed: bool, shown: &str, limit: Duration) -> Failure {
    if installed {
        let message = format!("{shown} was not read within {} s", limit.as_secs());
        return Failure::new(Class::Network, message);
    }
    Failure::new(Class::Tool, "curl is not installed")
}

/// For one transfer of so many bytes.
fn most_seconds(bytes: u64) -> u64 {
    BASE_SECONDS + bytes / SLOWEST
}

/// As it is sent: user and password are no part of it, nor is what is behind `#`.
fn bare(url: &Url) -> Url {
    let mut bare = url.clone();
    // A web address can always do without.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.set_fragment(None);
    bare
}

/// A value in curl's configuration file.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_server_is_no_missing_tool() {
        let limit = Duration::from_secs(9);
        let slow = no_answer(true, "https://h/x", limit);
        assert!(slow.class == Class::Network && slow.message.contains("within 9 s"), "{slow}");
        assert_eq!(no_answer(false, "https://h/x", limit).class, Class::Tool);
        assert!(most_seconds(1) < 200 && most_seconds(PART_BYTES) < 3000);
    }

    #[test]
    fn values_cannot_add_lines() {
        assert_eq!(quoted("a\"b\\c\nd"), "\"a\\\"b\\\\c\\nd\"");
    }

    #[test]
    fn no_user_is_in_the_address() {
        let url = Url::parse("https://u:p@host/x.ova?sig=1#f").unwrap();
        assert_eq!(bare(&url).as_str(), "https://host/x.ova?sig=1");
    }
}
