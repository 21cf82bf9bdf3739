//! `vddk-sidecar`: the entrypoint of the sidecar's image, and the throw-away process of `v2v-pod vddk probe`.

use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use vddk_sidecar::install::{self, Outcome, Request};
use vddk_sidecar::{probe, tree};

const ABOUT: &str = "\
Puts VMware's VDDK into the volume from which the conversion pod loads it.

The tree is copied under a temporary name, checked (x86-64, complete, no broken or escaping
symbolic link, nothing missing that the library needs), listed with hashes, and shown under its own
name by one rename. Interrupted at any point it leaves no half tree; run twice it does nothing.

Examples:
  vddk-sidecar install --from /vmware-vix-disklib-distrib --to /opt
      what the sidecar's image runs: afterwards there is /opt/vmware-vix-disklib-distrib
  vddk-sidecar check ./vmware-vix-disklib-distrib
      only look, before an image is built";

#[derive(Debug, Parser)]
#[command(name = "vddk-sidecar", version, about = "Puts VMware's VDDK into a volume", long_about = ABOUT, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy an unpacked VDDK into a volume, whole or not at all
    Install {
        /// The unpacked VDDK
        #[arg(long, value_name = "FOLDER")]
        from: PathBuf,
        /// The volume; the folder's own name is kept
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
        /// A library that is in neither, but in the conversion image [may be repeated]
        #[arg(long, value_name = "NAME")]
        allow_missing: Vec<String>,
    },
    /// Check an unpacked VDDK without copying it
    Check {
        /// The unpacked VDDK
        folder: PathBuf,
        /// A library that is not in it, but in the conversion image [may be repeated]
        #[arg(long, value_name = "NAME")]
        allow_missing: Vec<String>,
    },
    /// Load a library, as the order on standard input says
    #[command(name = probe::CHILD, hide = true)]
    ProbeChild,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::ProbeChild => return ExitCode::from(probe::child_main()),
        Command::Install { from, to, allow_missing } => {
            run_install(&Request { from, to, allowed: allow_missing })
        }
        Command::Check { folder, allow_missing } => check(&folder, &allow_missing),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("vddk-sidecar: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run_install(request: &Request) -> Result<(), String> {
    let outcome = install::install(request).map_err(|e| format!("{e}\nnothing was installed"))?;
    for repair in &outcome.repairs {
        say(&format!("repaired: {repair}"));
    }
    say(&describe(&outcome));
    if let Some(error) = &outcome.unsynced {
        eprintln!(
            "vddk-sidecar: warning: it is in place, but may be gone after a power failure: {error}"
        );
    }
    Ok(())
}

/// What is done is done, even when nobody listens.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn describe(outcome: &Outcome) -> String {
    let manifest = &outcome.manifest;
    let path = outcome.path.display();
    let name = manifest.version.as_ref().map_or_else(|| "VDDK".to_owned(), |v| format!("VDDK {v}"));
    let bytes: u64 = manifest.entries.iter().filter_map(|e| e.size).sum();
    match (outcome.unchanged, outcome.replaced) {
        (true, _) => format!("{path}: {name} is there already and unchanged; nothing to do"),
        (false, replaced) => format!(
            "{path}: {name} installed{}, {} entries, {} MiB, library {}",
            if replaced { " in place of another" } else { "" },
            manifest.entries.len(),
            bytes >> 20,
            manifest.library
        ),
    }
}

fn check(folder: &Path, allowed: &[String]) -> Result<(), String> {
    let entries = tree::scan(folder).map_err(|e| e.to_string())?;
    let problems = tree::problems(folder, &entries, allowed);
    if problems.is_empty() {
        say(&format!("{}: complete", folder.display()));
        return Ok(());
    }
    let lines: Vec<_> = problems.iter().map(|p| format!("  - {p}")).collect();
    Err(format!("{} is not usable as it is:\n{}", folder.display(), lines.join("\n")))
}
