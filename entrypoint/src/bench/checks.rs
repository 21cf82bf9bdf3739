//! What is checked and prepared before `bench transports` measures anything.

use super::args::TransportsArgs;
use super::choose;
use super::report::Spread;
use crate::failure::{Class, Failure};
use crate::preflight::{self, Report as Findings, Verdict};
use crate::rundir::RunDir;
use crate::serve_disks::secrets::{Login, user_of};
use crate::serve_disks::vm::{self, Vm};
use crate::toolbox::Toolbox;
use crate::trust::Endpoint;
use crate::vsphere::access::{self, Access, Given};
use crate::vsphere::choose::Wanted;
use crate::vsphere::find::{self, Question};
use crate::vsphere::transport::{self, Transport, Vddk, Wish};
use crate::vsphere::virsh::{self, Virsh};
use std::time::Instant;
use tokio::net::TcpStream;

const CONNECTIONS: usize = 9;

/// Everything that can be wrong, at once.
pub async fn check(
    args: &TransportsArgs,
    toolbox: &Toolbox,
    run: &RunDir,
    findings: &mut Findings,
) -> Result<(Access, Option<Vddk>), Failure> {
    if !["vpx://", "esx://"].iter().any(|scheme| args.url.starts_with(scheme)) {
        let message = "--url is not that of a vCenter or an ESXi host".to_owned();
        return Err(Failure::new(Class::Config, message)
            .advise("write vpx://USER@VCENTER/DATACENTER/CLUSTER/ESXI or esx://USER@ESXI"));
    }
    preflight::check_secret(findings, &args.password_file, "password");
    if let Some(dir) = args.scratch.as_ref().filter(|d| !d.is_dir()) {
        let message = format!("--scratch {}: there is no such folder", dir.display());
        findings.problem("scratch", Failure::new(Class::Config, message));
    }
    for tool in ["nbdkit", "nbdcopy", "nbdinfo", "virsh", "curl"] {
        if toolbox.find(tool).is_none() {
            findings.problem("tools", crate::tool_run::missing(tool));
        }
    }
    let given = Given {
        url: args.url.clone(),
        mode: args.trust,
        thumbprint: args.thumbprint,
        ca: args.cacert.clone(),
        ca_link: None,
    };
    let access = access::check(&given, findings).await;
    let mut vddk = None;
    if args.wants_vddk() {
        let tmp = run.path();
        let chosen =
            transport::choose(Wish::Vddk, &args.libdir, None, toolbox, tmp, findings).await;
        if let Transport::Vddk(found) = chosen {
            vddk = Some(found);
        }
    }
    match (findings.failure(), access) {
        (None, Some(access)) => Ok((access, vddk)),
        (Some(failure), _) => Err(failure),
        (None, None) => Err(Failure::new(Class::Internal, "no problem, but no access either")),
    }
}

/// The server.
pub fn endpoint(args: &TransportsArgs) -> Result<Endpoint, Failure> {
    Endpoint::of_url(&args.url)
        .map_err(|e| Failure::new(Class::Config, format!("--url: {}", datapath::error_chain(&e))))
}

/// The user is in the URL, the password in its file.
pub fn login(args: &TransportsArgs) -> Result<Login, Failure> {
    let Some(user) = user_of(&args.url) else {
        let message = "--url names no user";
        return Err(Failure::new(Class::Config, message).advise("write vpx://USER@HOST/…"));
    };
    Login::new(user, &args.password_file)
}

/// The VM as libvirt describes it: exactly one of its name, and off.
pub async fn describe(
    args: &TransportsArgs,
    access: &Access,
    toolbox: &Toolbox,
    run: &RunDir,
) -> Result<Vm, Failure> {
    let login =
        || virsh::Login { url: &access.url, user_file: None, password_file: &args.password_file };
    let wanted = Wanted { name: &args.vm, uuid: None, moref: None };
    let question = Question { access, login: login(), wanted, may_run: false };
    let mut findings = Findings::default();
    let found = find::find(&question, toolbox, run.path(), &mut findings).await;
    if let Some(failure) = findings.failure() {
        return Err(failure);
    }
    let Some(found) = found else { return Err(not_found(&args.vm, &findings)) };
    let virsh = Virsh::new(&login(), toolbox, run.path())?;
    let said = virsh.ask(&["dumpxml", "--domain", &found.uuid]).await;
    let said = said.map_err(|failure| Failure {
        message: format!("cannot read the VM {}: {}", args.vm, failure.message),
        ..failure
    })?;
    let vm = vm::parse(virsh::document(&said), &args.vm)?;
    choose::check(&vm, &args.vm)?;
    Ok(vm)
}

/// A conversion may go on without it, a measurement not: the name could be that of another VM, or of one that runs.
fn not_found(vm: &str, findings: &Findings) -> Failure {
    let why = findings.findings.iter().rev().find(|f| f.verdict == Verdict::Note);
    let why = why.map_or("the server lists no VMs", |note| note.message.as_str());
    Failure::new(
        Class::NotFound,
        format!("the VM {vm} was not found, so nothing is measured: {why}"),
    )
    .advise("check --url, the rights of its user, and that the server answers `virsh list --all`")
}

/// How many disks are copied at once, row by row.
pub fn counts(args: &TransportsArgs, available: usize) -> Result<Vec<usize>, Failure> {
    let mut counts: Vec<usize> = args.disks.iter().map(|n| usize::from(*n)).collect();
    if counts.is_empty() {
        counts = [1, 2, 4].into_iter().filter(|n| *n <= available).collect();
    }
    counts.sort_unstable();
    counts.dedup();
    if let Some(count) = counts.iter().find(|n| **n > available) {
        let message = format!("--disks {count}: the VM has {available}, or so many were chosen");
        return Err(Failure::new(Class::Config, message).advise("ask for fewer"));
    }
    Ok(counts)
}

/// A TCP handshake costs one.
pub async fn round_trip(endpoint: &Endpoint) -> Result<Spread, Failure> {
    let mut times = Vec::new();
    let address = (endpoint.host.to_string().trim_matches(['[', ']']).to_owned(), endpoint.port);
    for _ in 0..CONNECTIONS {
        let begin = Instant::now();
        TcpStream::connect(&address)
            .await
            .map_err(|e| Failure::new(Class::Network, format!("cannot reach {endpoint}: {e}")))?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    Spread::of(times).ok_or_else(|| Failure::new(Class::Internal, "no connection was tried"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_that_was_not_looked_for_is_not_measured() {
        let mut findings = Findings::default();
        let failure = not_found("web", &findings);
        assert!(failure.message.contains("web was not found"), "{failure}");
        assert!(failure.message.ends_with("the server lists no VMs"), "{failure}");
        findings.note("trust", "an older note", "none");
        findings.note("source", "virsh list gave no answer", "none");
        assert!(not_found("web", &findings).message.ends_with("virsh list gave no answer"));
    }
}
