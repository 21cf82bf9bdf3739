//! What a web server answered to a request for a range, as curl tells it. Pure.

use super::place::hide_queries;
use crate::failure::{Class, Failure};

/// Begins curl's own lines.
const MARK: &str = "v2v-pod answer ";
const ETAG: &str = "v2v-pod etag ";
const MODIFIED: &str = "v2v-pod modified ";
const REDIRECTS: &str = "v2v-pod redirects ";
/// For curl's `write-out`.
pub const WRITE_OUT: &str = "\\nv2v-pod answer %{response_code} %header{content-range}\\nv2v-pod etag %header{etag}\\nv2v-pod modified %header{last-modified}\\nv2v-pod redirects %{num_redirects}\\n";

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's.
    pub status: u16,
    /// Of `Content-Range`: the first byte, and how long the file is.
    range: Option<(u64, u64)>,
    etag: Option<String>,
    modified: Option<String>,
    redirected: bool,
    /// curl's message.
    pub text: String,
    code: Option<i32>,
}

/// What tells one content of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// How long it is.
    pub total: u64,
    etag: Option<String>,
    modified: Option<String>,
    /// Mirrors have tags and dates of their own.
    redirected: bool,
}

impl Version {
    /// Whether nothing speaks against it.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        let told = same(&self.etag, &other.etag) && same(&self.modified, &other.modified);
        self.total == other.total && (told || self.redirected || other.redirected)
    }
}

impl Answer {
    /// From curl's exit code and what it wrote.
    pub fn parse(code: Option<i32>, said: &str) -> Self {
        let line = |mark| said.lines().find_map(|l| l.strip_prefix(mark));
        let header = |mark| line(mark).map(str::trim).filter(|v| !v.is_empty());
        let answer = line(MARK).unwrap_or_default();
        let (status, range) = answer.split_once(' ').unwrap_or((answer, ""));
        let is_ours =
            |l: &str| [MARK, ETAG, MODIFIED, REDIRECTS].iter().any(|mark| l.starts_with(mark));
        let mut words = said.lines().filter(|l| !l.trim().is_empty() && !is_ours(l));
        Self {
            status: status.parse().unwrap_or(0),
            range: content_range(range),
            // A weak one may stay the same for another content, and change for the same.
            etag: header(ETAG).filter(|tag| tag.starts_with('"')).map(str::to_owned),
            modified: header(MODIFIED).map(str::to_owned),
            redirected: header(REDIRECTS).is_some_and(|n| n != "0"),
            text: hide_queries(words.next_back().unwrap_or_default()),
            code,
        }
    }

    /// The connection ended early; curl's own retries leave that out.
    pub fn is_broken(&self) -> bool {
        matches!(self.code, Some(16 | 18 | 35 | 52 | 55 | 56 | 92))
    }

    /// What was answered with, when it is the range from this byte on.
    pub fn version(&self, shown: &str, from: u64) -> Result<Version, Failure> {
        let Some((start, total)) =
            self.range.filter(|_| self.status == 206 && self.code == Some(0))
        else {
            return Err(self.failure(shown));
        };
        if start != from {
            let message =
                format!("{shown} was asked for from byte {from} on, and gave byte {start}");
            return Err(Failure::new(Class::Io, message).advise(
                "see what is between here and the server: a proxy may answer from a wrong cache",
            ));
        }
        Ok(Version {
            total,
            etag: self.etag.clone(),
            modified: self.modified.clone(),
            redirected: self.redirected,
        })
    }

