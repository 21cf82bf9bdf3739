use super::super::SshEdits;
use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn edits() -> Edits {
    Edits {
        ssh: Some(SshEdits {
            config: "/r/config".into(),
            known_hosts: "/r/known".into(),
            identity: Some("/r/key".into()),
        }),
        cookie_renew: Some(Duration::from_secs(600)),
    }
}

fn edited(line: &str) -> String {
    let words = line.split(' ').map(OsString::from).collect();
    let edited: Vec<_> =
        edit(words, &edits()).iter().map(|w| w.to_string_lossy().into_owned()).collect();
    edited.join(" ")
}

/// As virt-v2v 2.6 calls it.
const FRAME: &str = "--exit-with-parent --foreground --pidfile /t/nbdkit1.pid --unix /t/in0 --threads 16 --selinux-label l -D nbdkit.backend.datapath=0 --readonly --verbose --exportname / --filter=cow --filter=retry";

#[test]
fn the_ssh_plugin_gets_what_it_does_not_have() {
    let call = format!("{FRAME} ssh host=xen path=/d/a.img user=root");
    assert_eq!(
        edited(&call),
        format!("{call} config=/r/config known-hosts=/r/known identity=/r/key")
    );
    let call = format!("{FRAME} ssh host=xen known-hosts=/mine identity=/a identity=/b path=/x");
    assert_eq!(edited(&call), format!("{call} config=/r/config"));
    let by_file = "/usr/lib/nbdkit/plugins/nbdkit-ssh-plugin.so host=h /path";
    assert_eq!(
        edited(by_file),
        format!("{by_file} config=/r/config known-hosts=/r/known identity=/r/key")
    );
}

#[test]
fn the_cookie_is_renewed_as_we_say() {
    let call = format!(
        "{FRAME} curl url=https://vc/x?cookie-script-renew=9 cookie-script=/t/s.sh cookie-script-renew=1500 sslverify=false"
    );
    assert_eq!(edited(&call), call.replace("renew=1500", "renew=600"));
    let without = format!("{FRAME} curl url=https://vc/x cookie-script=/t/s.sh");
    assert_eq!(edited(&without), format!("{without} cookie-script-renew=600"));
    let plain = format!("{FRAME} curl url=https://vc/x cookie=a=b");
    assert_eq!(edited(&plain), plain);
}

#[test]
fn other_plugins_and_questions_stay_as_they_are() {
    for call in [
        "ssh --dump-plugin",
        "--dump-config",
        "curl --version cookie-script=/x",
        "--help",
        "-fv --filter ssh file ssh host=h",
        "--run ssh file /x",
        "-U ssh --name curl null cookie-script=/x",
        "-fU ssh null",
        "file ssh",
        "-- file ssh cookie-script=x",
        "",
    ] {
        assert_eq!(edited(call), call);
    }
}

#[test]
fn parameters_are_not_taken_for_the_value_of_an_option() {
    assert_eq!(
        edited("-fv ssh host=h path=/x -p 1 -U -"),
        "-fv ssh host=h path=/x config=/r/config known-hosts=/r/known identity=/r/key -p 1 -U -"
    );
    assert!(edited("-U- -- ssh host=h").ends_with("identity=/r/key"));
}

proptest! {
    /// Whatever the words are: nothing is lost or reordered, and editing twice changes nothing more.
    #[test]
    fn words_are_only_added_or_replaced(
        words in proptest::collection::vec(
            prop_oneof![
                Just("ssh".to_owned()),
                Just("curl".to_owned()),
                Just("--".to_owned()),
                Just("cookie-script=/s".to_owned()),
                Just("cookie-script-renew=1500".to_owned()),
                "-{0,2}[a-zA-Z]{0,12}=?",
                "\\PC{0,12}",
            ],
            0..12,
        )
    ) {
        let before: Vec<OsString> = words.iter().map(OsString::from).collect();
        let after = edit(before.clone(), &edits());
        let mut rest = after.iter();
        for word in &before {
            let renew = value(word, "cookie-script-renew").is_some();
            let kept = rest.any(|w| w == word || renew && value(w, "cookie-script-renew").is_some());
            prop_assert!(kept);
        }
        prop_assert!(after.len() <= before.len() + 3);
        prop_assert_eq!(edit(after.clone(), &edits()), after);
        prop_assert_eq!(edit(before.clone(), &Edits::default()), before);
    }

    #[test]
    fn bytes_that_are_no_text_pass(bytes in proptest::collection::vec(1_u8.., 0..20)) {
        let path = OsString::from_vec(bytes);
        let call = vec!["ssh".into(), parameter("path", &path)];
        prop_assert_eq!(&edit(call.clone(), &edits())[..2], &call[..]);
    }
}
