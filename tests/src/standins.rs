//! The tools of the image, played: they record how they were called, leave the files the real tool would
//! leave, print something like it, and exit as the case says. Runs inside the chroot, where nothing else is.

use crate::http;
use crate::records::{Call, HARNESS, RECORD, Record, SCRIPT, Script, WORKDIR};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Names the binary answers to, and the folder each real tool is in.
pub const TOOLS: &[&str] = &[
    "/usr/bin/virt-v2v",
    "/usr/bin/virt-v2v-inspector",
    "/usr/bin/virt-customize",
    "/usr/bin/qemu-img",
    "/usr/bin/virsh",
    "/usr/libexec/virt-v2v-in-place",
];

/// What virt-v2v leaves for `-o kubevirt`; the recorded `/vm` answers have it.
const VM_YAML: &str = "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata:\n  name: test\n";

/// Plays the tool `argv[0]`; gives its exit code.
pub fn play(argv: &[String]) -> i32 {
    let tool = argv[0].rsplit('/').next().unwrap_or_default().to_owned();
    let text = fs::read_to_string(SCRIPT).expect("the stand-ins' script");
    let script: Script = serde_json::from_str(&text).expect("the stand-ins' script");
    let query = is_query(&tool, &argv[1..]);
    record(&Record::Call(Box::new(call(argv, query))));
    if query {
        answer(&tool, &argv[1..], script.fstrim);
        return 0;
    }
    let rc = script.rc.get(&tool).copied().unwrap_or(0);
    watch_8080(&tool);
    if let Err(e) = work(&tool, argv, &script, rc) {
        record(&Record::Broken(format!("{tool}: {e}")));
    }
    watch_8080(&tool);
    rc
}

