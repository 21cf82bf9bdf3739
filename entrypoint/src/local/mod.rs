//! `v2v-pod convert`: the local form. The same phases as the pod, from flags instead of a contract.

mod libvirt;
mod ova;
mod server;
mod source;
mod targets;

use crate::bus::Bus;
use crate::cli::{ConvertArgs, InputKind, OutputKind};
use crate::event::{Event, Phase};
use crate::failure::{Class, Failure};
use crate::guest::vm_yaml::rfc1123;
use crate::preflight::{self, Need, Report};
use crate::rundir::RunDir;
use crate::supervise::stop::Stop;
use crate::tool_run::{Runner, Tool};
use crate::toolbox::{Accelerator, Toolbox};
use crate::vm_result;
use crate::volumes::Volumes;
use server::Server;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use targets::absolute;
use v2v_args::{
    Common, Convert, Features, Input, Inspect, Keys, Output, OutputMode, disk_link_name,
};

/// What a run left for the user.
#[derive(Debug)]
pub struct Outcome {
    /// Where each disk is.
    pub disks: Vec<PathBuf>,
    /// The metadata files.
    pub files: Vec<PathBuf>,
}

struct Local<'a> {
    args: &'a ConvertArgs,
    name: String,
    out: PathBuf,
    runner: Runner,
    volumes: Volumes,
    virt_v2v: Tool,
    inspector: Tool,
    input: Input,
    /// Serves the disks, where it is the source.
    _ova: Option<crate::ova::Source>,
    /// virt-v2v writes into this folder itself; there are no volumes then.
    direct: Option<PathBuf>,
    run_dir: &'a Path,
}

/// What of the source had to be opened before.
type Opened<'a> = (Option<&'a Server>, Option<&'a crate::ova::Source>);

/// Runs a local conversion. Nothing is written before all checks passed.
pub async fn run(
    args: &ConvertArgs,
    env: &BTreeMap<String, String>,
    bus: &Bus,
    stop: &Stop,
) -> Result<Outcome, Failure> {
    bus.emit(&Event::PhaseEntered(Phase::Preflight));
    let base = crate::pod::temp_base(env);
    let run_dir = RunDir::create(&base).map_err(|e| {
        Failure::new(Class::Config, format!("no temporary folder in {}: {e}", base.display()))
    })?;
    let mut toolbox = Toolbox::new(env, &run_dir, &base);
    let mut stopping = stop.clone();
    let local = tokio::select! {
        local = check(args, &mut toolbox, &base, run_dir.path(), bus, stop) => local?,
        cause = stopping.next() => return Err(cause.failure()),
    };
    local.convert().await
}

/// The checks of this machine alone, for `v2v-pod preflight` outside a pod.
pub async fn preflight(env: &BTreeMap<String, String>) -> Result<Report, Failure> {
    let base = crate::pod::temp_base(env);
    let run_dir = RunDir::create(&base).map_err(|e| {
        Failure::new(Class::Config, format!("no temporary folder in {}: {e}", base.display()))
    })?;
    let mut toolbox = Toolbox::new(env, &run_dir, &base);
    let mut report = Report::default();
    preflight::check_temp(&mut report, &base);
    let accelerator = preflight::check_kvm(&mut report, &toolbox, run_dir.path()).await;
    toolbox.use_accelerator(accelerator);
    let needs = ["virt-v2v", "nbdkit", "nbdcopy", "qemu-img"].map(|tool| Need { tool, fact: None });
    preflight::check_tools(&mut report, &toolbox, &needs).await;
    for (tool, purpose) in [
        ("virt-v2v-inspector", "--inspect and pod mode"),
        ("virt-v2v-in-place", "in-place conversion"),
    ] {
        match toolbox.find(tool) {
            Some(path) => report.ok("tools", path.display().to_string()),
            None => report.note(
                "tools",
                format!("{tool} is not installed"),
                format!("it is needed for {purpose}"),
            ),
        }
    }
    preflight::check_appliance(&mut report, &toolbox, true).await;
    Ok(report)
}

