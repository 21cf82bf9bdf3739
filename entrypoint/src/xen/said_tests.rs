//! Texts of the real tools: libvirt 9.0, OpenSSH 9.2, nbdkit 1.32 with libssh.

use super::*;

fn url() -> XenUrl {
    XenUrl::parse("xen+ssh://root@127.0.0.1:18999/", None).unwrap()
}

fn virsh(text: &str, class: Class, part: &str) {
    let text = format!("error: failed to connect to the hypervisor\nerror: {text}\n");
    let failure = by_virsh(&text, &url(), "web");
    assert!(failure.class == class && failure.message.contains(part), "{failure:?}");
}

#[test]
fn what_virsh_says_of_ssh() {
    let unknown = "Cannot recv data: No ED25519 host key is known for [127.0.0.1]:18999 and you have requested strict checking.\r\nHost key verification failed.\r\n: Connection reset by peer";
    virsh(unknown, Class::Trust, "known_hosts has no key of [127.0.0.1]:18999");
    let changed = "Cannot recv data: @@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@\nThe fingerprint for the ED25519 key sent by the remote host is\nSHA256:pfNsQTs/EYL7Aecby096DCDkFSbqlhtRmH8tYP6b9rY.\nPlease contact your system administrator.\nHost key for [127.0.0.1]:18999 has changed and you have requested strict checking.\nHost key verification failed.: Connection reset by peer";
    virsh(
        changed,
        Class::Trust,
        "not the one in known_hosts (it presents SHA256:pfNsQTs/EYL7Aecby096DCDkFSbqlhtRmH8tYP6b9rY)",
    );
    // libvirt keeps the first kilobyte of what ssh said.
    virsh(&changed[..120], Class::Trust, "not the one");
    let socket = "Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied";
    virsh(socket, Class::Auth, "libvirt on [127.0.0.1]:18999 does not let root in");
    let denied = "Cannot recv data: root@127.0.0.1: Permission denied (publickey,password,keyboard-interactive).: Connection reset by peer";
    virsh(
        denied,
        Class::Auth,
        "let root log in (it offers publickey,password,keyboard-interactive)",
    );
    let refused = "Cannot recv data: ssh: connect to host 127.0.0.1 port 1: Connection refused: Connection reset by peer";
    virsh(refused, Class::Network, "Connection refused");
    let unresolved = "Cannot recv data: ssh: Could not resolve hostname nohost.invalid: Name or service not known: Connection reset by peer";
    virsh(unresolved, Class::Network, "nohost.invalid");
    virsh("no connection driver available for xen:///", Class::Config, "no Xen hypervisor");
    let helper = "End of file while reading data: virt-ssh-helper: cannot connect to '/var/run/libvirt/libvirt-sock': Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory: Input/output error";
    virsh(helper, Class::Tool, "libvirt does not answer");
    let no_nc = "End of file while reading data: sh: 1: nc: not found: Input/output error";
    virsh(no_nc, Class::Tool, "libvirt does not answer");
    let missing = by_virsh("error: failed to get domain 'web'\n", &url(), "web");
    assert!(missing.class == Class::NotFound && missing.message.contains("no VM web on"));
    assert!(by_virsh(&format!("error: {refused}"), &url(), "web").passing);
}

#[test]
fn old_algorithms_are_named() {
    let texts = [
        "Unable to negotiate with 127.0.0.1 port 18998: no matching key exchange method found. Their offer: diffie-hellman-group14-sha1,diffie-hellman-group1-sha1",
        "no match for method mac algo client->server: server [hmac-sha1], client [hmac-sha2-256]",
    ];
    for text in texts {
        let failure = no_algorithm(text, &url()).unwrap();
        assert!(failure.class == Class::Config && failure.message.contains("sha1"), "{failure}");
        assert!(failure.advice.contains("V2V_sshLegacy"));
    }
    assert_eq!(no_algorithm("Connection refused", &url()), None);
    let plugin = format!("failed to connect to remote host: h: {}", texts[1]);
    nbdkit(&plugin, Class::Config, "no algorithm in common");
}

fn nbdkit(text: &str, class: Class, part: &str) {
    let text = format!(
        "nbdkit: ssh[1]: error: {text}\nnbdinfo: nbd_connect_uri: handshake: server has no export named '': No such file or directory\n"
    );
    let failure = by_nbdkit(&text, &url(), "/i/a.img");
    assert!(failure.class == class && failure.message.contains(part), "{failure:?}");
}

