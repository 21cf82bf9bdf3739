//! `v2v-pod`: see `docs/architecture.md`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use v2v_pod::xen::front;
use v2v_pod::{app, init, nbdcopy, nbdkit_front, secret, shim};

fn main() -> ExitCode {
    name_process();
    if let Err(e) = secret::forbid_cores().and_then(|()| secret::leave_environment()) {
        return fail(&format!("cannot protect the secrets: {e}"));
    }
    if init::is_needed() {
        return match init::run() {
            Ok(code) => ExitCode::from(code),
            Err(e) => fail(&format!("as process 1: {e}")),
        };
    }
    if let Err(e) = init::unblock_signals() {
        return fail(&format!("no signals: {e}"));
    }
    let mut words = std::env::args_os();
    let name = words.next();
    if nbdcopy::is_name(name.as_ref()) {
        let words: Vec<_> = words.collect();
        return run(async || nbdcopy::run(words).await);
    }
    if shim::is_name(name.as_ref(), nbdkit_front::NAME) {
        return ExitCode::from(nbdkit_front::run(words.collect()));
    }
    if shim::is_name(name.as_ref(), front::SSH) {
        return ExitCode::from(front::run_ssh(words.collect()));
    }
    if shim::is_name(name.as_ref(), front::ASKPASS) {
        return ExitCode::from(front::run_askpass(name.as_ref(), words.next().as_ref()));
    }
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let env: BTreeMap<String, String> = std::env::vars_os()
        .map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
        .collect();
    run(async || app::run(&args, env).await)
}

/// Started by way of `/proc/self/exe`, a process is called `exe`; an operator looks for v2v-pod.
fn name_process() {
    let first = std::env::args_os().next();
    let name = if nbdcopy::is_name(first.as_ref()) { c"nbdcopy" } else { c"v2v-pod" };
    // It is only for people.
    let _ = nix::sys::prctl::set_name(name);
}

/// One thread: children are tied to the thread that starts them, see `sys`.
fn run(work: impl AsyncFnOnce() -> u8) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => ExitCode::from(runtime.block_on(work())),
        Err(e) => fail(&format!("no runtime: {e}")),
    }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("v2v-pod: {text}");
    ExitCode::from(70)
}
