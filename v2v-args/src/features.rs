//! What a tool says it can do. Asked for, never guessed from a version or a distribution.

use std::collections::BTreeSet;

/// The facts printed by `TOOL --machine-readable`, and the options in its `--help`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    facts: BTreeSet<String>,
    options: BTreeSet<String>,
}

/// Whether `--help` lists an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelpAnswer {
    /// It does.
    Listed,
    /// It lists options, but not this one.
    NotListed,
    /// It lists no option at all: this tool gave no usable answer.
    NoAnswer,
}

impl Features {
    /// Reads both outputs; either may be empty when the tool gave none.
    pub fn parse(machine_readable: &str, help: &str) -> Self {
        let facts = machine_readable
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.contains(' '))
            .map(str::to_owned)
            .collect();
        let options = help.split_whitespace().filter_map(option_word).collect();
        Self { facts, options }
    }

    /// True when the tool answered `--machine-readable` with facts at all.
    pub fn answered(&self) -> bool {
        !self.facts.is_empty()
    }

    /// True when the fact, e.g. `output:kubevirt`, is stated.
    pub fn has(&self, fact: &str) -> bool {
        self.facts.contains(fact)
    }

    /// Whether `--help` lists `option`, e.g. `--no-fstrim`.
    pub fn help(&self, option: &str) -> HelpAnswer {
        if self.options.is_empty() {
            HelpAnswer::NoAnswer
        } else if self.options.contains(option) {
            HelpAnswer::Listed
        } else {
            HelpAnswer::NotListed
        }
    }
}

/// `--foo` out of `--foo`, `--foo,`, `[--foo=BAR]` and the like.
fn option_word(word: &str) -> Option<String> {
    let start = word.find("--")?;
    let rest = &word[start + 2..];
    let name: String =
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    (!name.is_empty()).then(|| format!("--{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "virt-v2v-inspector: estimate\n  --root ask|...   Root\n  [--no-fstrim]  Do not\n  -x  Trace\n";

    #[test]
    fn facts_and_options_are_read() {
        let f = Features::parse("virt-v2v\nvirt-v2v-2.0\noutput:kubevirt\nsome error text\n", HELP);
        assert!(f.answered() && f.has("output:kubevirt") && !f.has("parallel-option"));
        assert_eq!(f.help("--no-fstrim"), HelpAnswer::Listed);
        assert_eq!(f.help("--parallel"), HelpAnswer::NotListed);
    }

    #[test]
    fn silence_is_no_answer() {
        let f = Features::parse("", "something went wrong");
        assert!(!f.answered());
        assert_eq!(f.help("--no-fstrim"), HelpAnswer::NoAnswer);
    }
}