#[test]
fn what_nbdkit_says() {
    nbdkit(
        "cannot open file for reading: SFTP server: No such file",
        Class::NotFound,
        "/i/a.img is not on",
    );
    nbdkit(
        "cannot open file for reading: SFTP server: Permission denied",
        Class::Auth,
        "may not read",
    );
    nbdkit("all possible authentication methods failed", Class::Auth, "log in as root");
    nbdkit("host key for server changed", Class::Trust, "does not trust");
    nbdkit(
        "either the host key is unknown, you must use ssh first and accept the host key; or the known_hosts file (usually ~/.ssh/known_hosts) could not be opened",
        Class::Trust,
        "does not trust",
    );
    nbdkit(
        "failed to connect to remote host: 127.0.0.1: Connection refused",
        Class::Network,
        "refused",
    );
    nbdkit("cannot open file for reading: SFTP server: Failure", Class::Io, "Failure");
    assert_eq!(by_nbdkit("", &url(), "/x").class, Class::Io);
}

/// What nbdkit 1.42 with the retry filter said when the host went away in a copy.
const LOST: &str = "nbdkit: ssh[1]: error: read failed: Socket error: disconnected (-1)
nbdkit: ssh[1]: error: cannot close file: Socket error: disconnected
nbdkit: ssh[1]: error: failed to connect to remote host: 127.0.0.1: Connection refused
nbdkit: ssh[2]: error: aborting sleep because of connection close or error
nbdkit: ssh[1]: error: write error reply: Broken pipe";

fn explained(failure: &Failure, lines: &str, copied: bool) -> Failure {
    let mut evidence = Evidence::default();
    lines.lines().for_each(|l| evidence.line("virt-v2v", l));
    explain(failure.clone(), &evidence, copied)
}

#[test]
fn a_host_that_goes_away_is_a_failure_of_the_network() {
    let read = "copying disk 0: the source nbd+unix:///?socket=/t/in0: the NBD server failed to read 1048576 bytes at 0: Input/output error";
    let refused = "copying disk 0: the source nbd:/t/in0/: the NBD server refused the export \"\": it has no such export (failed to connect to remote host: 127.0.0.1: Connection refused)";
    for (failure, copied) in [
        (Failure::new(Class::Io, read), true),
        (Failure::new(Class::NotFound, refused), true),
        (Failure::new(Class::Conversion, "virt-v2v failed: exit status 1"), false),
    ] {
        let why = explained(&failure, LOST, copied);
        assert!(why.class == Class::Network && why.passing, "{why:?}");
        assert!(why.message.contains("failed to connect to remote host"), "{why}");
        assert!(why.message.starts_with(&failure.message), "{why}");
    }
}

#[test]
fn a_connection_that_came_back_explains_nothing_else() {
    for (class, copied) in [
        (Class::Io, true),
        (Class::NoSpace, false),
        (Class::NoBootLoader, false),
        (Class::Volume, true),
    ] {
        let failure = Failure::new(class, "fsync of /dev/block0 failed");
        assert_eq!(explained(&failure, LOST, copied), failure);
    }
    let failure = Failure::new(Class::Io, "the source is broken");
    assert_eq!(explained(&failure, "nbdkit: ssh[1]: error: read failed: (0)", true), failure);
    let vddk = "nbdkit: vddk[1]: error: Socket error";
    assert_eq!(explained(&failure, vddk, true), failure);
}

#[test]
fn a_disk_or_a_login_lost_meanwhile_has_its_class() {
    let failure = Failure::new(Class::Conversion, "nbdkit did not start up");
    for (line, class) in [
        ("cannot open file for reading: SFTP server: No such file", Class::NotFound),
        ("cannot open file for reading: SFTP server: Permission denied", Class::Auth),
        ("all possible authentication methods failed", Class::Auth),
        ("host key for server changed", Class::Trust),
        ("failed to connect to remote host: xen: Timeout connecting to xen", Class::Network),
        ("read failed: Socket error: Connection reset by peer (-1)", Class::Network),
    ] {
        let line = format!("nbdkit: ssh[1]: error: {line}");
        assert_eq!(explained(&failure, &line, false).class, class, "{line}");
    }
}
