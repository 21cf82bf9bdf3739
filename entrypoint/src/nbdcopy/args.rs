//! The command line of `nbdcopy`, read as the original reads it: options anywhere, long ones
//! abbreviated, sizes with suffixes.

use datapath::units::Size;
use lexopt::{Arg, Parser, ValueExt};
use std::ffi::OsString;

/// A source or target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// `-`, a path, a URI or `null:`.
    Place(String),
    /// `[ CMD ARGS… ]`: a server to start.
    Command(Vec<OsString>),
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Not at all.
    None,
    /// A bar on stderr.
    Bar,
    /// `N/100` lines on a descriptor.
    Lines(i32),
}

/// What is to be copied, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // flags
pub struct Args {
    /// `--allocated`
    pub allocated: bool,
    /// `--connections`
    pub connections: u32,
    /// `--destination-is-zero`
    pub is_zero: bool,
    /// `--flush`
    pub flush: bool,
    /// The opposite of `--no-extents`
    pub extents: bool,
    /// `--progress`
    pub progress: Progress,
    /// `--queue-size`, bytes
    pub queue: u64,
    /// `--request-size`, bytes
    pub request: u64,
    /// `--requests`
    pub requests: u32,
    /// `--sparse`, bytes
    pub sparse: u64,
    /// `--synchronous`
    pub synchronous: bool,
    /// `--threads`
    pub threads: u32,
    /// `--verbose`
    pub verbose: bool,
    /// From
    pub source: Word,
    /// To
    pub target: Word,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// A copy.
    Copy(Box<Args>),
    /// `--help`
    Help,
    /// `--version`
    Version,
    /// `--long-options`
    LongOptions,
    /// `--short-options`
    ShortOptions,
}

/// Why not.
#[derive(Debug, PartialEq, Eq)]
pub enum ArgsError {
    /// Something is wrong with an option's value; the text.
    Value(String),
    /// The usage is shown.
    Usage,
}

/// Long options; those of later versions of nbdcopy that virt-v2v uses are known too.
pub const LONG: [&str; 18] = [
    "help",
    "allocated",
    "blkhash",
    "connections",
    "destination-is-zero",
    "flush",
    "no-extents",
    "progress",
    "queue-size",
    "request-size",
    "requests",
    "sparse",
    "synchronous",
    "target-is-zero",
    "threads",
    "verbose",
    "version",
    "long-options",
];
/// Short options.
pub const SHORT: [char; 7] = ['C', 'p', 'R', 'S', 'T', 'v', 'V'];

const MIN_REQUEST: u64 = 4096;
const MAX_REQUEST: u64 = 32 << 20;

impl Default for Args {
    fn default() -> Self {
        Self {
            allocated: false,
            connections: 4,
            is_zero: false,
            flush: false,
            extents: true,
            progress: Progress::None,
            queue: 16 << 20,
            request: 256 << 10,
            requests: 64,
            sparse: 4096,
            synchronous: false,
            threads: 0,
            verbose: false,
            source: Word::Place(String::new()),
            target: Word::Place(String::new()),
        }
    }
}

/// Reads the arguments after the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Asked, ArgsError> {
    let mut parser = Parser::from_args(args);
    let mut out = Args::default();
    let mut words: Vec<OsString> = Vec::new();
    loop {
        let arg = match parser.next() {
            Ok(Some(arg)) => arg,
            Ok(None) => break,
            Err(_) => return Err(ArgsError::Usage),
        };
        let name = match arg {
            Arg::Value(word) => {
                words.push(word);
                continue;
            }
            Arg::Short('C') => "connections",
            Arg::Short('p') => {
                out.progress = Progress::Bar;
                continue;
            }
            Arg::Short('R') => "requests",
            Arg::Short('S') => "sparse",
            Arg::Short('T') => "threads",
            Arg::Short('v') => "verbose",
            Arg::Short('V') => "version",
            Arg::Short(_) => return Err(ArgsError::Usage),
            Arg::Long("short-options") => return Ok(Asked::ShortOptions),
            Arg::Long(text) => full_name(text).ok_or(ArgsError::Usage)?,
        };
        if let Some(asked) = option(name, &mut parser, &mut out)? {
            return Ok(asked);
        }
    }
    let mut words = words.into_iter();
    out.source = word(&mut words)?;
    out.target = word(&mut words)?;
    if words.next().is_some() {
        return Err(ArgsError::Usage);
    }
    Ok(Asked::Copy(Box::new(out)))
}

/// An option's full name; an abbreviation must be of one only.
fn full_name(text: &str) -> Option<&'static str> {
    if let Some(exact) = LONG.iter().find(|l| **l == text) {
        return Some(exact);
    }
    let mut found = LONG.iter().filter(|l| l.starts_with(text));
    let first = found.next()?;
    found.next().is_none().then_some(*first)
}

