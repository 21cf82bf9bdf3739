//! The preflight of pod mode.

use super::copy_first::images;
use super::{Ready, Server, xen};
use crate::bus::Bus;
use crate::config::copy_first::{CopyFirst, From};
use crate::config::pod::{Job, PodConfig, PreflightDepth, Source, VSphere};
use crate::disks::DiskMap;
use crate::event::{Event, Warning};
use crate::failure::{Class, Failure};
use crate::ova;
use crate::preflight::{self, Need, Report};
use crate::sources::measure::{self, Image, Measured};
use crate::tool_run::Tool;
use crate::toolbox::{Accelerator, Toolbox, wants_no_fstrim};
use crate::volumes::Volumes;
use crate::vsphere::access::{self, Access, Given};
use crate::vsphere::anchors::CA_LINK;
use crate::vsphere::choose::Wanted;
use crate::vsphere::find::{self, Question, Vm};
use crate::vsphere::transport::{self, Transport};
use crate::vsphere::virsh::Login;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tokio::net::TcpSocket;
use v2v_args::OutputMode;

const DEV: &str = "/dev";
const MOUNTS: &str = "/mnt/disks";
/// What to do about disk images that are not taken.
pub(super) const IMAGES: &str =
    "give disk images whose name tells their true format and that refer to no other file";

/// Folders for temporary files.
pub struct Dirs<'a> {
    /// Where all runs have theirs.
    pub base: &'a Path,
    /// This run's own.
    pub run: &'a Path,
}

/// Checks everything and opens the volumes; a failure names all problems.
pub async fn all(
    config: &PodConfig,
    toolbox: &mut Toolbox,
    dirs: &Dirs<'_>,
    bus: &Bus,
) -> Result<Ready, Failure> {
    let mut report = Report::default();
    let ready = look(config, toolbox, dirs, bus, &mut report).await;
    let start = config.runtime.preflight == PreflightDepth::Full || report.failure().is_some();
    preflight::check_appliance(&mut report, toolbox, start).await;
    report.log();
    match report.failure() {
        Some(failure) => Err(failure),
        None => ready.ok_or_else(|| {
            Failure::new(Class::Internal, "preflight found no problem but no volumes either")
        }),
    }
}

/// The report alone, for `v2v-pod preflight`.
pub async fn report(
    config: &PodConfig,
    toolbox: &mut Toolbox,
    dirs: &Dirs<'_>,
    bus: &Bus,
) -> Report {
    let mut report = Report::default();
    look(config, toolbox, dirs, bus, &mut report).await;
    preflight::check_appliance(&mut report, toolbox, true).await;
    report
}

async fn look(
    config: &PodConfig,
    toolbox: &mut Toolbox,
    dirs: &Dirs<'_>,
    bus: &Bus,
    report: &mut Report,
) -> Option<Ready> {
    let volumes = check_volumes(config, report).await;
    preflight::check_temp(report, dirs.base);
    check_secrets(config, report);
    super::target::check_name(config, report);
    super::copy_first::check(config, report);
    let server = check_server(config, toolbox, dirs, report).await;
    let ova = match &config.job {
        Job::Convert(Source::Ova(wanted)) => {
            super::ova::check(config, wanted, (toolbox, dirs), volumes.as_ref(), report).await
        }
        _ => None,
    };
    let guest = xen::check(config, toolbox, dirs, volumes.as_ref(), report).await;
    check_count(server.as_ref(), volumes.as_ref(), report);
    check_source(config, toolbox, volumes.as_ref(), report).await;
    let accelerator = preflight::check_kvm(report, toolbox, dirs.run).await;
    toolbox.use_accelerator(accelerator);
    bus.emit(&Event::Accelerator(if accelerator == Accelerator::Kvm { "kvm" } else { "tcg" }));
    let (main_need, inspector_need) = needs(config);
    let mut all_needs = vec![main_need, inspector_need];
    all_needs.extend(helper_needs(config));
    let features = preflight::check_tools(report, toolbox, &all_needs).await;
    let result_port = check_result_port(config, report);
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let no_fstrim = |i: usize| {
        !config.guest.xfs_compatibility
            && features.get(i).is_some_and(|f| wants_no_fstrim(f, &os_release))
    };
    let answered = |i: usize| features.get(i).is_some_and(v2v_args::Features::answered);
    let volumes = volumes?;
    let mut described = described(config, &volumes, server.as_ref(), ova.as_ref());
    if let (Some(guest), Event::Described { trust, .. }) = (&guest, &mut described) {
        *trust = guest.trust;
    }
    bus.emit(&described);
    let warnings = server.iter().flat_map(Server::warnings);
    let warnings = warnings.chain(ova.iter().flat_map(super::ova::warnings));
    for warning in warnings.chain(guest.iter().flat_map(xen::warnings)) {
        bus.emit(&Event::Warned(warning));
    }
    Some(Ready {
        main: Tool {
            name: main_need.tool,
            messages: answered(0),
            class: main_class(config),
            copies: main_need.tool == "virt-v2v",
        },
        inspector: Tool {
            name: inspector_need.tool,
            messages: answered(1),
            class: Class::Inspection,
            copies: false,
        },
        main_no_fstrim: no_fstrim(0),
        inspector_no_fstrim: no_fstrim(1),
        volumes,
        server,
        ova,
        xen: guest,
        result_port,
    })
}

