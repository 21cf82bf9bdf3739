//! Pod mode: Forklift's contract from preflight to `/shutdown`.
//!
//! [`run`] is the only place that orders the phases; each phase is a method in its own module.

mod check;
mod copy_first;
mod domain;
mod in_place;
mod ova;
mod prepare;
mod serve;
pub mod source;
mod target;
mod xen;

use crate::bus::Bus;
use crate::config::ConfigError;
use crate::config::pod::{Job, PodConfig, Source, VSphere};
use crate::event::{Event, Phase};
use crate::failure::{Class, Failure};
use crate::ova::{Place, Wanted};
use crate::preflight::Report;
use crate::rundir::RunDir;
use crate::supervise::stop::Stop;
use crate::tool_run::{Runner, Tool};
use crate::toolbox::Toolbox;
use crate::vm_result;
use crate::volumes::Volumes;
use crate::vsphere::access::Access;
use crate::vsphere::domain_watch::Meant;
use crate::vsphere::find::Vm;
use crate::vsphere::transport::Transport;
use crate::xen::check::Guest;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::net::TcpSocket;
use v2v_args::{Common, Convert, Input, Inspect, LibvirtInput, Output, OutputMode, RemoteInspect};

/// What the checks found and opened.
struct Ready {
    volumes: Volumes,
    /// The tool that converts or inspects first, then the inspector.
    main: Tool,
    inspector: Tool,
    main_no_fstrim: bool,
    inspector_no_fstrim: bool,
    /// The server, where the source is on one.
    server: Option<Server>,
    /// The OVA, where the source is one that could be opened.
    ova: Option<crate::ova::Source>,
    /// The guest on a Xen host, where the source is one.
    xen: Option<Guest>,
    /// Bound but not listening, so that the port is ours and still refuses connections.
    result_port: Option<TcpSocket>,
}

/// A vCenter or ESXi host that may be used.
struct Server {
    access: Access,
    transport: Transport,
    /// What was found there, where it was looked for.
    vm: Option<Vm>,
}

/// A run of the pod.
struct Pod<'a> {
    config: &'a PodConfig,
    runner: Runner,
    ready: Ready,
    common: Common,
    /// Where the CA certificates are, when there is no link to them.
    ca: Option<PathBuf>,
    run_dir: &'a Path,
    /// The VM's domain, once it was read.
    domain: OnceCell<String>,
}

/// The checks alone, for `v2v-pod preflight`; starts the appliance as well.
pub async fn preflight(
    config: &PodConfig,
    env: &BTreeMap<String, String>,
) -> Result<Report, Failure> {
    let base = temp_base(env);
    let run_dir = make_run_dir(&base)?;
    let mut toolbox = Toolbox::new(env, &run_dir, &base);
    prepare::set_tool_variables(config, &mut toolbox);
    let dirs = check::Dirs { base: &base, run: run_dir.path() };
    Ok(check::report(config, &mut toolbox, &dirs, &Bus::default()).await)
}

fn make_run_dir(base: &Path) -> Result<RunDir, Failure> {
    RunDir::create(base).map_err(|e| {
        Failure::new(Class::Config, format!("no temporary folder in {}: {e}", base.display()))
    })
}

/// Where temporary files go: `TMPDIR`, else the folder that the image keeps for them.
pub fn temp_base(env: &BTreeMap<String, String>) -> PathBuf {
    PathBuf::from(env.get("TMPDIR").map_or("/var/tmp", String::as_str))
}

/// Runs the whole contract. Every failure comes back; nothing is written before all checks passed.
pub async fn run(
    config: &PodConfig,
    env: &BTreeMap<String, String>,
    bus: &Bus,
    stop: &Stop,
) -> Result<(), Failure> {
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    bus.emit(&Event::PhaseEntered(Phase::Preflight));
    let base = temp_base(env);
    let run_dir = make_run_dir(&base)?;
    let mut toolbox = Toolbox::new(env, &run_dir, &base);
    prepare::set_tool_variables(config, &mut toolbox);
    let mut stopping = stop.clone();
    let dirs = check::Dirs { base: &base, run: run_dir.path() };
    let ready = tokio::select! {
        ready = check::all(config, &mut toolbox, &dirs, bus) => ready?,
        cause = stopping.next() => return Err(cause.failure()),
    };
    let meant = meant(config, ready.server.as_ref().and_then(|s| s.vm.as_ref()));
    let mut pod = Pod {
        config,
        runner: Runner {
            bus: bus.clone(),
            stop: stop.clone(),
            toolbox,
            tmp: run_dir.tmp(),
            grace: config.runtime.grace,
            transcript: None,
            copy: config.runtime.copy.clone(),
            retries: config.runtime.source_retries,
            meant,
            findings: None,
        },
        ready,
        common: Common::default(),
        ca: None,
        run_dir: run_dir.path(),
        domain: OnceCell::new(),
    };
    pod.all_phases().await
}

