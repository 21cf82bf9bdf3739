//! The processes of a pod, seen from the host: those in the PID namespace of its first process.

use std::fs;
use std::path::PathBuf;

/// One process.
#[derive(Debug, Clone)]
pub struct Process {
    /// On the host.
    pub pid: i32,
    /// Name of the program, at most 15 characters.
    pub name: String,
    /// The arguments, each ended by a zero byte.
    pub arguments: Vec<u8>,
    /// The environment, each variable ended by a zero byte.
    pub environment: Vec<u8>,
}

impl Process {
    /// Whether it is v2v-pod itself, as process 1 or as its child.
    pub fn is_ours(&self) -> bool {
        self.name == "v2v-pod" || self.arguments.starts_with(b"/proc/self/exe\0")
    }

    /// The variables' names.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        self.environment
            .split(|b| *b == 0)
            .filter_map(|v| v.split(|b| *b == b'=').next())
            .map(|name| String::from_utf8_lossy(name).into_owned())
    }
}

/// A PID namespace.
#[derive(Debug, Clone)]
pub struct Namespace(PathBuf);

impl Namespace {
    /// That of a process; `None` when it has ended.
    pub fn of(pid: i32) -> Option<Self> {
        fs::read_link(format!("/proc/{pid}/ns/pid")).ok().map(Self)
    }

    /// Who lives in it now.
    pub fn processes(&self) -> Vec<Process> {
        let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| {
            let pid = e.file_name().to_str()?.parse().ok()?;
            (Self::of(pid)?.0 == self.0).then_some(pid)
        });
        pids.filter_map(|pid: i32| {
            let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).ok();
            Some(Process {
                pid,
                name: String::from_utf8_lossy(&read("comm")?).trim().to_owned(),
                arguments: read("cmdline")?,
                environment: read("environ")?,
            })
        })
        .collect()
    }

    /// The names of those that are not v2v-pod.
    pub fn tools(&self) -> Vec<String> {
        self.processes().into_iter().filter(|p| !p.is_ours()).map(|p| p.name).collect()
    }
}
