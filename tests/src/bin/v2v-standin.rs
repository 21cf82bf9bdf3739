//! One binary for everything that runs inside a case's namespaces: called by a tool's name it plays that tool
//! (`standins`); `drive FILE` sets the namespaces up and runs a case; `enter PROGRAM…` becomes the pod (`inside`).

use std::process::ExitCode;
use v2v_pod_tests::{inside, standins};

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let tool = argv.first().map(|a| a.rsplit('/').next().unwrap_or_default());
    let known = standins::TOOLS.iter().any(|t| t.rsplit('/').next() == tool);
    if known {
        return ExitCode::from(u8::try_from(standins::play(&argv)).unwrap_or(255));
    }
    let result = match argv.get(1).map(String::as_str) {
        Some("drive") if argv.len() == 3 => inside::drive(&argv[2]),
        Some("enter") if argv.len() > 2 => inside::enter(&argv[2..]),
        _ => Err("part of the conformance harness; see tests/src/lib.rs".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("v2v-standin: {error}");
            ExitCode::from(125)
        }
    }
}
