//! A folder with a guest's files, and how they are opened.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use v2v_pod::failure::Failure;
use v2v_pod::ova::{self, Login, Source, Verify, Wanted};
use v2v_pod::preflight::Report;
use v2v_pod::rundir::RunDir;
use v2v_pod::sources::answer::Answer;
use v2v_pod::toolbox::Toolbox;
use v2v_pod::trust::Fingerprint;
use v2v_pod::vsphere::access::TrustMode;
use v2v_pod_tests::ova::{OvfDisk, must, ovf, stream_optimized};

pub const CAPACITY: u64 = 32 << 20;

/// A private temporary folder with `files/web.ovf` and `files/disk.vmdk`; the disk's content is `disk.img`.
pub struct Lab {
    pub dir: TempDir,
    run: RunDir,
    toolbox: Toolbox,
}

/// What came of opening.
pub struct Opened {
    pub result: Result<Source, Failure>,
    pub report: Report,
}

impl Lab {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("v2v-ova.").tempdir_in("/var/tmp").unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let env = BTreeMap::from([("PATH".to_owned(), path)]);
        let toolbox = Toolbox::new(&env, &run, dir.path());
        let lab = Self { dir, run, toolbox };
        fs::create_dir(lab.at("files")).unwrap();
        lab.write_disk();
        stream_optimized(&lab.at("disk.img"), &lab.at("files/disk.vmdk"));
        lab.describe(&[OvfDisk::new("disk.vmdk", CAPACITY)]);
        lab
    }

    /// 4 MiB that cannot be compressed, and zeroes.
    fn write_disk(&self) {
        let mut file = File::create(self.at("disk.img")).unwrap();
        file.set_len(CAPACITY).unwrap();
        let mut noise = Vec::new();
        File::open("/dev/urandom").unwrap().take(4 << 20).read_to_end(&mut noise).unwrap();
        file.seek(SeekFrom::Start(5 << 20)).unwrap();
        file.write_all(&noise).unwrap();
    }

    pub fn describe(&self, disks: &[OvfDisk<'_>]) {
        fs::write(self.at("files/web.ovf"), ovf("web", disks)).unwrap();
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn files(&self) -> PathBuf {
        self.at("files")
    }

    pub async fn open(&self, place: impl AsRef<Path>) -> Opened {
        self.open_as(place, Verify::Auto, &Login::default(), None).await
    }

    pub async fn open_as(
        &self,
        place: impl AsRef<Path>,
        verify: Verify,
        login: &Login,
        thumbprint: Option<Fingerprint>,
    ) -> Opened {
        let place = place.as_ref().to_str().unwrap().parse().unwrap();
        self.open_wanted(&Wanted { place, verify, trust: TrustMode::Auto, thumbprint }, login).await
    }

    /// A new folder each time, as a new run has.
    fn run(&self) -> PathBuf {
        let number = fs::read_dir(self.run.path()).unwrap().count();
        let run = self.run.path().join(number.to_string());
        fs::create_dir(&run).unwrap();
        run
    }

    /// What is in it.
    pub async fn look(&self, place: impl AsRef<Path>) -> Result<Answer, Failure> {
        let place = place.as_ref().to_str().unwrap().parse().unwrap();
        let (verify, trust) = (Verify::Auto, TrustMode::Auto);
        let wanted = Wanted { place, verify, trust, thumbprint: None };
        let (login, mut report) = (Login::default(), Report::default());
        ova::look(&wanted, &login, &self.toolbox, &self.run(), &mut report).await
    }

    pub async fn open_wanted(&self, wanted: &Wanted, login: &Login) -> Opened {
        let run = self.run();
        let mut report = Report::default();
        let result = ova::open(wanted, login, &self.toolbox, &run, &mut report).await;
        Opened { result, report }
    }

    /// The disk that virt-v2v would read is the one that was put in.
    #[track_caller]
    pub fn is_same(&self, source: &Source) {
        let overlay = source.path.join("disk0.qcow2");
        let args = ["compare", "-f", "qcow2", "-F", "raw"];
        must(Command::new("qemu-img").args(args).arg(overlay).arg(self.at("disk.img")));
        assert_eq!(source.sizes, [CAPACITY]);
    }
}

impl Opened {
    #[track_caller]
    pub fn good(self) -> Source {
        let report = self.report;
        self.result.unwrap_or_else(|e| panic!("{e}\n{}", report.to_text()))
    }

    #[track_caller]
    pub fn failure(self) -> Failure {
        match self.result {
            Ok(source) => panic!("it was opened: {source:?}"),
            Err(failure) => failure,
        }
    }
}