fn option(name: &str, parser: &mut Parser, out: &mut Args) -> Result<Option<Asked>, ArgsError> {
    match name {
        "help" => return Ok(Some(Asked::Help)),
        "version" => return Ok(Some(Asked::Version)),
        "long-options" => return Ok(Some(Asked::LongOptions)),
        "allocated" => out.allocated = true,
        "destination-is-zero" | "target-is-zero" => out.is_zero = true,
        "flush" => out.flush = true,
        "no-extents" => out.extents = false,
        "synchronous" => out.synchronous = true,
        "verbose" => out.verbose = true,
        // Only virt-v2v asks for it, to log a checksum; ours is `--verify`.
        "blkhash" => drop(parser.optional_value()),
        "progress" => {
            out.progress = match parser.optional_value() {
                None => Progress::Bar,
                Some(text) => {
                    let fd = text.parse().ok().filter(|fd| *fd >= 0);
                    Progress::Lines(fd.ok_or_else(|| unparsed(name, &text))?)
                }
            }
        }
        "connections" => out.connections = number(name, parser, 1)?,
        "requests" => out.requests = number(name, parser, 1)?,
        "threads" => out.threads = number(name, parser, 0)?,
        "queue-size" => {
            let (size, text) = size(name, parser)?;
            if u32::try_from(size).is_err() {
                return Err(ArgsError::Value(format!("--{name} is too large: {text}")));
            }
            out.queue = size;
        }
        "request-size" => {
            let (size, text) = size(name, parser)?;
            if !(MIN_REQUEST..=MAX_REQUEST).contains(&size) || !size.is_power_of_two() {
                return Err(ArgsError::Value(format!(
                    "--{name}: must be a power of 2 within {MIN_REQUEST}-{MAX_REQUEST}: {text}"
                )));
            }
            out.request = size;
        }
        _ => {
            let (size, text) = size(name, parser)?;
            if size != 0 && (size < 512 || u32::try_from(size).is_err() || !size.is_power_of_two())
            {
                return Err(ArgsError::Value(format!(
                    "--{name}: must be a power of 2, between 512-{}: {text}",
                    u32::MAX
                )));
            }
            out.sparse = size;
        }
    }
    Ok(None)
}

fn unparsed(name: &str, text: &OsString) -> ArgsError {
    ArgsError::Value(format!("--{name}: could not parse: {}", text.to_string_lossy()))
}

fn number(name: &str, parser: &mut Parser, least: u32) -> Result<u32, ArgsError> {
    let text = parser.value().map_err(|_| ArgsError::Usage)?;
    let number = text.parse().ok().filter(|n| *n >= least);
    number.ok_or_else(|| unparsed(name, &text))
}

fn size(name: &str, parser: &mut Parser) -> Result<(u64, String), ArgsError> {
    let text = parser.value().map_err(|_| ArgsError::Usage)?.to_string_lossy().into_owned();
    let size = text.parse::<Size>();
    size.map(|s| (s.0, text.clone()))
        .map_err(|_| ArgsError::Value(format!("--{name}: could not parse size string: {text}")))
}

/// The next source or target; `[` begins a command that ends at `]`.
fn word(words: &mut impl Iterator<Item = OsString>) -> Result<Word, ArgsError> {
    let first = words.next().ok_or(ArgsError::Usage)?;
    if first != "[" {
        return first.into_string().map(Word::Place).map_err(|_| ArgsError::Usage);
    }
    let mut command = Vec::new();
    for word in words {
        if word == "]" {
            return if command.is_empty() {
                Err(ArgsError::Usage)
            } else {
                Ok(Word::Command(command))
            };
        }
        command.push(word);
    }
    Err(ArgsError::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(args: &[&str]) -> Result<Asked, ArgsError> {
        parse(args.iter().map(OsString::from))
    }

    fn copy(args: &[&str]) -> Args {
        match parsed(args) {
            Ok(Asked::Copy(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_call_of_virt_v2v_is_understood() {
        let (i, o) = ("nbd+unix:///?socket=/t/in0", "nbd+unix:///?socket=/t/out0");
        let args = copy(&[i, o, "--requests=64", "--flush", "--progress"]);
        assert_eq!((args.source, args.target), (Word::Place(i.into()), Word::Place(o.into())));
        assert_eq!((args.requests, args.flush, args.progress), (64, true, Progress::Bar));
        assert!(copy(&[i, o, "--blkhash", "--allocated"]).allocated);
    }

    #[test]
    fn commands_in_brackets_keep_their_own_options() {
        let args = copy(&["-S", "0", "--", "[", "nbdkit", "-v", "null", "]", "[", "x", "]"]);
        let words = |w: &[&str]| Word::Command(w.iter().map(OsString::from).collect());
        assert_eq!((args.source, args.target), (words(&["nbdkit", "-v", "null"]), words(&["x"])));
        assert_eq!(args.sparse, 0);
    }

    #[test]
    fn values_are_checked_as_by_the_original() {
        for (option, want) in [
            ("--request-size=5000", "power of 2"),
            ("--request-size=64M", "power of 2"),
            ("--connections=0", "could not parse"),
            ("--sparse=100", "power of 2"),
            ("--progress=x", "could not parse"),
            ("--queue-size=x", "--queue-size"),
        ] {
            match parsed(&[option, "a", "b"]) {
                Err(ArgsError::Value(text)) => assert!(text.contains(want), "{text}"),
                other => panic!("{option}: {other:?}"),
            }
        }
        assert_eq!(
            copy(&["--req=1", "-C2", "a", "b"].map(|a| if a == "--req=1" {
                "--requests=1"
            } else {
                a
            }))
            .connections,
            2
        );
        assert_eq!(parsed(&["--req=1", "a", "b"]), Err(ArgsError::Usage), "ambiguous");
        assert!(copy(&["--sync", "a", "b"]).synchronous);
        for wrong in
            [&["a"][..], &["a", "b", "c"], &["[", "a", "b"], &["--nonsense", "a", "b"], &[]]
        {
            assert_eq!(parsed(wrong), Err(ArgsError::Usage), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_arguments_make_it_panic(args in proptest::collection::vec("(--)?[a-z=-]{0,12}|-\\PC{0,3}|\\[|\\]", 0..6)) {
            let _ = parse(args.iter().map(OsString::from));
        }
    }
}
