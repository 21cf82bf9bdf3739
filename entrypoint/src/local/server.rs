//! The server of `convert -i libvirt`: the same trust and transports as in a pod, from flags.

use crate::cli::{ConvertArgs, InputKind};
use crate::failure::{Class, Failure};
use crate::nbdkit_front::{self, Edits};
use crate::preflight::{self, Report};
use crate::toolbox::Toolbox;
use crate::vsphere::access::{self, Access, Anchors, Given};
use crate::vsphere::anchors;
use crate::vsphere::choose::Wanted;
use crate::vsphere::domain_watch::Meant;
use crate::vsphere::find::{self, Question, Vm};
use crate::vsphere::transport::{self, Transport, Wish};
use crate::vsphere::virsh::Login;
use crate::xen;
use crate::xen::url::XenUrl;
use std::path::{Path, PathBuf};
use std::time::Duration;
use v2v_args::LibvirtInput;

/// Where VDDK is when `-io vddk-libdir=` does not say it.
const LIBDIR: &str = "/opt/vmware-vix-disklib-distrib";

/// A libvirt host that may be used.
pub struct Server {
    access: Access,
    transport: Option<Transport>,
    vm: Option<Vm>,
    /// Of the disks, where they are known.
    sizes: Option<Vec<u64>>,
}

/// Looks at the server, when there is one; problems go into the report.
pub async fn check(
    args: &ConvertArgs,
    toolbox: &mut Toolbox,
    tmp: &Path,
    report: &mut Report,
) -> Option<Server> {
    let url = args.libvirt_url.clone().filter(|_| args.input == InputKind::Libvirt)?;
    if XenUrl::is_one(&url) {
        return on_xen(args, url, toolbox, tmp, report).await;
    }
    if let Some(file) = &args.password_file {
        preflight::check_secret(report, file, "password");
    }
    let given = Given {
        url,
        mode: args.trust,
        thumbprint: args.thumbprint,
        ca: args.cacert.clone(),
        ca_link: None,
    };
    if args.thumbprint.is_some() && option(args, "vddk-thumbprint").is_some() {
        let message =
            "the thumbprint is given twice, with --thumbprint and with -io vddk-thumbprint=";
        report.problem("trust", Failure::new(Class::Config, message));
    }
    let access = access::check(&given, report).await;
    let transport = match args.transport.as_deref() {
        Some("vddk") => {
            let libdir = option(args, "vddk-libdir").map_or(LIBDIR.into(), PathBuf::from);
            let conf = option(args, "vddk-config").map(PathBuf::from);
            let conf = conf.as_deref();
            Some(transport::choose(Wish::Vddk, &libdir, conf, toolbox, tmp, report).await)
        }
        Some(_) => None,
        None => Some(Transport::Https(None)),
    };
    let access = access?;
    let vm = find_vm(args, &access, toolbox, tmp, report).await;
    Some(Server { access, transport, vm, sizes: None })
}

/// A Xen host, over SSH.
async fn on_xen(
    args: &ConvertArgs,
    url: String,
    toolbox: &mut Toolbox,
    tmp: &Path,
    report: &mut Report,
) -> Option<Server> {
    let given = xen::check::Given {
        url,
        user: None,
        vm: args.sources.first().cloned().unwrap_or_default(),
        mode: args.trust,
        pin: args.thumbprint,
        known_hosts: args.known_hosts.clone(),
        identity: args.identity.clone(),
        password: args.password_file.clone(),
        legacy: args.ssh_legacy,
    };
    let guest = xen::check::check(&given, toolbox, tmp, report).await?;
    let access = Access {
        url: guest.url,
        trust: guest.trust,
        anchors: Anchors::System,
        thumbprint: None,
        port: None,
        warnings: guest.warnings,
    };
    Some(Server { access, transport: None, vm: None, sizes: Some(guest.sizes) })
}

/// The VM at a vCenter or an ESXi host.
async fn find_vm(
    args: &ConvertArgs,
    access: &Access,
    toolbox: &Toolbox,
    tmp: &Path,
    report: &mut Report,
) -> Option<Vm> {
    let [name] = args.sources.as_slice() else { return None };
    let password_file = args.password_file.as_ref().filter(|_| access.is_vsphere())?;
    let question = Question {
        access,
        login: Login { url: &access.url, user_file: None, password_file },
        wanted: Wanted { name, uuid: None, moref: args.moref.as_deref() },
        may_run: false,
    };
    find::find(&question, toolbox, tmp, report).await
}