async fn check<'a>(
    args: &'a ConvertArgs,
    toolbox: &mut Toolbox,
    base: &Path,
    run_dir: &'a Path,
    bus: &Bus,
    stop: &Stop,
) -> Result<Local<'a>, Failure> {
    let mut report = Report::default();
    preflight::check_temp(&mut report, base);
    let accelerator = preflight::check_kvm(&mut report, toolbox, run_dir).await;
    toolbox.use_accelerator(accelerator);
    bus.emit(&Event::Accelerator(if accelerator == Accelerator::Kvm { "kvm" } else { "tcg" }));
    let fact = if args.output == OutputKind::Local { "output:local" } else { "output:kubevirt" };
    let mut needs = vec![Need { tool: "virt-v2v", fact: Some(fact) }];
    needs.extend(args.inspect.then_some(Need { tool: "virt-v2v-inspector", fact: None }));
    let features = preflight::check_tools(&mut report, toolbox, &needs).await;
    let server = server::check(args, toolbox, run_dir, &mut report).await;
    let ova = ova::check(args, toolbox, run_dir, &mut report).await;
    let opened = (server.as_ref(), ova.as_ref());
    let prepared = source::prepare(args, toolbox, opened, run_dir, &mut report).await;
    let start = report.failure().is_some();
    preflight::check_appliance(&mut report, toolbox, start).await;
    report.log();
    if let Some(failure) = report.failure() {
        return Err(failure);
    }
    let (input, volumes, direct) = prepared.ok_or_else(|| {
        Failure::new(Class::Internal, "preflight found no problem but no volumes either")
    })?;
    let name = guest_name(args);
    bus.emit(&described(args, &name, &volumes, (server.as_ref(), ova.as_ref())));
    if let Some(server) = &server {
        server.narrow(toolbox, run_dir)?;
        server::edit_nbdkit(args, toolbox, run_dir)?;
    }
    let answered = |i: usize| features.get(i).is_some_and(Features::answered);
    let out = out_folder(args)?;
    Ok(Local {
        args,
        runner: Runner {
            bus: bus.clone(),
            stop: stop.clone(),
            toolbox: toolbox.clone(),
            tmp: run_dir.join("tmp"),
            grace: Duration::from_secs(args.grace.into()),
            transcript: Some(out.join(format!("{name}.log"))),
            copy: args.copy_settings(),
            retries: args.source_retries,
            meant: server.as_ref().and_then(|s| s.meant(args)),
            findings: None,
        },
        name,
        out,
        volumes,
        virt_v2v: Tool {
            name: "virt-v2v",
            messages: answered(0),
            class: Class::Conversion,
            copies: true,
        },
        inspector: Tool {
            name: "virt-v2v-inspector",
            messages: answered(1),
            class: Class::Inspection,
            copies: false,
        },
        input,
        _ova: ova,
        direct,
        run_dir,
    })
}

/// `--name`, else the source's own name made fit for Kubernetes.
fn guest_name(args: &ConvertArgs) -> String {
    let from_source = || {
        let source = args.sources.first().map_or("guest", String::as_str);
        let stem = match args.input {
            InputKind::Libvirt => source.to_owned(),
            _ => Path::new(crate::ova::place::path_of(source))
                .file_stem()
                .map_or_else(|| "guest".to_owned(), |s| s.to_string_lossy().into_owned()),
        };
        rfc1123(&stem).unwrap_or_else(|| "guest".to_owned())
    };
    v2v_args::sanitize_slash(&args.name.clone().unwrap_or_else(from_source))
}

/// More than any source has.
const MOST_DISKS: usize = 1000;

/// The disks that virt-v2v wrote into a folder by itself, in order, made durable.
fn written_disks(dir: &Path, name: &str) -> Result<Vec<PathBuf>, Failure> {
    let disks: Vec<PathBuf> = (0..MOST_DISKS)
        .map(|i| dir.join(disk_link_name(name, i)))
        .take_while(|p| p.is_file())
        .collect();
    for disk in &disks {
        fs::File::open(disk).and_then(|f| f.sync_all()).map_err(|e| {
            Failure::new(Class::Io, format!("fsync of {} failed: {e}", disk.display()))
        })?;
    }
    Ok(disks)
}

fn out_folder(args: &ConvertArgs) -> Result<PathBuf, Failure> {
    let first_folder = args.to.iter().find(|p| p.is_dir());
    let dir = args.out.as_ref().or(first_folder).cloned().unwrap_or_else(|| PathBuf::from("."));
    let failed = |what: &str, e: std::io::Error| {
        Failure::new(Class::Config, format!("{what} {}: {e}", dir.display()))
            .advise("name a folder for the metadata with --out")
    };
    fs::create_dir_all(&dir).map_err(|e| failed("cannot make the folder", e))?;
    // Better known now than after the conversion.
    tempfile::tempfile_in(&dir).map_err(|e| failed("cannot write into the folder", e))?;
    absolute(&dir)
}

fn described(
    args: &ConvertArgs,
    name: &str,
    volumes: &Volumes,
    (server, ova): Opened<'_>,
) -> Event {
    let (source, transport) = match args.input {
        InputKind::Disk => ("disk", "file"),
        InputKind::Ova => ("ova", ova.map_or("file", |o| o.transport)),
        InputKind::Libvirtxml => ("libvirtxml", "file"),
        InputKind::Libvirt => ("libvirt", server.map_or("https", Server::transport)),
    };
    Event::Described {
        vm: name.to_owned(),
        source,
        transport,
        trust: server.map(Server::trust).or(ova.map(|o| o.trust)).unwrap_or_default(),
        targets: volumes.names(),
    }
}

