//! Where this project differs from the recorded behaviour on purpose: the reference has a defect there. Each
//! entry names the case, the defect, and what is expected instead. Sections are those of
//! `shared/facts/forklift-contract.md`.

use crate::cases::Case;
use crate::records::WORKDIR;

/// One deliberate difference.
#[derive(Debug)]
pub struct Difference {
    /// Name of the case; with a `*` at the end, every case whose name begins so.
    pub case: &'static str,
    /// The defect that is avoided.
    pub reason: &'static str,
    /// Turns what the reference did into what is right.
    pub adjust: fn(&mut Case),
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        case: "disks/*",
        reason: "1.6 defects 1 and 2: tools that go by position get the disks in disk order (sda sdb sdc …), \
                 not in the order of a textual glob with file system volumes first",
        adjust: links_in_disk_order,
    },
    Difference {
        case: "disks/link-exists",
        reason: "1.6 defect 3: a restarted container replaces the links it finds and goes on",
        adjust: succeeds_like_cold_vsphere,
    },
    Difference {
        case: "vsphere/vm-name-slash",
        reason: "1.6 defect 4: a slash in the guest's name becomes _ in the link, as virt-v2v itself does it",
        adjust: succeeds_like_cold_vsphere,
    },
    Difference {
        case: "vsphere/vddk-fingerprint-unset",
        reason: "3.7: an empty thumbprint is left out, or virt-v2v hands VDDK an empty one and does not look \
                 for it itself",
        adjust: no_empty_thumbprint,
    },
    Difference {
        case: "remote-inspect/conf-and-extra",
        reason: "1.7: extra arguments after `-- NAME` would be read as names of guests",
        adjust: extra_arguments_before_the_name,
    },
    Difference {
        case: "inplace/libvirt-*",
        reason: "1.7: without overlays the disks are raw, and a driver of type qcow2 would be wrong",
        adjust: raw_driver_without_overlay,
    },
    Difference {
        case: "monitor/*",
        reason: "2.2: when virt-v2v is finishing off, every disk is copied; the reference leaves the last one \
                 out (off by one)",
        adjust: all_copied_when_finishing_off,
    },
    Difference {
        case: "*",
        reason: "datapath facts 2.1 (RHEL-54377): VDDK 8 and later crash where /sys/class/scsi_disk is missing, as \
                 it is here, unless they are told the transports",
        adjust: transports_for_vddk,
    },
    Difference {
        case: "*",
        reason: "a server that nobody verified is a warning of the result",
        adjust: unverified_server_is_a_warning,
    },
    Difference {
        case: "vsphere/cacert",
        reason: "3.7: the certificate is checked before anything is sent, and this CA file holds none",
        adjust: refused,
    },
    Difference {
        case: "*",
        reason: "guest customisation is not built (its scripts belong to Forklift), so it cannot fail and warn",
        adjust: no_customisation_warning,
    },
];

/// Applies what fits the case; gives the reasons of those that changed something.
pub fn adjust(case: &mut Case) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    for difference in DIFFERENCES {
        if matches(difference.case, &case.name) {
            let before = format!("{case:?}");
            (difference.adjust)(case);
            if format!("{case:?}") != before {
                reasons.push(difference.reason);
            }
        }
    }
    reasons
}

/// Whether an entry's case pattern fits a name.
pub fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

fn links_in_disk_order(case: &mut Case) {
    for argv in &mut case.expect_argv {
        let at: Vec<usize> = (1..argv.len()).filter(|i| is_link(&argv[*i])).collect();
        let mut sorted: Vec<String> = at.iter().map(|i| argv[*i].clone()).collect();
        // sdb before sdaa: by the number of letters first.
        sorted.sort_by_key(|link| (link.len(), link.clone()));
        for (i, link) in at.into_iter().zip(sorted) {
            argv[i] = link;
        }
    }
}

fn is_link(word: &str) -> bool {
    word.strip_prefix(WORKDIR).and_then(|w| w.rsplit_once("-sd")).is_some_and(|(_, letters)| {
        !letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase())
    })
}

