//! A run of `bench transports`: everything checked, the VM found, then one measurement after another.

use super::args::{Competitor, Tool, TransportsArgs, Way};
use super::checks::{check, counts, describe, endpoint, login, round_trip};
use super::copies::{copies, target};
use super::measure::Bench;
use super::report::{Report, Sample};
use crate::failure::{Class, Failure};
use crate::preflight::{Report as Findings, Verdict};
use crate::rundir::RunDir;
use crate::serve_disks::children::{Line, ServerLine};
use crate::serve_disks::lines::{self, Files, Server, Use};
use crate::serve_disks::secrets::write_secrets;
use crate::serve_disks::vm::Vm;
use crate::supervise::stop::Stop;
use crate::toolbox::Toolbox;
use crate::trust::Endpoint;
use crate::vsphere::access::Access;
use crate::vsphere::anchors;
use crate::vsphere::transport::Vddk;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const QUESTION_LIMIT: Duration = Duration::from_secs(60);

/// What all measurements share. Its secrets go with it.
pub struct Session {
    /// Numbers of disks, one row each.
    pub counts: Vec<usize>,
    /// In the order of their turns.
    pub competitors: Vec<Competitor>,
    toolbox: Toolbox,
    stop: Stop,
    run: RunDir,
    files: Files,
    server: Server,
    vm: Vm,
    disks: Vec<String>,
    /// Private, in the user's folder: nobody can put a link to another file there.
    scratch: Option<RunDir>,
    facts: Report,
    /// Of each disk, once it was seen.
    sizes: RefCell<BTreeMap<usize, u64>>,
    /// Of each disk's first copy.
    digests: RefCell<BTreeMap<usize, Vec<u8>>>,
}

impl Session {
    /// Checks all that can be checked, and reads the VM's description.
    pub async fn open(
        args: &TransportsArgs,
        env: &BTreeMap<String, String>,
        stop: &Stop,
    ) -> Result<Self, Failure> {
        let base = crate::pod::temp_base(env);
        let run = RunDir::create(&base).map_err(|e| {
            Failure::new(Class::Config, format!("no temporary folder in {}: {e}", base.display()))
        })?;
        let mut toolbox = Toolbox::new(env, &run, &base);
        let mut findings = Findings::default();
        let (access, vddk) = check(args, &toolbox, &run, &mut findings).await?;
        for finding in findings.findings.iter().filter(|f| f.verdict == Verdict::Note) {
            super::progress(&format!("note: {}", finding.message));
        }
        if let Some(file) = anchors::file(&access.anchors, run.path())? {
            anchors::narrow(&mut toolbox, &file, run.path())?;
        } else {
            anchors::widen();
        }
        let login = login(args)?;
        let vm = describe(args, &access, &toolbox, &run).await?;
        let disks = vm.choose(&args.disk)?;
        let counts = counts(args, disks.len())?;
        let endpoint = endpoint(args)?;
        let server = Server {
            host: endpoint.host.to_string(),
            port: endpoint.port,
            user: login.user.clone(),
            thumbprint: access.thumbprint.clone(),
            insecure: access.trust == "insecure",
            libdir: args.libdir.clone(),
            vddk_transports: vddk.as_ref().and_then(|v| v.transports).map(str::to_owned),
            vddk_config: None,
            cookie_renew: None,
        };
        let files = Files { folder: run.tmp().join("bench") };
        write_secrets(&files, &server, &vm, &disks, &login)?;
        let mut session = Self {
            counts,
            competitors: args.competitors(),
            toolbox,
            stop: stop.clone(),
            run,
            files,
            server,
            vm,
            disks,
            scratch: args.scratch.as_deref().map(private_folder).transpose()?,
            facts: Report::default(),
            sizes: RefCell::default(),
            digests: RefCell::default(),
        };
        session.facts = session.describe(args, &access, vddk.as_ref(), &endpoint).await?;
        Ok(session)
    }

    /// Where the copies go.
    fn scratch(&self) -> Option<PathBuf> {
        self.scratch.as_ref().map(RunDir::tmp)
    }

    /// The report without measurements.
    pub fn head(&self) -> Report {
        self.facts.clone()
    }

