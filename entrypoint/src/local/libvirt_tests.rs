use super::*;
use crate::cli::{Command, ConvertArgs, Invocation, parse};
use crate::local::{server, source};
use crate::preflight::Report;
use crate::rundir::RunDir;
use std::collections::BTreeMap;
use std::fs;
use v2v_args::Input;

/// A folder with a guest of libvirt's test driver, whose disk is there and called as virt-v2v would call it.
struct Host {
    dir: tempfile::TempDir,
    run: RunDir,
    toolbox: Toolbox,
}

impl Host {
    fn new(disk: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        let env = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]);
        let toolbox = Toolbox::new(&env, &run, dir.path());
        let host = Self { dir, run, toolbox };
        let xml = format!(
            "<node><domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>\
             <name>web</name><memory unit='KiB'>1024</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64'>hvm</type></os><devices>{}</devices>\
             <test:runstate>5</test:runstate></domain></node>",
            disk.replace("DIR", &host.path("").to_string_lossy())
        );
        fs::write(host.path("host.xml"), xml).unwrap();
        fs::write(host.path("web-sda"), vec![1; 1 << 20]).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join(name)
    }

    fn url(&self) -> String {
        format!("test://{}", self.path("host.xml").display())
    }

    /// The problems, and the folder if virt-v2v is to write into it itself.
    fn prepare(&self, url: &str, name: &str, to: &Path) -> (String, Option<PathBuf>) {
        let to = to.to_string_lossy().into_owned();
        let words = ["convert", "-i", "libvirt", "-ic", url, "web", "--to", &to, "--name", name];
        let parsed = parse(&words.map(str::to_owned)).unwrap();
        let Invocation::Command(Command::Convert(args)) = parsed else { panic!("{parsed:?}") };
        let args: ConvertArgs = *args;
        let (mut toolbox, mut report) = (self.toolbox.clone(), Report::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let prepared = runtime.block_on(async {
            let server = server::check(&args, &mut toolbox, self.run.path(), &mut report).await;
            let opened = (server.as_ref(), None);
            source::prepare(&args, &toolbox, opened, self.run.path(), &mut report).await
        });
        let folder = prepared.and_then(|(input, _, folder)| {
            assert!(matches!(input, Input::Libvirt(_)));
            folder
        });
        (report.failure().map(|f| f.message).unwrap_or_default(), folder)
    }
}

const DISK: &str = "<disk type='file' device='disk'><driver name='qemu' type='raw'/>\
                    <source file='DIR/web-sda'/><target dev='vda'/></disk>";
const VOLUME: &str = "<disk type='volume' device='disk'><source pool='p' volume='web-sda'/>\
                      <target dev='vda'/></disk>";

#[test]
fn the_disk_of_a_local_guest_is_never_a_target() {
    let host = Host::new(DISK);
    let (out, other) = (host.path(""), host.path("other"));
    fs::create_dir(&other).unwrap();
    for to in [&out, &host.path("web-sda")] {
        let (problem, _) = host.prepare(&host.url(), "web", to);
        assert!(problem.contains("web-sda is the source itself"), "{problem}");
    }
    assert_eq!(fs::read(host.path("web-sda")).unwrap(), vec![1; 1 << 20]);
    // Its number of disks is known, so that the folder gets volumes as from any other source.
    for (name, to) in [("new", &out), ("web", &other)] {
        assert_eq!(host.prepare(&host.url(), name, to), (String::new(), None));
    }
    let small = host.path("small");
    fs::write(&small, b"").unwrap();
    assert_eq!(host.prepare(&host.url(), "web", &small), (String::new(), None));
    let host = Host::new(&format!("{DISK}{}", DISK.replace("vda", "vdb")));
    assert!(host.prepare(&host.url(), "x", &host.path("y")).0.contains("2 disk(s)"));
}

#[test]
fn the_base_of_a_disk_is_no_target_either() {
    let host = Host::new(&DISK.replace("'raw'", "'qcow2'").replace("web-sda", "top"));
    let made = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-b", "web-sda", "-F", "raw", "top"])
        .current_dir(host.dir.path())
        .status();
    assert!(made.unwrap().success());
    let (problem, _) = host.prepare(&host.url(), "web", &host.path(""));
    assert!(problem.contains("web-sda is the source itself"), "{problem}");
}

#[test]
fn nothing_is_written_over_where_the_disks_are_not_known() {
    let silent = "test:///nonexistent/host.xml".to_owned();
    for (host, url) in [(Host::new(DISK), Some(silent)), (Host::new(VOLUME), None)] {
        let url = url.unwrap_or_else(|| host.url());
        let (problem, _) = host.prepare(&url, "web", &host.path(""));
        assert!(problem.contains("web-sda exists already"), "{problem}");
        assert_eq!(host.prepare(&url, "new", &host.path("")), (String::new(), Some(host.path(""))));
        std::os::unix::fs::symlink("/nonexistent", host.path("new-sdab")).unwrap();
        let (problem, _) = host.prepare(&url, "new", &host.path(""));
        assert!(problem.contains("new-sdab exists already"), "{problem}");
    }
}