fn work(tool: &str, argv: &[String], script: &Script, rc: i32) -> io::Result<()> {
    match tool {
        "virt-v2v" => virt_v2v(argv, script, rc),
        "virt-v2v-in-place" => {
            let mut messages = Messages::new(argv)?;
            messages.say("Setting up the source")?;
            messages.say("Opening the source")?;
            messages.say("Converting the guest to run on KVM")?;
            // As `-v` does it, of a guest without virtio drivers.
            eprintln!("gcaps_block_bus = ide\ngcaps_net_bus = e1000\ngcaps_machine = q35");
            eprintln!("gcaps_arch = x86_64\ngcaps_acpi = true\ntarget firmware: uefi");
            messages.finish(rc)
        }
        "virt-v2v-inspector" => inspector(argv, script, rc),
        "qemu-img" if argv.get(1).is_some_and(|w| w == "create") && rc == 0 => {
            fs::write(&argv[argv.len() - 1], "QFI\u{fb}")
        }
        "virsh" => {
            if rc == 0 && argv.iter().any(|w| w == "dumpxml") {
                print!("{}", script.domain_xml.as_deref().unwrap_or_default());
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn virt_v2v(argv: &[String], script: &Script, rc: i32) -> io::Result<()> {
    let mut messages = Messages::new(argv)?;
    let links = links();
    if script.steps.is_empty() {
        messages.say("Setting up the source")?;
        messages.say("Opening the source")?;
        messages.say("Inspecting the source")?;
        messages.say("Converting the guest to run on KVM")?;
        for i in 1..=if rc == 0 { links.len() } else { 0 } {
            messages.say(&format!("Copying disk {i}/{}", links.len()))?;
            println!("\u{2588} 50% [********************--------------------]");
            println!("\u{2588} 100% [****************************************]");
        }
    } else {
        stepwise(&mut messages, script)?;
    }
    if rc == 0 {
        // Something has to arrive on the volumes: a pod may check that they are not empty.
        for link in links.keys() {
            let file = OpenOptions::new().write(true).open(Path::new(WORKDIR).join(link));
            file?.write_all(&[0x55; 4096])?;
        }
        let name = value(argv, "-on").unwrap_or(&script.vm_name).replace('/', "_");
        let folder = value(argv, "-os").unwrap_or(WORKDIR);
        fs::write(format!("{folder}/{name}.yaml"), VM_YAML)?;
        if script.steps.is_empty() {
            messages.say("Finishing off")?;
        }
    }
    messages.finish(rc)
}

/// Prints each step's text, says that it did, and waits until the harness has looked at the metrics.
fn stepwise(messages: &mut Messages, script: &Script) -> io::Result<()> {
    for (i, text) in script.steps.iter().enumerate() {
        print!("{text}");
        io::stdout().flush()?;
        if script.json {
            for line in text.lines() {
                if let Some(message) = message_of(line) {
                    messages.emit("message", message)?;
                }
            }
        }
        fs::write(format!("{HARNESS}/step.{i}"), "")?;
        let start = Instant::now();
        while !Path::new(&format!("{HARNESS}/go.{i}")).exists() {
            if start.elapsed() > Duration::from_secs(30) {
                return Err(io::Error::other(format!("no go-ahead after step {i}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// The text of a `[   1.0] text` line: only these come from virt-v2v's `message`, and so have a JSON twin.
fn message_of(line: &str) -> Option<&str> {
    let (stamp, text) = line.strip_prefix('[')?.split_once("] ")?;
    stamp.trim().parse::<f64>().ok().map(|_| text)
}

fn inspector(argv: &[String], script: &Script, rc: i32) -> io::Result<()> {
    if rc != 0 {
        eprintln!("virt-v2v-inspector: error: inspection could not detect the source guest");
        return Ok(());
    }
    let (name, distro, osinfo) = match script.os.as_str() {
        "windows" => ("windows", "windows", "win2k22"),
        _ => ("linux", "fedora", "fedora40"),
    };
    let xml = format!(
        "<?xml version='1.0'?>\n<v2v-inspection>\n  <operatingsystem>\n    <name>{name}</name>\n    \
         <distro>{distro}</distro>\n    <osinfo>{osinfo}</osinfo>\n    <arch>x86_64</arch>\n  \
         </operatingsystem>\n</v2v-inspection>\n"
    );
    match value(argv, "-O") {
        Some(file) => fs::write(file, xml),
        None => io::stdout().write_all(xml.as_bytes()),
    }
}

/// virt-v2v's messages: for people on stdout, and as JSON where `--machine-readable=…` says.
struct Messages {
    machine: Option<Box<dyn Write>>,
    tick: f64,
}

impl Messages {
    fn new(argv: &[String]) -> io::Result<Self> {
        let target = argv.iter().find_map(|w| w.strip_prefix("--machine-readable="));
        let open = |path: &str| OpenOptions::new().append(true).create(true).open(path);
        let machine: Option<Box<dyn Write>> = match target.map(|t| t.split_once(':')) {
            Some(Some(("fd", n))) => Some(Box::new(open(&format!("/proc/self/fd/{n}"))?)),
            Some(Some(("file", path))) => Some(Box::new(open(path)?)),
            Some(Some(("stream", "stderr"))) => Some(Box::new(io::stderr())),
            Some(Some(("stream", "stdout"))) => Some(Box::new(io::stdout())),
            Some(other) => return Err(io::Error::other(format!("--machine-readable: {other:?}"))),
            None => None,
        };
        Ok(Self { machine, tick: 0.0 })
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        println!("[{:6.1}] {text}", self.tick);
        self.tick += 1.5;
        self.emit("message", text)
    }

    fn emit(&mut self, kind: &str, text: &str) -> io::Result<()> {
        let Some(machine) = &mut self.machine else {
            return Ok(());
        };
        let message = serde_json::json!({
            "message": text,
            "timestamp": "2026-08-21T10:00:00.000000000+00:00",
            "type": kind,
        });
        writeln!(machine, "{message}")?;
        machine.flush()
    }

    fn finish(&mut self, rc: i32) -> io::Result<()> {
        if rc == 0 {
            return Ok(());
        }
        eprintln!("virt-v2v: error: the case says that this fails");
        self.emit("error", "the case says that this fails")
    }
}

/// Whether a call only asks: for facts, help, a version, the options of a mode, or about an image file.
fn is_query(tool: &str, args: &[String]) -> bool {
    let only = |what: &str| args.len() == 1 && args[0].split('=').next() == Some(what);
    let has = |what: &str| args.iter().take_while(|a| *a != "--").any(|a| a == what);
    let asks_options = ["-io", "-oo"].iter().any(|o| value(args, o) == Some("?"));
    only("--machine-readable")
        || has("--help")
        || has("--version")
        || (matches!(tool, "virt-v2v" | "virsh") && only("-V"))
        || asks_options
        || (tool == "qemu-img"
            && matches!(args.first().map(String::as_str), Some("info" | "check" | "measure")))
}

fn answer(tool: &str, args: &[String], fstrim: bool) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match (tool, args.first().copied()) {
        (_, Some(first)) if first.starts_with("--machine-readable") => print!("{}", facts(tool)),
        ("qemu-img", Some("info")) => println!(
            "{{\"virtual-size\": 67108864, \"format\": \"raw\", \"actual-size\": 4096, \"filename\": \"{}\"}}",
            args.last().copied().unwrap_or_default()
        ),
        ("virsh", _) => println!("11.3.0"),
        _ if args.contains(&"--version") => println!("{tool} 2.6.0"),
        _ => print!("{}", usage(tool, fstrim)),
    }
}

fn facts(tool: &str) -> String {
    let mut facts: Vec<&str> = match tool {
        "virt-v2v" => vec![
            "virt-v2v",
            "virt-v2v-2.0",
            "libguestfs-rewrite",
            "vcenter-https",
            "xen-ssh",
            "vddk",
            "colours-option",
            "vdsm-compat-option",
            "io/oo",
            "mac-option",
            "bandwidth-option",
            "mac-ip-option",
            "parallel-option",
            "customize-ops",
        ],
        "virt-v2v-in-place" => vec![
            "virt-v2v-in-place",
            "virt-v2v-in-place-2.0",
            "libguestfs-rewrite",
            "colours-option",
            "in-place",
            "io",
            "mac-option",
            "mac-ip-option",
            "customize-ops",
            "output-xml-option",
        ],
        other => vec![
            other,
            "libguestfs-rewrite",
            "colours-option",
            "io",
            "mac-option",
            "mac-ip-option",
            "customize-ops",
        ],
    };
    facts.extend(["input:disk", "input:libvirt", "input:libvirtxml", "input:ova", "input:vmx"]);
    if tool == "virt-v2v" {
        facts.extend([
            "output:kubevirt",
            "output:libvirt",
            "output:local",
            "output:null",
            "output:openstack",
            "output:qemu",
            "output:rhv",
            "output:rhv-upload",
            "output:vdsm",
        ]);
    }
    facts.extend(["convert:linux", "convert:windows", "ovf:rhvexp", "ovf:vdsm"]);
    facts.join("\n") + "\n"
}

fn usage(tool: &str, fstrim: bool) -> String {
    let mut text = format!("{tool}: convert a guest to use KVM\n\nOptions:\n");
    let options = [
        "-i <disk|libvirt|libvirtxml|ova|vmx>",
        "-ic <uri>",
        "-if <format>",
        "-io <option[=value]>",
        "-ip <filename>",
        "-it <ssh|vddk>",
        "--hostname <hostname>",
        "--key <SELECTOR>",
        "--mac <mac:network|bridge|ip:out>",
        "--machine-readable[=format]",
        "--memsize <mb>",
        "-o <kubevirt|local|null|…>",
        "-on <name>",
        "-oo <option[=value]>",
        "-os <storage>",
        "--parallel <N>",
        "--root <ask|first|single|/dev/sdX>",
        "--smp <vcpus>",
        "-v",
        "-x",
    ];
    for option in options.into_iter().chain(fstrim.then_some("--no-fstrim")) {
        text.push_str("  ");
        text.push_str(option);
        text.push_str("  See the manual\n");
    }
    text
}

fn call(argv: &[String], query: bool) -> Call {
    let env: BTreeMap<String, String> = std::env::vars_os()
        .map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
        .collect();
    let auth_file = env.get("LIBVIRT_AUTH_FILE").map(|path| {
        fs::read_to_string(path).unwrap_or_else(|e| format!("cannot be read: {path}: {e}"))
    });
    Call { argv: argv.to_vec(), query, env, links: links(), auth_file }
}

/// Symbolic links in the work directory: name -> target.
pub fn links() -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(WORKDIR) else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|e| {
            let target = fs::read_link(e.path()).ok()?;
            let name = e.file_name().to_string_lossy().into_owned();
            Some((name, target.to_string_lossy().into_owned()))
        })
        .collect()
}

/// The controller acts on the first answer of `:8080`, so nothing may listen there while tools still run.
fn watch_8080(tool: &str) {
    if http::is_open(8080) {
        record(&Record::Early8080(tool.to_owned()));
    }
}

fn record(record: &Record) {
    let line = serde_json::to_string(record).expect("a record") + "\n";
    let file = OpenOptions::new().append(true).create(true).open(RECORD);
    file.expect("the record file").write_all(line.as_bytes()).expect("the record file");
}

fn value<'a>(argv: &'a [String], option: &str) -> Option<&'a str> {
    let at = argv.iter().position(|w| w == option)?;
    argv.get(at + 1).map(String::as_str)
}