    /// One measurement.
    pub async fn measure(
        &self,
        count: usize,
        round: u16,
        competitor: Competitor,
    ) -> Result<Sample, Failure> {
        self.clear();
        let tmp = self.run.tmp();
        let bench = Bench { toolbox: &self.toolbox, dir: &tmp, stop: &self.stop };
        let servers = (0..count)
            .map(|n| self.server_line(competitor.transport, n))
            .collect::<Result<Vec<_>, _>>()?;
        let copies = copies(competitor.copier, &self.files, self.scratch().as_deref(), count);
        let program = self.copier(competitor.copier)?;
        let copies: Vec<Line> =
            copies.into_iter().map(|args| Line { program: program.clone(), args }).collect();
        let work = async || {
            let mut bytes = 0;
            for number in 0..count {
                bytes += self.size(number).await?;
            }
            let (seconds, cpu) = bench.copy(&copies).await?;
            Ok((bytes, seconds, cpu))
        };
        let result = bench.with_servers(&servers, work).await;
        let checked = match &result {
            Ok(_) if round == 1 => self.compare(count).await,
            _ => Ok(()),
        };
        self.clear();
        let named = |failure: Failure| Failure {
            message: format!("{} {}: {}", competitor.transport, competitor.copier, failure.message),
            ..failure
        };
        let ((bytes, seconds, copier_cpu), server_cpu) = result.map_err(named)?;
        checked.map_err(named)?;
        Ok(Sample { disks: count, round, competitor, bytes, seconds, copier_cpu, server_cpu })
    }

    fn server_line(&self, way: Way, number: usize) -> Result<ServerLine, Failure> {
        let disk = &self.disks[number];
        let args = lines::nbdkit(
            way,
            &self.server,
            &self.vm,
            disk,
            (&self.files, number),
            Use::Conversion,
        )
        .ok_or_else(|| Failure::new(Class::Config, format!("{disk:?} is no name of a disk")))?;
        let line = Line { program: self.tool("nbdkit")?, args };
        Ok(ServerLine { line, pidfile: self.files.pidfile(number) })
    }

    fn tool(&self, name: &str) -> Result<PathBuf, Failure> {
        self.toolbox.find(name).ok_or_else(|| crate::tool_run::missing(name))
    }

    fn copier(&self, tool: Tool) -> Result<PathBuf, Failure> {
        match tool {
            Tool::Nbdcopy => self.tool("nbdcopy"),
            Tool::V2vPod => std::env::current_exe()
                .map_err(|e| Failure::new(Class::Internal, format!("where is this program? {e}"))),
        }
    }

    /// The size of a disk, asked of its server when it is seen first.
    async fn size(&self, number: usize) -> Result<u64, Failure> {
        if let Some(size) = self.sizes.borrow().get(&number) {
            return Ok(*size);
        }
        let uri = self.files.uri(number);
        let answer = self.toolbox.ask("nbdinfo", &["--size", &uri], QUESTION_LIMIT).await;
        let (status, text) = answer.ok_or_else(|| crate::tool_run::missing("nbdinfo"))?;
        let size = text.lines().find_map(|l| l.trim().parse().ok()).filter(|_| status.success());
        let size = size.ok_or_else(|| {
            let message = format!("{} cannot be read: {}", self.disks[number], text.trim());
            Failure::new(Class::Io, message)
        })?;
        self.sizes.borrow_mut().insert(number, size);
        Ok(size)
    }

    /// Only the server has the disks: every copy must be as the first one.
    async fn compare(&self, count: usize) -> Result<(), Failure> {
        let Some(dir) = self.scratch() else { return Ok(()) };
        for number in 0..count {
            let path = PathBuf::from(target(Some(&dir), number));
            let shown = path.display().to_string();
            let digest = tokio::task::spawn_blocking(move || digest(&path)).await;
            let digest = digest
                .map_err(io::Error::other)
                .and_then(|d| d)
                .map_err(|e| Failure::new(Class::Io, format!("{shown} cannot be read: {e}")))?;
            let mut digests = self.digests.borrow_mut();
            if *digests.entry(number).or_insert_with(|| digest.clone()) != digest {
                let message =
                    format!("this copy of {} differs from the first one", self.disks[number]);
                return Err(Failure::new(Class::Integrity, message)
                    .advise("make sure that the VM is off; then report this"));
            }
        }
        Ok(())
    }