impl Local<'_> {
    async fn convert(mut self) -> Result<Outcome, Failure> {
        self.enter(Phase::Prepare)?;
        let work = match &self.direct {
            Some(dir) => dir.clone(),
            None => self.make_links()?,
        };
        self.enter(Phase::Convert)?;
        let mut request = self.request(&work);
        let argv = |fd| {
            request.machine_readable_fd = fd;
            request.argv()
        };
        let volumes = self.direct.is_none().then_some(&self.volumes);
        self.runner.run(self.virt_v2v, volumes, argv).await?;
        let disks = match &self.direct {
            Some(dir) => written_disks(dir, &self.name)?,
            None => self.volumes.map.volumes().iter().map(|v| v.path().to_owned()).collect(),
        };
        self.volumes.seal()?;
        if self.args.inspect {
            self.enter(Phase::Inspect)?;
            let links =
                if self.direct.is_some() { disks.clone() } else { self.volumes.links().to_vec() };
            self.inspect(&work, links).await?;
        }
        self.keep_results(&work, disks)
    }

    /// Begins a phase, unless it is time to stop.
    fn enter(&self, phase: Phase) -> Result<(), Failure> {
        if let Some(cause) = self.runner.stop.cause() {
            return Err(cause.failure());
        }
        self.runner.bus.emit(&Event::PhaseEntered(phase));
        Ok(())
    }

    fn make_links(&mut self) -> Result<PathBuf, Failure> {
        let work = self.run_dir.join("out");
        fs::create_dir(&work).map_err(|e| {
            Failure::new(Class::NoSpace, format!("cannot make {}: {e}", work.display()))
        })?;
        self.volumes
            .link(&work, &self.name)
            .map_err(|e| Failure::new(Class::Config, e.to_string()))?;
        Ok(work)
    }

    fn common(&self) -> Common {
        Common {
            root: self.args.root.clone(),
            macs: self.args.mac.clone(),
            keys: if self.args.key_files.is_empty() {
                Keys::None
            } else {
                Keys::Files(self.args.key_files.clone())
            },
            ..Common::default()
        }
    }

    fn request(&self, work: &Path) -> Convert {
        let mut extra = self.args.extra.clone();
        extra.extend(server::options(self.args));
        let mode = match self.args.output {
            OutputKind::Local => OutputMode::Local,
            OutputKind::Kubevirt => OutputMode::Kubevirt,
        };
        Convert {
            input: self.input.clone(),
            output: Output { mode, dir: work.to_owned(), name: Some(self.name.clone()) },
            common: Some(self.common()),
            extra,
            // What virt-v2v does about snapshots is only seen so; the log shows it only when asked to.
            verbose: self.args.verbose || self.args.input == InputKind::Libvirt,
            machine_readable_fd: None,
        }
    }

    async fn inspect(&self, work: &Path, links: Vec<PathBuf>) -> Result<(), Failure> {
        let mut request = Inspect {
            output: work.join("inspection.xml"),
            links,
            common: self.common(),
            no_fstrim: false,
            extra: Vec::new(),
            machine_readable_fd: None,
        };
        let argv = |fd| {
            request.machine_readable_fd = fd;
            request.argv()
        };
        self.runner.run(self.inspector, None, argv).await
    }

    /// Brings the metadata out of the temporary folder.
    fn keep_results(&self, work: &Path, disks: Vec<PathBuf>) -> Result<Outcome, Failure> {
        let mut files = Vec::new();
        let inspection = self.args.inspect.then(|| work.join("inspection.xml"));
        let link_name = v2v_args::sanitize_slash(&self.name);
        let domain = work.join(format!("{link_name}.xml"));
        let yaml_name = format!("{link_name}.yaml");
        if self.args.output == OutputKind::Local {
            let yaml = vm_result::make_yaml(
                &domain,
                inspection.as_deref(),
                &self.name,
                &self.args.claims,
                disks.len(),
            )?;
            self.keep(yaml.as_bytes(), &yaml_name, &mut files)?;
            self.keep_file(&domain, &format!("{link_name}.xml"), &mut files)?;
        } else {
            self.keep_file(&work.join(&yaml_name), &yaml_name, &mut files)?;
        }
        if let Some(inspection) = &inspection {
            self.keep_file(inspection, "inspection.xml", &mut files)?;
        }
        Ok(Outcome { disks, files })
    }

    fn keep_file(&self, from: &Path, name: &str, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
        let bytes = fs::read(from).map_err(|e| {
            Failure::new(
                Class::Inspection,
                format!("the disks are converted, but {} cannot be read: {e}", from.display()),
            )
        })?;
        self.keep(&bytes, name, files)
    }

    fn keep(&self, bytes: &[u8], name: &str, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
        let path = self.out.join(name);
        vm_result::write_durably(&path, bytes)?;
        files.push(path);
        Ok(())
    }
}
