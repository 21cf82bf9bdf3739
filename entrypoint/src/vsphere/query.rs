//! The parameters of a source's URL, read as libvirt reads them, so that no spelling of `no_verify` (another case, `%5F`, `01`,
//! behind a `;`) means something else to it than to us. Pure.

use percent_encoding::percent_decode_str;

/// A URL in pieces; what is not taken out of it stays as it was written.
pub struct Query<'a> {
    base: &'a str,
    parts: Vec<&'a str>,
}

impl<'a> Query<'a> {
    /// Takes a URL apart as libvirt's `virURIParseParams` does: `;` separates only behind the last `&`. A fragment counts for nobody.
    pub fn of(url: &'a str) -> Self {
        let url = url.split_once('#').map_or(url, |(url, _)| url);
        let (base, mut rest) = url.split_once('?').unwrap_or((url, ""));
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let end = rest.find('&').or_else(|| rest.find(';'));
            let (part, after) = end.map_or((rest, ""), |at| (&rest[..at], &rest[at + 1..]));
            parts.extend(Some(part).filter(|p| !p.is_empty()));
            rest = after;
        }
        Self { base, parts }
    }

    /// The values of a parameter, decoded, in order; for libvirt the last one counts.
    pub fn values(&self, name: &str) -> Vec<String> {
        let value = |part: &&str| decoded(part.split_once('=').map_or("", |(_, value)| value));
        self.parts.iter().filter(|p| is(p, name)).map(value).collect()
    }

    /// Takes a parameter out, however it is written.
    pub fn remove(&mut self, name: &str) {
        self.parts.retain(|part| !is(part, name));
    }

    /// Adds a parameter, which must need no quoting.
    pub fn add(&mut self, part: &'a str) {
        self.parts.push(part);
    }

    /// Whether a parameter is written exactly like this.
    pub fn has(&self, part: &str) -> bool {
        self.parts.contains(&part)
    }

    /// Whether the text occurs in the parameters as they are written: virt-v2v looks for `no_verify=1` like this.
    pub fn contains(&self, text: &str) -> bool {
        self.parts.iter().any(|part| part.contains(text))
    }

    /// The whole URL. A `;` that was part of a value must not become a separator.
    pub fn url(&self) -> String {
        if self.parts.is_empty() {
            return self.base.to_owned();
        }
        format!("{}?{}", self.base, self.parts.join("&").replace(';', "%3B"))
    }
}

fn is(part: &str, name: &str) -> bool {
    decoded(part.split('=').next().unwrap_or_default()).eq_ignore_ascii_case(name)
}

/// libvirt's texts end at a NUL.
fn decoded(text: &str) -> String {
    let text = percent_decode_str(text).decode_utf8_lossy();
    text.split('\0').next().unwrap_or_default().to_owned()
}
