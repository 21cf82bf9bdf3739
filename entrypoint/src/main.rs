//! `v2v-pod`: see `docs/architecture.md`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use v2v_pod::{app, init};

fn main() -> ExitCode {
    if init::is_needed() {
        return match init::run() {
            Ok(code) => ExitCode::from(code),
            Err(e) => fail(&format!("as process 1: {e}")),
        };
    }
    if let Err(e) = init::unblock_signals() {
        return fail(&format!("no signals: {e}"));
    }
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let env: BTreeMap<String, String> = std::env::vars_os()
        .map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
        .collect();
    // One thread: children are tied to the thread that starts them, see `sys`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => ExitCode::from(runtime.block_on(app::run(&args, env))),
        Err(e) => fail(&format!("no runtime: {e}")),
    }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("v2v-pod: {text}");
    ExitCode::from(70)
}