impl Server {
    /// For virt-v2v.
    pub fn input(&self, args: &ConvertArgs, vm: &str) -> LibvirtInput {
        let mut vddk = self.transport.as_ref().and_then(|t| self.access.vddk(t, None));
        if let Some(vddk) = &mut vddk {
            // What the user wrote goes to virt-v2v as it is.
            vddk.thumbprint =
                vddk.thumbprint.take().filter(|_| option(args, "vddk-thumbprint").is_none());
            vddk.transports =
                vddk.transports.take().filter(|_| option(args, "vddk-transports").is_none());
            vddk.port = vddk.port.filter(|_| option(args, "vddk-port").is_none());
        }
        LibvirtInput {
            url: self.access.url.clone(),
            password_file: args.password_file.clone(),
            vm: self.vm.as_ref().filter(|v| v.by_uuid).map_or(vm, |v| &v.uuid).to_owned(),
            hostname: None,
            vddk,
        }
    }

    /// Number of the VM's disks, where it was found beforehand.
    pub fn disks(&self) -> Option<usize> {
        self.vm.as_ref().map(|vm| vm.disks)
    }

    /// The VM that virt-v2v is to read from a vCenter or an ESXi host.
    pub fn meant(&self, args: &ConvertArgs) -> Option<Meant> {
        self.access.is_vsphere().then(|| Meant {
            name: self.vm.as_ref().map(|vm| vm.name.clone()),
            uuid: self.vm.as_ref().map(|vm| vm.uuid.clone()),
            moref: args.moref.clone(),
        })
    }

    /// `vddk`, `https`, `ssh` or what else there may be.
    pub fn transport(&self) -> &'static str {
        self.transport.as_ref().map_or("ssh", Transport::name)
    }

    /// Sizes of the disks, where they are known.
    pub fn sizes(&self) -> Option<Vec<u64>> {
        self.sizes.clone()
    }

    /// `ca`, `known-hosts`, `thumbprint`, `insecure` or `none`.
    pub fn trust(&self) -> &'static str {
        self.access.trust
    }

    /// The tools trust what we trust.
    pub fn narrow(&self, toolbox: &mut Toolbox, run_dir: &Path) -> Result<(), Failure> {
        if let Some(file) = anchors::file(&self.access.anchors, run_dir)? {
            return anchors::narrow(toolbox, &file, run_dir);
        }
        anchors::widen();
        Ok(())
    }
}

/// virt-v2v has no option for what is set here.
pub fn edit_nbdkit(
    args: &ConvertArgs,
    toolbox: &mut Toolbox,
    run_dir: &Path,
) -> Result<(), Failure> {
    let cookie_renew = args.cookie_renew.map(|s| Duration::from_secs(s.get().into()));
    let edits = Edits { cookie_renew, ..Edits::default() };
    edits
        .install(&run_dir.join(nbdkit_front::FOLDER), toolbox)
        .map_err(|e| Failure::new(Class::NoSpace, format!("cannot make a link for nbdkit: {e}")))
}

/// `-it` and `-io` for virt-v2v, but for those that are said by [`Server::input`].
pub fn options(args: &ConvertArgs) -> Vec<String> {
    let vddk = args.transport.as_deref() == Some("vddk") && args.input == InputKind::Libvirt;
    let transport = args.transport.iter().filter(|_| !vddk).map(|t| ["-it".to_owned(), t.clone()]);
    let ours = |o: &&String| vddk && o.starts_with("vddk-libdir=");
    let options = args.transport_options.iter().filter(|o| !ours(o));
    transport.chain(options.map(|o| ["-io".to_owned(), o.clone()])).flatten().collect()
}

/// The value of a `-io` option.
fn option<'a>(args: &'a ConvertArgs, name: &str) -> Option<&'a str> {
    let value = |o: &'a String| o.strip_prefix(name)?.strip_prefix('=');
    args.transport_options.iter().find_map(value)
}
