//! From what ssh, virsh and nbdkit said about a Xen host to what is wrong. Pure.

use super::host_key::HOW;
use super::url::XenUrl;
use crate::classify::Evidence;
use crate::failure::{Class, Failure};

/// For a host that does not answer.
pub const REACH: &str =
    "check that the pod can reach the host's SSH port (name resolution, firewall) and start again";

const LOGIN: &str = "check the user in the URL, and the password (secretKey, --password-file) or the key (ssh-privatekey, --identity) in the secret; sshd there must allow that user to log in like this (PermitRootLogin, PasswordAuthentication)";

/// Why virsh, over libvirt's ssh, did not give the domain.
pub fn by_virsh(text: &str, url: &XenUrl, vm: &str) -> Failure {
    let host = url.known_name();
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    if has(&["host key is known for"]) {
        let message = format!("known_hosts has no key of {host}");
        return Failure::new(Class::Trust, message).advise(HOW);
    }
    if has(&["identification has changed", "host key verification failed"]) {
        let presented = text.split_whitespace().find(|w| w.starts_with("SHA256:"));
        let presented = presented
            .map_or_else(String::new, |p| format!(" (it presents {})", p.trim_end_matches('.')));
        let message = format!("the host key of {host} is not the one in known_hosts{presented}");
        return Failure::new(Class::Trust, message).advise(
            "a host that was installed anew has new keys, and a wrong key can mean that somebody stands in between: compare it at the host's console, then correct known_hosts",
        );
    }
    if let Some(failure) = no_algorithm(text, url) {
        return failure;
    }
    if has(&["permission denied"]) && !has(&["libvirt-sock"]) {
        let methods = text.split_once("ermission denied (").and_then(|(_, t)| t.split_once(')'));
        let methods = methods.map_or_else(String::new, |(m, _)| format!(" (it offers {m})"));
        let message = format!("{host} does not let {} log in{methods}", url.user);
        return Failure::new(Class::Auth, message).advise(LOGIN);
    }
    if has(&["too many authentication failures"]) {
        let message = format!("{host} does not let {} log in", url.user);
        return Failure::new(Class::Auth, message).advise(LOGIN);
    }
    if has(&["failed to get domain", "domain not found", "no domain with matching"]) {
        let message = format!("there is no VM {vm} on {host}");
        return Failure::new(Class::NotFound, message)
            .advise("check V2V_vmName; `virsh list --all` on the host shows the names");
    }
    if has(&["no connection driver available"]) {
        let message = format!("libvirt on {host} knows no Xen hypervisor");
        return Failure::new(Class::Config, message).advise(
            "on the host, `virsh -c xen:/// list --all` must work: install libvirt's Xen driver",
        );
    }
    if has(&["nc: not found", "nc: command not found", "cannot connect to '/", "libvirt-sock"]) {
        if has(&["permission denied"]) {
            let message = format!("libvirt on {host} does not let {} in", url.user);
            return Failure::new(Class::Auth, message)
                .advise("on the host, add that user to the group libvirt, or log in as root");
        }
        let message = format!("libvirt does not answer on {host}");
        return Failure::new(Class::Tool, message).advise(
            "start libvirtd on the host, and install virt-ssh-helper (libvirt) or nc there",
        );
    }
    let mut evidence = Evidence::default();
    text.lines().for_each(|l| evidence.line("virsh", l));
    let failure = evidence.failure("virsh", "it gave no reason");
    let why = failure.message.trim_start_matches("error: ");
    let why = why.trim_start_matches("Cannot recv data: ");
    let message = format!("cannot read the VM {vm} from {host}: {why}");
    match failure.class {
        Class::Network => Failure::new(Class::Network, message).may_pass().advise(REACH),
        class => Failure { message, ..Failure::new(class, String::new()) },
    }
}

/// The failure for a host so old, or so strict, that both sides know no algorithm in common.
pub fn no_algorithm(text: &str, url: &XenUrl) -> Option<Failure> {
    let at = text.find("no matching ").or_else(|| text.find("no match for method"))?;
    let why = text[at..].lines().next().unwrap_or_default().trim();
    let message =
        format!("ssh and the sshd of {} have no algorithm in common: {why}", url.known_name());
    Some(Failure::new(Class::Config, message).advise(
        "for an old host set V2V_sshLegacy=true (--ssh-legacy): it also allows algorithms with SHA-1, which are weak",
    ))
}

/// Why nbdkit's ssh plugin could not open a disk.
pub fn by_nbdkit(text: &str, url: &XenUrl, path: &str) -> Failure {
    let host = url.known_name();
    let error = text.lines().find_map(|l| l.strip_prefix("nbdkit: ")?.split_once("error: "));
    let why = error.map_or("it gave no reason", |(_, why)| why.trim());
    let lower = why.to_lowercase();
    if let Some(failure) = no_algorithm(why, url) {
        return failure;
    }
    if lower.contains("no such file") {
        let message = format!("the disk {path} is not on {host}");
        return Failure::new(Class::NotFound, message)
            .advise("check the disk's path in the VM's definition on the host");
    }
    if lower.contains("sftp server: permission denied") {
        let message = format!("{} may not read the disk {path} on {host}", url.user);
        return Failure::new(Class::Auth, message)
            .advise("log in as a user who may read the VM's disks, usually root");
    }
    if lower.contains("authentication methods failed") {
        let message = format!("{host} does not let nbdkit log in as {}: {why}", url.user);
        return Failure::new(Class::Auth, message).advise(
            "sshd there must offer `password` or `publickey`; keyboard-interactive alone is not enough for nbdkit",
        );
    }
    if lower.contains("host key") || lower.contains("known_hosts") {
        let message = format!("nbdkit does not trust {host}: {why}");
        return Failure::new(Class::Trust, message).advise(HOW);
    }
    let message = format!("the disk {path} on {host} cannot be opened: {why}");
    let network = ["connect", "socket", "timeout", "timed out", "kex", "disconnected", "closed"];
    if network.iter().any(|w| lower.contains(w)) {
        return Failure::new(Class::Network, message).may_pass().advise(REACH);
    }
    Failure::new(Class::Io, message)
        .advise("log in there with sftp and read the file: sshd must have its sftp subsystem")
}

/// A failure of virt-v2v for which nbdkit's ssh plugin has the better reason. Once disks are copied, only where the failure
/// is one of the source: a connection that broke and came back is no reason for a full volume.
pub fn explain(failure: Failure, evidence: &Evidence, copied: bool) -> Failure {
    let unsure = [Class::Conversion, Class::Inspection, Class::Io, Class::Network];
    // nbdkit cannot open the disk again, so it has no such export.
    let refused = failure.message.contains("the NBD server refused");
    if !(refused || unsure.contains(&failure.class))
        || copied && !failure.message.contains("the source ")
    {
        return failure;
    }
    let telling = [Class::Network, Class::Auth, Class::Trust, Class::NotFound];
    let reason = evidence.of_helper("nbdkit: ssh[").find_map(|(class, line)| {
        let (_, why) = line.split_once("error: ")?;
        class.filter(|c| telling.contains(c)).map(|class| (class, why))
    });
    let Some((class, why)) = reason else { return failure };
    let message = if failure.message.contains(why) {
        failure.message
    } else {
        format!("{} (over SSH: {why})", failure.message)
    };
    let explained = Failure::new(class, message);
    if class != Class::Network {
        return explained;
    }
    explained.may_pass().advise(
        "check that the host is up and its SSH port stays reachable, and that its sshd ends no session while a disk is read; then start again",
    )
}

#[cfg(test)]
#[path = "said_tests.rs"]
mod tests;