/// The VM, for jobs in which virt-v2v reads it from libvirt.
fn meant(config: &PodConfig, found: Option<&Vm>) -> Option<Meant> {
    let (Job::Convert(Source::VSphere(vsphere)) | Job::RemoteInspect { vsphere, .. }) = &config.job
    else {
        return None;
    };
    Some(meant_by(vsphere, config, found))
}

fn meant_by(vsphere: &VSphere, config: &PodConfig, found: Option<&Vm>) -> Meant {
    Meant {
        name: match found {
            Some(vm) => Some(vm.name.clone()),
            None => vsphere.vm_uuid.is_none().then(|| config.vm_name.clone()),
        },
        uuid: found.map(|vm| vm.uuid.clone()).or_else(|| vsphere.vm_uuid.clone()),
        moref: vsphere.vm_moref.clone(),
    }
}

impl Pod<'_> {
    async fn all_phases(&mut self) -> Result<(), Failure> {
        self.enter(Phase::Prepare)?;
        self.prepare()?;
        match &self.config.job {
            Job::CopyFirst(job) => self.copy_first(job).await?,
            // Left by one that copied first.
            Job::Convert(_) | Job::InPlace { .. } => self.forget_copy()?,
            Job::RemoteInspect { .. } => {}
        }
        self.enter(Phase::Convert)?;
        match &self.config.job {
            Job::Convert(source) => {
                self.convert(source).await?;
                // What served its disks ends here.
                self.ready.ova = None;
            }
            Job::InPlace { vsphere, overlay } => {
                self.convert_in_place(vsphere.as_ref(), *overlay).await?;
            }
            Job::CopyFirst(job) => self.convert_in_place(job.vsphere(), job.overlay).await?,
            Job::RemoteInspect { vsphere, disks } => {
                return self.inspect_remote(vsphere, disks).await;
            }
        }
        self.ready.volumes.seal()?;
        self.enter(Phase::Inspect)?;
        self.inspect().await?;
        let yaml = self.vm_yaml().await?;
        if !self.config.local_migration {
            return Ok(());
        }
        self.enter(Phase::Serve)?;
        self.serve(yaml).await
    }

    /// Begins a phase, unless it is time to stop.
    fn enter(&self, phase: Phase) -> Result<(), Failure> {
        if let Some(cause) = self.runner.stop.cause() {
            return Err(cause.failure());
        }
        self.runner.bus.emit(&Event::PhaseEntered(phase));
        Ok(())
    }

    async fn convert(&self, source: &Source) -> Result<(), Failure> {
        let config = self.config;
        let (input, common, extra) = match source {
            Source::VSphere(vsphere) => (
                Input::Libvirt(self.libvirt(vsphere, config.guest.extra.is_empty())),
                true,
                config.guest.extra.clone(),
            ),
            // Forklift gives OVA sources none of the shared options, and Hyper-V no further ones.
            Source::Ova(wanted) => (Input::Ova(self.ova_path(wanted)), false, Vec::new()),
            Source::HyperV(paths) => {
                (Input::Disks { format: None, paths: paths.clone() }, true, Vec::new())
            }
            Source::Xen(xen) => {
                (Input::Libvirt(self.xen_input(&xen.url)), true, config.guest.extra.clone())
            }
        };
        let mut request = Convert {
            input,
            output: Output {
                mode: config.output,
                dir: config.paths.work_dir.clone(),
                name: self.output_name(source),
            },
            common: common.then(|| self.common.clone()),
            extra,
            verbose: true,
            machine_readable_fd: None,
        };
        let argv = |fd| {
            request.machine_readable_fd = fd;
            request.argv()
        };
        self.runner.run(self.ready.main, Some(&self.ready.volumes), argv).await
    }

    /// `-on`. Hyper-V disks have no name of their own. A `/` in the name is replaced here for the
    /// virt-v2v versions that do not; KubeVirt names cannot have one, so there it is left to
    /// virt-v2v's own check.
    fn output_name(&self, source: &Source) -> Option<String> {
        let slash = self.config.output == OutputMode::Local && self.config.vm_name.contains('/');
        match source {
            _ if self.config.new_name.is_some() => self.config.new_name.clone(),
            Source::HyperV(_) => Some(self.config.vm_name.clone()),
            _ if slash => Some(v2v_args::sanitize_slash(&self.config.vm_name)),
            // virt-v2v would name the disks after what the OVA says.
            Source::Ova(_) if self.ova_is_named_otherwise() => Some(self.config.vm_name.clone()),
            _ => None,
        }
    }

    /// What virt-v2v reads: the OVA, or what was made from it.
    fn ova_path(&self, wanted: &Wanted) -> PathBuf {
        match (&self.ready.ova, &wanted.place) {
            (Some(ova), _) => ova.path.clone(),
            (None, Place::Local(path)) => path.clone(),
            (None, Place::Url(url)) => PathBuf::from(url.path()),
        }
    }

    fn ova_is_named_otherwise(&self) -> bool {
        let ova = self.ready.ova.as_ref();
        ova.is_some_and(|ova| ova::is_named_otherwise(ova.name.as_deref(), &self.config.vm_name))
    }

    fn libvirt(&self, vsphere: &VSphere, use_vddk_config: bool) -> LibvirtInput {
        let paths = &self.config.paths;
        let config =
            (use_vddk_config && paths.vddk_config.exists()).then(|| paths.vddk_config.clone());
        let server = self.ready.server.as_ref();
        LibvirtInput {
            url: self.url(vsphere),
            password_file: Some(paths.secret_key.clone()),
            vm: self.vm(vsphere).to_owned(),
            hostname: vsphere.hostname.clone(),
            vddk: server.and_then(|s| s.access.vddk(&s.transport, config)),
        }
    }

    /// The VM as virt-v2v is to ask for it: by name, unless that is not enough.
    fn vm<'b>(&'b self, vsphere: &'b VSphere) -> &'b str {
        let uuid = self.found().filter(|vm| vm.by_uuid).map(|vm| &vm.uuid);
        vsphere.vm_uuid.as_ref().or(uuid).unwrap_or(&self.config.vm_name)
    }

    /// The VM, where it was found beforehand.
    fn found(&self) -> Option<&Vm> {
        self.ready.server.as_ref().and_then(|s| s.vm.as_ref())
    }

    async fn inspect(&self) -> Result<(), Failure> {
        let mut request = Inspect {
            output: self.config.paths.inspection.clone(),
            links: self.ready.volumes.links().to_vec(),
            common: self.common.clone(),
            no_fstrim: self.ready.inspector_no_fstrim,
            extra: self.config.guest.inspector_extra.clone(),
            machine_readable_fd: None,
        };
        let argv = |fd| {
            request.machine_readable_fd = fd;
            request.argv()
        };
        self.runner.run(self.ready.inspector, None, argv).await
    }

    async fn inspect_remote(&self, vsphere: &VSphere, disks: &[String]) -> Result<(), Failure> {
        if disks.is_empty() {
            let none = ConfigError::NoDisks { variable: "V2V_remoteInspectDisk_<N>" };
            return Err(Failure::new(Class::Config, none.to_string()));
        }
        self.enter(Phase::Inspect)?;
        let mut request = RemoteInspect {
            source: self.libvirt(vsphere, true),
            disks: disks.to_vec(),
            common: self.common.clone(),
            no_fstrim: self.ready.main_no_fstrim,
            extra: self.config.guest.inspector_extra.clone(),
            machine_readable_fd: None,
        };
        let argv = |fd| {
            request.machine_readable_fd = fd;
            request.argv()
        };
        self.runner.run(self.ready.main, None, argv).await
    }

    /// The file for `/vm`: virt-v2v's own, or the one made from libvirt XML: virt-v2v's, or ours in place.
    async fn vm_yaml(&self) -> Result<Option<PathBuf>, Failure> {
        let work = &self.config.paths.work_dir;
        let name = self.config.link_name();
        if self.config.output == OutputMode::Local {
            if matches!(self.config.job, Job::InPlace { .. } | Job::CopyFirst(_)) {
                self.assume_target().await?;
            }
            let file = v2v_args::sanitize_slash(name);
            let made = vm_result::make_yaml(
                &work.join(format!("{file}.xml")),
                Some(&self.config.paths.inspection),
                name,
                &self.config.claim_names,
                self.ready.volumes.map.len(),
            )?;
            let path = work.join(format!("{file}.yaml"));
            vm_result::write_durably(&path, made.as_bytes())?;
            return Ok(Some(path));
        }
        Ok(vm_result::find_yaml(work, name))
    }
}