fn needs(config: &PodConfig) -> (Need, Need) {
    let output = match config.output {
        OutputMode::Kubevirt => "output:kubevirt",
        OutputMode::Local => "output:local",
    };
    let main = match &config.job {
        Job::Convert(_) => Need { tool: "virt-v2v", fact: Some(output) },
        Job::InPlace { .. } | Job::CopyFirst(_) => Need { tool: "virt-v2v-in-place", fact: None },
        Job::RemoteInspect { .. } => Need { tool: "virt-v2v-inspector", fact: None },
    };
    (main, Need { tool: "virt-v2v-inspector", fact: None })
}

fn main_class(config: &PodConfig) -> Class {
    match config.job {
        Job::RemoteInspect { .. } => Class::Inspection,
        _ => Class::Conversion,
    }
}

fn helper_needs(config: &PodConfig) -> Vec<Need> {
    let need = |tool| Need { tool, fact: None };
    match &config.job {
        Job::InPlace { vsphere, overlay } => {
            let virsh = vsphere.is_some().then(|| need("virsh"));
            virsh.into_iter().chain(overlay.then(|| need("qemu-img"))).collect()
        }
        Job::CopyFirst(job) => {
            let served = job.vsphere().map(|_| ["virsh", "curl", "nbdkit"].map(need));
            let overlay = job.overlay.then(|| need("qemu-img"));
            served.into_iter().flatten().chain(overlay).collect()
        }
        Job::Convert(Source::Xen(_)) => vec![need("virsh")],
        _ => Vec::new(),
    }
}

async fn check_volumes(config: &PodConfig, report: &mut Report) -> Option<Volumes> {
    let map = match DiskMap::discover(Path::new(DEV), Path::new(MOUNTS)) {
        Ok(map) => map,
        Err(e) => {
            report.problem("volumes", Failure::new(Class::Volume, e.to_string()));
            return None;
        }
    };
    let needed = !matches!(config.job, Job::RemoteInspect { .. });
    if needed && map.is_empty() {
        let none = crate::disks::DiskError::None {
            block_pattern: format!("{DEV}/block0"),
            file_pattern: format!("{MOUNTS}/disk0"),
        };
        report.problem("volumes", Failure::new(Class::Volume, none.to_string()));
        return None;
    }
    let map = if needed { map } else { DiskMap::new(Vec::new()) };
    match Volumes::open(map, false).await {
        Ok(volumes) => {
            report.ok(
                "volumes",
                format!("{} volume(s): {}", volumes.map.len(), volumes.names().join(" ")),
            );
            Some(volumes)
        }
        Err(problems) => {
            report.problem("volumes", crate::volumes::failure(&problems));
            None
        }
    }
}