    /// Removes what a measurement left, so that the next one begins as it did.
    fn clear(&self) {
        for number in 0..self.disks.len() {
            let mut left = vec![self.files.socket(number), self.files.pidfile(number)];
            if let Some(dir) = self.scratch() {
                let target = target(Some(&dir), number);
                left.extend([format!("{target}.v2v-journal").into(), target.into()]);
            }
            for path in left {
                // Usually it is not there.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    async fn describe(
        &self,
        args: &TransportsArgs,
        access: &Access,
        vddk: Option<&Vddk>,
        endpoint: &Endpoint,
    ) -> Result<Report, Failure> {
        let mut versions = vec![("v2v-pod", env!("CARGO_PKG_VERSION").to_owned())];
        for tool in ["nbdkit", "nbdcopy", "virsh"] {
            let answer = self.toolbox.ask(tool, &["--version"], QUESTION_LIMIT).await;
            let text = answer.map_or_else(String::new, |(_, text)| text);
            versions.push((tool, text.lines().next().unwrap_or("unknown").to_owned()));
        }
        versions.extend(vddk.map(|v| ("VDDK", v.name.clone())));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        versions.push(("kernel", kernel.trim().to_owned()));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        versions.push(("cores", cores.to_string()));
        let trip = round_trip(endpoint).await?;
        let target = args.scratch.as_ref().map_or("null:".to_owned(), |d| d.display().to_string());
        let settings: Vec<(&'static str, Value)> = vec![
            ("url", access.url.clone().into()),
            ("trust", access.trust.into()),
            ("vm", args.vm.clone().into()),
            ("disks", self.disks.clone().into()),
            ("target", target.into()),
            ("rounds", args.rounds.into()),
            (
                "round_trip_ms",
                json!({"least": trip.min, "median": trip.median, "delayed_by": "the network as it is"}),
            ),
        ];
        let mut commands = Vec::new();
        for way in [Way::Https, Way::Vddk].into_iter().filter(|w| args.transports.contains(w)) {
            commands.push((format!("{way} server"), shown(&self.server_line(way, 0)?.line)));
        }
        for tool in [Tool::Nbdcopy, Tool::V2vPod].into_iter().filter(|t| args.copiers.contains(t)) {
            let copies = copies(tool, &self.files, self.scratch().as_deref(), 1);
            let program = self.copier(tool)?;
            commands.extend(copies.into_iter().map(|args| {
                (format!("{tool} copies"), shown(&Line { program: program.clone(), args }))
            }));
        }
        Ok(Report { versions, settings, commands, samples: Vec::new() })
    }
}

/// The tools run in another folder than the user, so its path is a whole one.
fn private_folder(scratch: &Path) -> Result<RunDir, Failure> {
    let made = scratch.canonicalize().and_then(|dir| RunDir::create(&dir));
    made.map_err(|e| {
        let message = format!("cannot make a folder in --scratch {}: {e}", scratch.display());
        Failure::new(Class::Config, message).advise("name a folder that you can write into")
    })
}

impl Drop for Session {
    fn drop(&mut self) {
        self.clear();
    }
}

fn shown(line: &Line) -> String {
    let words =
        std::iter::once(line.program.to_string_lossy().into_owned()).chain(line.args.clone());
    words.map(|w| lines::quoted(&w)).collect::<Vec<_>>().join(" ")
}

fn digest(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = io::Read::read(&mut file, &mut buffer)?;
        if read == 0 {
            return Ok(hash.finalize().to_vec());
        }
        hash.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn copies_go_where_nobody_else_can_put_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = private_folder(dir.path()).unwrap();
        let target = PathBuf::from(target(Some(&scratch.tmp()), 0));
        let own = scratch.path().to_owned();
        assert!(
            target.starts_with(&own) && own.parent() == dir.path().canonicalize().ok().as_deref()
        );
        assert_eq!(own.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(target, "copy").unwrap();
        drop(scratch);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let message = private_folder(Path::new("/nonexistent/x")).unwrap_err().message;
        assert!(message.contains("/nonexistent/x"), "{message}");
    }
}