fn succeeds_like_cold_vsphere(case: &mut Case) {
    let var = |name: &str| case.env.get(name).cloned().unwrap_or_default();
    let guest = var("V2V_vmName");
    let link = format!("{WORKDIR}/{}-sda", guest.replace('/', "_"));
    let url = var("V2V_libvirtURL");
    let thumbprint = format!("vddk-thumbprint={}", var("V2V_fingerprint"));
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    case.expect_exit = Some(0);
    case.expect_argv = vec![
        words(&[
            "virt-v2v",
            "-v",
            "-x",
            "-o",
            "kubevirt",
            "-os",
            WORKDIR,
            "-i",
            "libvirt",
            "-ic",
            &url,
            "-ip",
            "/etc/secret/secretKey",
            "--root",
            "first",
            "-it",
            "vddk",
            "-io",
            "vddk-libdir=/opt/vmware-vix-disklib-distrib",
            "-io",
            &thumbprint,
            "--",
            &guest,
        ]),
        words(&[
            "virt-v2v-inspector",
            "-v",
            "-x",
            "-if",
            "raw",
            "-i",
            "disk",
            "-O",
            "/var/tmp/v2v/inspection.xml",
            "--root",
            "first",
            "--no-fstrim",
            &link,
        ]),
    ];
    case.expect_links = Some([(link, case.disks[0].clone())].into());
}

fn no_empty_thumbprint(case: &mut Case) {
    for argv in &mut case.expect_argv {
        if let Some(i) = argv.iter().position(|w| w == "vddk-thumbprint=") {
            argv.drain(i - 1..=i);
        }
    }
}

fn transports_for_vddk(case: &mut Case) {
    for argv in &mut case.expect_argv {
        if let Some(i) = argv.iter().position(|w| w.starts_with("vddk-libdir=")) {
            let option = ["-io", "vddk-transports=file:nbdssl:nbd"].map(str::to_owned);
            argv.splice(i + 1..=i, option);
        }
    }
}

fn unverified_server_is_a_warning(case: &mut Case) {
    let url = case.env.get("V2V_libvirtURL").cloned().unwrap_or_default();
    let Some(answer) = case.expect_http.get_mut("GET /warnings") else { return };
    if !url.contains("no_verify=1") {
        return;
    }
    let host = url.rsplit_once('@').map_or("", |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    answer.status = 200.into();
    answer.body = Some(format!(
        "[{{\"reason\":\"ServerNotVerified\",\"message\":\"the certificate of {host}:443 is not verified, as asked for (insecure)\"}}]"
    ));
}

fn refused(case: &mut Case) {
    case.expect_exit = Some(64);
    case.expect_argv.clear();
    case.expect_links = None;
    case.expect_ca_link = None;
}

fn extra_arguments_before_the_name(case: &mut Case) {
    for argv in &mut case.expect_argv {
        if let Some(i) = argv.iter().position(|w| w == "--")
            && argv.len() > i + 2
        {
            let extra = argv.split_off(i + 2);
            argv.splice(i..i, extra);
        }
    }
}

fn raw_driver_without_overlay(case: &mut Case) {
    let off = ["0", "f", "F", "false", "FALSE", "False"];
    if case.env.get("V2V_overlayEnabled").is_some_and(|v| off.contains(&v.as_str()))
        && let Some(Some(xml)) = case.expect_files.get_mut("/tmp/input.xml")
    {
        *xml = xml.replace("type=\"qcow2\"", "type=\"raw\"");
    }
}

fn all_copied_when_finishing_off(case: &mut Case) {
    let mut finished = false;
    for step in &mut case.steps {
        finished |= step.stdin.lines().any(|line| {
            let stamp = line.strip_prefix('[').and_then(|l| l.split_once("] Finishing off"));
            stamp.is_some_and(|(stamp, _)| stamp.trim().parse::<f64>().is_ok())
        });
        if finished {
            for line in &mut step.metrics {
                if let Some((metric, _)) = line.rsplit_once(' ') {
                    *line = format!("{metric} 100");
                }
            }
        }
    }
}

fn no_customisation_warning(case: &mut Case) {
    for answer in case.expect_http.values_mut() {
        if answer.body.as_ref().is_some_and(|b| b.contains("\"CustomizationFailed\"")) {
            answer.status = 204.into();
            answer.body = Some(String::new());
        }
    }
}