fn check_secrets(config: &PodConfig, report: &mut Report) {
    let paths = &config.paths;
    match &config.job {
        Job::Convert(Source::VSphere(_)) | Job::RemoteInspect { .. } => {
            preflight::check_secret(report, &paths.secret_key, "password");
        }
        Job::CopyFirst(job) if job.vsphere().is_some() => {
            preflight::check_secret(report, &paths.secret_key, "password");
        }
        Job::InPlace { vsphere: Some(_), .. } => {
            preflight::check_secret(report, &paths.secret_key, "password");
            preflight::check_secret(report, &paths.access_key, "user name");
        }
        _ => {}
    }
}

/// Whom the source is trusted for, and which way its data comes.
async fn check_server(
    config: &PodConfig,
    toolbox: &Toolbox,
    dirs: &Dirs<'_>,
    report: &mut Report,
) -> Option<Server> {
    let vsphere = config.job.vsphere()?;
    let paths = &config.paths;
    let given = Given {
        url: vsphere.url.clone(),
        mode: vsphere.trust,
        thumbprint: vsphere.fingerprint,
        ca: given_ca(config),
        ca_link: Some(CA_LINK.into()),
    };
    let access = access::check(&given, report).await;
    let conf = paths.vddk_config.exists().then_some(paths.vddk_config.as_path());
    let transport = if matches!(config.job, Job::InPlace { .. }) {
        Transport::Https(None)
    } else {
        transport::choose(vsphere.transport, &paths.vddk_libdir, conf, toolbox, dirs.run, report)
            .await
    };
    let access = access?;
    let vm = find_vm(config, vsphere, &access, toolbox, dirs.run, report).await;
    Some(Server { access, transport, vm })
}

/// The VM, for jobs in which virt-v2v reads it from libvirt.
async fn find_vm(
    config: &PodConfig,
    vsphere: &VSphere,
    access: &Access,
    toolbox: &Toolbox,
    run_dir: &Path,
    report: &mut Report,
) -> Option<Vm> {
    let inspects = matches!(config.job, Job::RemoteInspect { .. });
    if !access.is_vsphere() || matches!(config.job, Job::InPlace { .. }) {
        return None;
    }
    let paths = &config.paths;
    let user_file =
        Some(paths.access_key.as_path()).filter(|file| !access.names_user() && file.exists());
    let question = Question {
        access,
        login: Login { url: &access.url, user_file, password_file: &paths.secret_key },
        wanted: Wanted {
            name: &config.vm_name,
            uuid: vsphere.vm_uuid.as_deref(),
            moref: vsphere.vm_moref.as_deref(),
        },
        may_run: inspects,
    };
    find::find(&question, toolbox, run_dir, report).await
}

/// As many volumes as the VM has disks.
fn check_count(server: Option<&Server>, volumes: Option<&Volumes>, report: &mut Report) {
    let vm = server.and_then(|s| s.vm.as_ref());
    if let (Some(vm), Some(volumes)) = (vm, volumes.filter(|v| !v.map.is_empty()))
        && vm.disks != volumes.map.len()
    {
        let message = volumes.map.count_error(vm.disks).to_string();
        report.problem("volumes", Failure::new(Class::Volume, message));
    }
}

/// The CA certificates of the secret. One made from a form has the key even when nothing was filled in.
pub fn given_ca(config: &PodConfig) -> Option<PathBuf> {
    let ca = config.paths.secret_key.with_file_name("cacert");
    (ca.exists() && !is_empty(&ca)).then_some(ca)
}

fn is_empty(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes.trim_ascii().is_empty())
}

impl Server {
    /// What belongs into the result: VDDK that was there and could not be used, a server that was not verified.
    fn warnings(&self) -> Vec<Warning> {
        let unusable = match &self.transport {
            Transport::Https(Some(reason)) => Some(Warning {
                reason: "VddkNotUsed".to_owned(),
                message: format!("the disks came over HTTPS, since VDDK was not usable: {reason}"),
            }),
            _ => None,
        };
        let insecure = self.access.warnings.iter().map(|message| Warning {
            reason: "ServerNotVerified".to_owned(),
            message: message.clone(),
        });
        unusable.into_iter().chain(insecure).collect()
    }
}

