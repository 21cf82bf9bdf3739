//! When two command lines are the same. Every way in which ours may differ from the recorded one without a
//! change of meaning is a function here, with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Options of virt-v2v and its siblings, and of qemu-img, that take a value in the next word. An option
/// that is not listed (from `V2V_extra_args`, say) is taken for a flag; its value then counts as a
/// positional argument, which is as good for comparing.
const WITH_VALUE: &[&str] = &[
    "-b",
    "--bridge",
    "-i",
    "-ic",
    "-if",
    "-io",
    "-ip",
    "-it",
    "-n",
    "--network",
    "-o",
    "-oa",
    "-oc",
    "-of",
    "-on",
    "-oo",
    "-op",
    "-os",
    "-O",
    "--block-driver",
    "--hostname",
    "--key",
    "--mac",
    "--memsize",
    "--parallel",
    "--root",
    "--smp",
    "-f",
    "-F",
];

/// A command line without what does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Name of the tool, without its folder.
    pub tool: String,
    /// Values by option, in order; a flag has an empty value each time it is given.
    pub options: BTreeMap<String, Vec<String>>,
    /// The rest, in order.
    pub positionals: Vec<String>,
}

impl Command {
    /// Reads an argv.
    pub fn new(argv: &[String]) -> Self {
        let tool = argv.first().map(String::as_str).unwrap_or_default();
        let mut command = Self {
            // The tool may be called by its full path; where it lies is the image's affair.
            tool: tool.rsplit('/').next().unwrap_or_default().to_owned(),
            options: BTreeMap::new(),
            positionals: Vec::new(),
        };
        let takes_value = |word: &str| {
            // In qemu-img, `-b` and `-o` have values too, so one table serves.
            WITH_VALUE.contains(&word)
        };
        let words = drop_machine_readable(&argv[1.min(argv.len())..]);
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if word == "--" {
                command.positionals.extend(words.by_ref());
            } else if let Some((name, value)) = joined_long_option(&word) {
                command.options.entry(name).or_default().push(value);
            } else if word.starts_with('-') && word != "-" {
                let value = if takes_value(&word) { words.next() } else { None };
                command.options.entry(word).or_default().push(value.unwrap_or_default());
            } else {
                command.positionals.push(word);
            }
        }
        sort_input_and_output_options(&mut command.options);
        command
    }

    /// Values of an option.
    pub fn values(&self, option: &str) -> &[String] {
        self.options.get(option).map_or(&[], Vec::as_slice)
    }
}

/// `--machine-readable[=…]` only adds a stream of messages for the caller; the conversion is the same.
pub fn drop_machine_readable(words: &[String]) -> Vec<String> {
    let end = words.iter().position(|w| w == "--").unwrap_or(words.len());
    let noise = |w: &str| w == "--machine-readable" || w.starts_with("--machine-readable=");
    words
        .iter()
        .enumerate()
        .filter(|(i, w)| *i >= end || !noise(w))
        .map(|(_, w)| w.clone())
        .collect()
}

/// `--root=first` is `--root first`: the tools' option parser takes both.
fn joined_long_option(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    (name.starts_with("--") && WITH_VALUE.contains(&name)).then(|| (name.into(), value.into()))
}

/// `-io A=1 -io B=2` is `-io B=2 -io A=1`: the tools look each key up. The order of values with the same
/// key is kept: `-io vddk-file=` goes by position. (Order between other options is free already, since they
/// are kept by name; the order of a repeated `--key` or `--mac` is kept too.)
fn sort_input_and_output_options(options: &mut BTreeMap<String, Vec<String>>) {
    for name in ["-io", "-oo"] {
        if let Some(values) = options.get_mut(name) {
            values.sort_by_key(|v| v.split('=').next().unwrap_or_default().to_owned());
        }
    }
}

/// An explicit `-if raw` where the recording leaves the format to be guessed is what a careful caller does
/// (a guest must not choose its own image format), and no difference, as long as everything it applies to is
/// a raw disk: `raw_links` are the links that point straight at a volume, not at a qcow2 overlay. Anything
/// else (a VMDK, a VHDX) is not in there, so that a wrong `-if raw` stays a difference.
pub fn drop_explicit_raw(ours: &mut Command, recorded: &Command, raw_links: &[String]) {
    let asked = recorded.options.contains_key("-if");
    let raw = ours.values("-if") == ["raw"];
    if raw && !asked && ours.positionals.iter().all(|p| raw_links.contains(p)) {
        ours.options.remove("-if");
    }
}

/// Guest customisation runs scripts that belong to Forklift, and is not built here. The step is left out on
/// both sides.
pub fn is_customisation(command: &Command) -> bool {
    command.tool == "virt-customize"
}

/// The reference talks to libvirt through its library, so its argv list has no such call; ours runs `virsh`.
/// What it asks is checked on its own (`libvirt`).
pub fn is_libvirt_call(command: &Command) -> bool {
    command.tool == "virsh"
}

/// What two command lines do not have in common: for reports.
pub fn difference(a: &Command, b: &Command) -> (String, String) {
    let mut sides = (String::new(), String::new());
    let names: BTreeSet<&String> = a.options.keys().chain(b.options.keys()).collect();
    for name in names.into_iter().filter(|n| a.values(n) != b.values(n)) {
        let _ = writeln!(sides.0, "{name} {:?}", a.values(name));
        let _ = writeln!(sides.1, "{name} {:?}", b.values(name));
    }
    if a.positionals != b.positionals {
        let _ = writeln!(sides.0, "positionals {:?}", a.positionals);
        let _ = writeln!(sides.1, "positionals {:?}", b.positionals);
    }
    sides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        Command::new(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn order_of_options_is_free_but_not_of_repeated_ones() {
        let a = command("virt-v2v --root first --key a --key b -io x=1 -io f=1 -io f=2 -- vm");
        assert_eq!(
            a,
            command("/usr/bin/virt-v2v -io f=1 --root=first -io f=2 -io x=1 --key a --key b vm")
        );
        assert_ne!(a, command("virt-v2v --root first --key b --key a -io x=1 -io f=1 -io f=2 vm"));
        assert_ne!(a, command("virt-v2v --root first --key a --key b -io x=1 -io f=2 -io f=1 vm"));
    }

    #[test]
    fn positionals_keep_their_order() {
        assert_ne!(command("i -i disk sda sdb"), command("i -i disk sdb sda"));
        assert_eq!(command("i -- --insp").positionals, ["--insp"]);
    }

    #[test]
    fn machine_readable_is_no_difference_except_as_a_name() {
        assert_eq!(command("v --machine-readable=fd:5 vm"), command("v vm"));
        assert_ne!(command("v -- --machine-readable"), command("v --"));
    }

    #[test]
    fn explicit_raw_is_dropped_for_volumes_only() {
        let recorded = command("virt-v2v-in-place -i disk /w/a-sda");
        let links = ["/w/a-sda".to_owned()];
        let mut ours = command("virt-v2v-in-place -if raw -i disk /w/a-sda");
        drop_explicit_raw(&mut ours, &recorded, &links);
        assert_eq!(ours, recorded);
        let mut ours = command("virt-v2v-in-place -if raw -i disk /w/a-sda");
        drop_explicit_raw(&mut ours, &recorded, &[]);
        assert_ne!(ours, recorded);
    }
}