    fn failure(&self, shown: &str) -> Failure {
        match (self.status, self.code) {
            (200 | 206, Some(0 | 63)) => Failure::new(
                Class::Config,
                format!("the server of {shown} does not serve parts of files (HTTP ranges), so that the OVA cannot be read in place"),
            )
            .advise("put the OVA on a server that does (nginx, Apache, an object store), or download it and give its path"),
            (401, _) => Failure::new(Class::Auth, format!("the server of {shown} wants a user and a password, or refuses those given (401)"))
                .advise("check accessKeyId and secretKey in the secret (or the user in the URL and -ip FILE)"),
            (403, _) => Failure::new(Class::Auth, format!("the server of {shown} does not give it out (403)"))
                .advise("check the permissions of the file and of the user; a signed URL may have expired"),
            (404 | 410, _) => Failure::new(Class::NotFound, format!("{shown} does not exist"))
                .advise("check the URL"),
            (416, _) => Failure::new(Class::Io, format!("{shown} is empty or shorter than expected")),
            (status @ 500.., _) => Failure::new(Class::Network, format!("the server of {shown} answers with {status}")),
            (_, code) if code != Some(0) => {
                let text = if self.text.is_empty() { "curl failed" } else { &self.text };
                Failure::new(class_of(code), format!("{shown} cannot be read: {text}"))
            }
            (status, _) => Failure::new(Class::Config, format!("the server of {shown} answers with {status}")),
        }
    }
}

/// `bytes 512-1023/10240`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()?))
}

/// curl(1), exit codes.
fn class_of(code: Option<i32>) -> Class {
    match code {
        Some(35 | 51 | 53 | 54 | 58 | 59 | 60 | 66 | 77 | 80 | 82 | 83 | 90 | 91) => Class::Trust,
        Some(23) => Class::NoSpace,
        Some(1..=3 | 47) => Class::Config,
        _ => Class::Network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(range: &str, etag: &str, modified: &str) -> Answer {
        let said = format!("{MARK}206 {range}\n{ETAG}{etag}\n{MODIFIED}{modified}\n");
        Answer::parse(Some(0), &said)
    }

    #[test]
    fn answers_are_read() {
        let said = format!("curl: (22) x\n\n{MARK}206 bytes 0-511/10240\n");
        let answer = Answer::parse(Some(0), &said);
        assert_eq!((answer.status, answer.range), (206, Some((0, 10_240))));
        let answer = Answer::parse(Some(0), &format!("\n{MARK}200 \n{ETAG}\n{MODIFIED}\n"));
        assert_eq!((answer.status, answer.range, answer.text.as_str()), (200, None, ""));
        let answer = Answer::parse(Some(6), "curl: (6) Could not resolve host: x\n\n");
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (0, "curl: (6) Could not resolve host: x")
        );
        assert_eq!(answer.failure("x").class, Class::Network);
        assert_eq!(Answer::parse(Some(28), "").failure("x").class, Class::Network);
    }

    #[test]
    fn only_the_range_that_was_asked_for_is_one() {
        let version = answer("bytes 512-1023/10240", "", "").version("x", 512).unwrap();
        assert_eq!(version.total, 10_240);
        for range in ["bytes 0-511/10240", "bytes */10240", "bytes 512-1023/*", ""] {
            assert!(answer(range, "", "").version("x", 512).is_err(), "{range}");
        }
    }

    #[test]
    fn another_content_is_told_by_its_length_tag_or_date() {
        let of = |range, etag, date| answer(range, etag, date).version("x", 0).unwrap();
        let first = of("bytes 0-1/9", "\"a\"", "Mon");
        assert!(first.is_same(&of("bytes 0-1/9", "\"a\"", "Mon")));
        assert!(first.is_same(&of("bytes 0-1/9", "", "")));
        assert!(first.is_same(&of("bytes 0-1/9", "W/\"b\"", "Mon")));
        assert!(!first.is_same(&of("bytes 0-1/8", "\"a\"", "Mon")));
        assert!(!first.is_same(&of("bytes 0-1/9", "\"b\"", "Mon")));
        assert!(!first.is_same(&of("bytes 0-1/9", "", "Tue")));
        // Mirrors behind a redirection tag the same file differently; its length they agree on.
        let mirror = |total| {
            let said = format!("{MARK}206 bytes 0-1/{total}\n{ETAG}\"b\"\n{REDIRECTS}1\n");
            Answer::parse(Some(0), &said).version("x", 0).unwrap()
        };
        assert!(first.is_same(&mirror(9)) && !first.is_same(&mirror(8)));
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in "(v2v-pod |answer |etag |206 |bytes|[ -/*]|[0-9]|\n){0,20}") {
            let answer = Answer::parse(Some(0), &text);
            let _ = answer.version("x", 0);
        }
    }
}