/// Local sources can be measured now. One that cannot be read is only noted: virt-v2v opens the
/// source first of all and then says precisely what is wrong.
async fn check_source(
    config: &PodConfig,
    toolbox: &Toolbox,
    volumes: Option<&Volumes>,
    report: &mut Report,
) {
    let (Job::Convert(Source::HyperV(paths))
    | Job::CopyFirst(CopyFirst { from: From::Images(paths), .. })) = &config.job
    else {
        return;
    };
    if let Some(volumes) = volumes.filter(|v| v.map.len() != paths.len()) {
        let problem = volumes.map.count_error(paths.len());
        report.problem("source", Failure::new(Class::Volume, problem.to_string()));
        return;
    }
    let sizes = match &config.job {
        Job::CopyFirst(_) => images::measure(toolbox, paths).await.map(|all| sizes_of(&all)),
        _ => hyperv_sizes(toolbox, paths).await,
    };
    match sizes {
        Ok(sizes) => {
            let problems = volumes.map(|v| v.check_sizes(&sizes)).unwrap_or_default();
            if problems.is_empty() {
                report.ok("source", format!("{} disk(s)", sizes.len()));
            } else {
                report.problem("source", crate::volumes::failure(&problems));
            }
        }
        Err(failure) if failure.class == Class::Config => {
            report.problem("source", failure.advise(IMAGES));
        }
        // Nobody else would say it before the first byte is written.
        Err(failure) if matches!(config.job, Job::CopyFirst(_)) => {
            report.problem("source", failure);
        }
        Err(failure) => report.note("source", failure.message, failure.advice),
    }
}

async fn hyperv_sizes(toolbox: &Toolbox, paths: &[PathBuf]) -> Result<Vec<u64>, Failure> {
    let images: Vec<Image> =
        paths.iter().map(|path| Image { path: path.clone(), format: None }).collect();
    let measured = measure::measure_all(toolbox, &images, false).await?;
    measure::require_one_format(&measured)?;
    Ok(sizes_of(&measured))
}

fn sizes_of(measured: &[Measured]) -> Vec<u64> {
    measured.iter().map(|image| image.size).collect()
}

fn check_result_port(config: &PodConfig, report: &mut Report) -> Option<TcpSocket> {
    if !config.local_migration || matches!(config.job, Job::RemoteInspect { .. }) {
        return None;
    }
    let port = config.runtime.ports.result;
    bind(port)
        .inspect_err(|e| {
            let message = format!("port {port} for the result is not free: {e}");
            report.problem(
                "ports",
                Failure::new(Class::Config, message)
                    .advise("set V2V_resultPort, or end what uses the port"),
            );
        })
        .ok()
}

/// Both protocols where the node has IPv6, as Forklift's pod listens.
fn bind(port: u16) -> std::io::Result<TcpSocket> {
    let v6 = || {
        let socket = TcpSocket::new_v6()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
        Ok(socket)
    };
    v6().or_else(|_: std::io::Error| {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        Ok(socket)
    })
}

fn described(
    config: &PodConfig,
    volumes: &Volumes,
    server: Option<&Server>,
    ova: Option<&ova::Source>,
) -> Event {
    let (source, transport) = match &config.job {
        Job::Convert(Source::VSphere(_))
        | Job::CopyFirst(CopyFirst { from: From::VSphere(_), .. })
        | Job::RemoteInspect { .. } => ("vsphere", server.map_or("https", |s| s.transport.name())),
        Job::Convert(Source::Ova(wanted)) => ("ova", wanted.place.transport()),
        Job::Convert(Source::HyperV(_)) | Job::CopyFirst(_) => ("hyperv", "file"),
        Job::Convert(Source::Xen(_)) => ("xen", "ssh"),
        Job::InPlace { .. } => ("in-place", "none"),
    };
    Event::Described {
        vm: config.vm_name.clone(),
        source,
        transport,
        trust: server.map(|s| s.access.trust).or(ova.map(|o| o.trust)).unwrap_or_default(),
        targets: volumes.names(),
    }
}
