//! Where a guest is, in the words of the pod's contract.

/// Where the claim with an OVA or with disks is mounted in the pod.
pub const SOURCE_FOLDER: &str = "/source";

/// Where a guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A vCenter or an ESXi host.
    VSphere(VSphere),
    /// An OVA file, or a folder with an OVF.
    Ova {
        /// Claim with the files.
        claim: String,
        /// The OVA in it.
        path: FilePath,
        /// Name of the guest.
        name: String,
    },
    /// Disk images.
    Disk {
        /// Claim with the files.
        claim: String,
        /// The images in it, in order.
        paths: Vec<FilePath>,
        /// Name of the guest.
        name: String,
    },
    /// A Xen host, over SSH.
    Xen {
        /// `xen+ssh://…`
        url: String,
        /// Name of the guest there.
        name: String,
        /// `auto`, `ca`, `thumbprint` or `insecure`.
        trust: String,
        /// Fingerprint of the host's key.
        thumbprint: Option<String>,
        /// The algorithms of an old sshd are allowed.
        legacy: bool,
    },
}

/// A VM of vSphere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VSphere {
    /// `vpx://…` or `esx://…`
    pub url: String,
    /// Its name.
    pub name: String,
    /// Its BIOS UUID, which beats the name.
    pub uuid: Option<String>,
    /// Its reference.
    pub moref: Option<String>,
    /// `auto`, `ca`, `thumbprint` or `insecure`.
    pub trust: String,
    /// Thumbprint of the server of the URL.
    pub thumbprint: Option<String>,
    /// `auto`, `vddk` or `https`.
    pub transport: String,
}

impl Source {
    /// The settings.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::VSphere(vm) => vm.env(),
            Self::Ova { path, name, .. } => vec![
                ("V2V_source", "ova".to_owned()),
                ("V2V_vmName", name.clone()),
                ("V2V_diskPath", path.in_pod()),
            ],
            // What Forklift calls Hyper-V is a list of disks, whatever wrote them.
            Self::Disk { paths, name, .. } => {
                let paths: Vec<String> = paths.iter().map(FilePath::in_pod).collect();
                vec![
                    ("V2V_source", "hyperv".to_owned()),
                    ("V2V_vmName", name.clone()),
                    ("V2V_diskPath", paths.join(",")),
                ]
            }
            Self::Xen { url, name, trust, thumbprint, legacy } => {
                let mut env = vec![
                    ("V2V_source", "xen".to_owned()),
                    ("V2V_vmName", name.clone()),
                    ("V2V_libvirtURL", url.clone()),
                    ("V2V_trust", trust.clone()),
                ];
                env.extend(thumbprint.clone().map(|t| ("V2V_fingerprint", t)));
                env.extend(legacy.then(|| ("V2V_sshLegacy", "true".to_owned())));
                env
            }
        }
    }

    /// The claim that the guest is read from.
    pub fn claim(&self) -> Option<&str> {
        match self {
            Self::Ova { claim, .. } | Self::Disk { claim, .. } => Some(claim),
            Self::VSphere(_) | Self::Xen { .. } => None,
        }
    }
}

impl VSphere {
    fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("V2V_source", "vSphere".to_owned()),
            ("V2V_vmName", self.name.clone()),
            ("V2V_libvirtURL", self.url.clone()),
            ("V2V_trust", self.trust.clone()),
            ("V2V_transport", self.transport.clone()),
        ];
        let more = [
            ("V2V_fingerprint", &self.thumbprint),
            ("V2V_vmUUID", &self.uuid),
            ("V2V_vmMoref", &self.moref),
        ];
        env.extend(more.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        env
    }
}

/// A path below the source's claim, which it does not leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(String);

/// A path that cannot be one of a file on the claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no path on the source's volume: write it relative to the volume, without `..` and commas"
)]
pub struct BadPath(String);

impl FilePath {
    /// Takes a path as a person writes it; a leading `/` is the volume's root.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        let bad = || BadPath(text.to_owned());
        // The contract separates paths by commas.
        if text.contains([',', '\n', '\0']) {
            return Err(bad());
        }
        let parts: Vec<&str> =
            text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.is_empty() || parts.contains(&"..") {
            return Err(bad());
        }
        Ok(Self(parts.join("/")))
    }

    /// Where it is in the pod.
    pub fn in_pod(&self) -> String {
        format!("{SOURCE_FOLDER}/{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_disk_is_a_disk_of_hyper_v_to_the_contract() {
        let paths = ["a b.vmdk", "/x//./b.img"].map(|p| FilePath::parse(p).unwrap()).to_vec();
        let source = Source::Disk { claim: "images".into(), paths, name: "web".into() };
        let env = source.env();
        assert!(env.contains(&("V2V_source", "hyperv".to_owned())));
        assert!(env.contains(&("V2V_diskPath", "/source/a b.vmdk,/source/x/b.img".to_owned())));
        assert_eq!(source.claim(), Some("images"));
    }

    #[test]
    fn paths_stay_on_the_volume() {
        for bad in ["", "/", "..", "a/../b", "a,b", "."] {
            assert!(FilePath::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn old_algorithms_are_allowed_only_when_that_is_said() {
        let env = |legacy| {
            let (url, trust) = ("xen+ssh://root@xen".into(), "auto".into());
            let xen = Source::Xen { url, name: "web".into(), trust, thumbprint: None, legacy };
            xen.env().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let always = ["V2V_source", "V2V_vmName", "V2V_libvirtURL", "V2V_trust"];
        assert_eq!(env(false), always);
        assert_eq!(env(true), [&always[..], &["V2V_sshLegacy"]].concat());
    }

    #[test]
    fn absent_settings_are_left_out() {
        let vm =
            VSphere { url: "vpx://vc/DC/c/h".into(), name: "web".into(), ..VSphere::default() };
        let names: Vec<&str> = Source::VSphere(vm).env().iter().map(|(n, _)| *n).collect();
        assert_eq!(
            names,
            ["V2V_source", "V2V_vmName", "V2V_libvirtURL", "V2V_trust", "V2V_transport"]
        );
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_folder(text in "[a./,]{0,12}") {
            if let Ok(path) = FilePath::parse(&text) {
                let inside = path.in_pod();
                prop_assert!(inside.starts_with("/source/"));
                prop_assert!(inside.split('/').all(|part| part != ".."));
            }
        }
    }
}
