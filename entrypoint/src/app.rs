//! Puts a run together: log, sinks, signals, the flow, and the exit code.
//!
//! `main` only calls [`run`]. The exit code is decided here and nowhere else.

use crate::bench::{self, BenchCommand};
use crate::bus::Bus;
use crate::cli::{self, Command, ConvertArgs, Invocation};
use crate::config::pod::{LogFormat, PodConfig, Ports};
use crate::config::settings::Values;
use crate::copy;
use crate::event::Event;
use crate::failure::{Class, Failure, success_message};
use crate::local::{self, Outcome};
use crate::log::{Logging, Style};
use crate::pod;
use crate::preflight::Report;
use crate::sinks::{live, metrics, terminal::Terminal};
use crate::supervise::stop::Stop;
use crate::trust;
use crate::vddk::{self, command::VddkCommand};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Lines that wait for a slow terminal.
const TERMINAL_LINES: usize = 10_000;
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Runs the whole program; returns its exit code.
pub async fn run(args: &[String], env: BTreeMap<String, String>) -> u8 {
    match cli::parse(args) {
        Err(e) => {
            // Help and version go to stdout and are no failure.
            let _ = e.print();
            u8::try_from(e.exit_code()).unwrap_or(Class::Usage.exit_code())
        }
        Ok(Invocation::Command(Command::Preflight { json })) => preflight(env, json).await,
        Ok(Invocation::Command(Command::Source(args))) => source(&args.flags, env).await,
        Ok(Invocation::Command(Command::Convert(args))) => convert(&args, &env).await,
        Ok(Invocation::Command(Command::Copy(args))) => {
            copy::run(&args, &pod::temp_base(&env)).await
        }
        Ok(Invocation::Command(Command::Thumbprint(args))) => {
            printed(trust::command::run(&args).await.map(|text| (text, None)))
        }
        Ok(Invocation::Command(Command::Vddk(VddkCommand::Probe(args)))) => {
            printed(vddk::command::run(&args).await)
        }
        Ok(Invocation::Command(Command::Bench(BenchCommand::Transports(args)))) => {
            let result = bench::run(&args, &env).await;
            if let Ok((_, Some(failure))) = &result {
                report_failure(failure);
            }
            printed(result)
        }
        Ok(Invocation::Pod(flags)) => pod_mode(&flags, env).await,
    }
}

/// Prints a report, or why there is none; the exit code.
fn printed(result: Result<(String, Option<Failure>), Failure>) -> u8 {
    match result {
        Ok((text, failure)) => {
            say(&mut io::stdout(), text.trim_end());
            failure.map_or(0, |f| f.class.exit_code())
        }
        Err(failure) => {
            report_failure(&failure);
            failure.class.exit_code()
        }
    }
}

/// The settings of pod mode; `Err` has the exit code, after everybody was told.
fn pod_config(flags: &[String], env: &BTreeMap<String, String>) -> Result<PodConfig, u8> {
    let values = Values::new(flags, env.clone());
    let termination_log = match &values {
        Ok(values) => values.get("V2V_terminationLog").map(PathBuf::from),
        Err(_) => env.get("V2V_terminationLog").map(PathBuf::from),
    };
    values.and_then(|values| PodConfig::parse(&values)).map_err(|e| {
        let class = if e.is_usage() { Class::Usage } else { Class::Config };
        let failure = Failure::new(class, e.to_string());
        report_failure(&failure);
        leave_word(&failure.termination_message(), termination_log.as_deref());
        failure.class.exit_code()
    })
}

/// To the file that was asked for, else to Kubernetes' own, where that is.
fn leave_word(text: &str, explicit: Option<&Path>) {
    write_termination_log(text, explicit.or(Some(Path::new(TERMINATION_LOG))), explicit.is_some());
}

/// The answer alone goes to stdout, and what was noticed on the way to stderr.
async fn source(flags: &[String], env: BTreeMap<String, String>) -> u8 {
    let config = match pod_config(flags, &env) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let mut report = Report::default();
    let asked = match Stop::on_signals() {
        Ok(stop) => pod::source::look(&config, &env, stop, &mut report).await,
        Err(e) => Err(Failure::new(Class::Internal, format!("cannot start signal handling: {e}"))),
    };
    say(&mut io::stderr(), report.to_text().trim_end());
    let log = config.runtime.termination_log.as_deref();
    match asked.and_then(|answer| Ok((answer.line()?, answer.document()))) {
        Ok((line, document)) => {
            say(&mut io::stdout(), &document);
            leave_word(&line, log);
            0
        }
        Err(failure) => {
            if report.failure().is_none() {
                report_failure(&failure);
            }
            leave_word(&failure.termination_message(), log);
            failure.class.exit_code()
        }
    }
}

async fn pod_mode(flags: &[String], env: BTreeMap<String, String>) -> u8 {
    let config = match pod_config(flags, &env) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let session =
        match Session::start(config.runtime.log_format, true, config.runtime.ports, &env).await {
            Ok(session) => session,
            Err(code) => return code,
        };
    let result = pod::run(&config, &env, &session.bus, &session.stop).await;
    let explicit = config.runtime.termination_log.as_deref();
    session.end(&result, explicit.or(Some(Path::new(TERMINATION_LOG))), explicit.is_some()).await
}

async fn convert(args: &ConvertArgs, env: &BTreeMap<String, String>) -> u8 {
    let ports = Ports { metrics: args.metrics_port, live: args.live_port, result: 0 };
    let session = match Session::start(args.log_format, args.verbose, ports, env).await {
        Ok(session) => session,
        Err(code) => return code,
    };
    let result = local::run(args, env, &session.bus, &session.stop).await;
    let bus = session.bus.clone();
    let ended = result.as_ref().map(|_| ()).map_err(Clone::clone);
    let code = session.end(&ended, None, false).await;
    if let Ok(outcome) = result {
        summarize(&outcome, &bus);
    }
    code
}

/// What a person wants to know at the end.
fn summarize(outcome: &Outcome, bus: &Bus) {
    let mut out = io::stdout();
    say(&mut out, "\nConverted. The result:");
    for (index, disk) in outcome.disks.iter().enumerate() {
        say(&mut out, &format!("  disk {index}  {}", disk.display()));
    }
    for file in &outcome.files {
        say(&mut out, &format!("  file    {}", file.display()));
    }
    let snapshot = bus.snapshot();
    let times: Vec<String> = snapshot
        .durations_ms(snapshot.updated_ms)
        .into_iter()
        .filter(|(phase, _)| !phase.is_final())
        .map(|(phase, ms)| format!("{} {}.{} s", phase.as_str(), ms / 1000, ms % 1000 / 100))
        .collect();
    say(&mut out, &format!("Time: {}", times.join(", ")));
}

async fn preflight(env: BTreeMap<String, String>, json: bool) -> u8 {
    let in_pod = ["V2V_source", "V2V_inPlace"].iter().any(|v| env.contains_key(*v));
    let result = if in_pod {
        let config = Values::new(&[], env.clone()).and_then(|values| PodConfig::parse(&values));
        match config {
            Ok(config) => pod::preflight(&config, &env).await,
            Err(e) => Err(Failure::new(Class::Config, e.to_string())),
        }
    } else {
        local::preflight(&env).await
    };
    match result {
        Err(failure) => {
            report_failure(&failure);
            failure.class.exit_code()
        }
        Ok(report) => {
            let text = if json {
                serde_json::to_string_pretty(&report).unwrap_or_default()
            } else {
                report.to_text()
            };
            say(&mut io::stdout(), text.trim_end());
            report.failure().map_or(0, |f| f.class.exit_code())
        }
    }
}

/// What runs beside the flow: log, terminal, servers, signals.
struct Session {
    bus: Bus,
    stop: Stop,
    logging: Logging,
    terminal: Option<Terminal>,
    servers: JoinSet<()>,
    closing: watch::Sender<bool>,
}

impl Session {
    /// `Err` carries the exit code when not even this works.
    async fn start(
        format: LogFormat,
        verbose: bool,
        ports: Ports,
        env: &BTreeMap<String, String>,
    ) -> Result<Self, u8> {
        let failed = |what: &str, e: &io::Error| {
            let failure = Failure::new(Class::Internal, format!("cannot start {what}: {e}"));
            report_failure(&failure);
            failure.class.exit_code()
        };
        let bus = Bus::default();
        let style = style(format);
        let (lines, shown) = mpsc::sync_channel(TERMINAL_LINES);
        let sender = (style == Style::Terminal).then_some(lines);
        let logging = Logging::start(style, verbose, pod::temp_base(env), sender)
            .map_err(|e| failed("the log", &e))?;
        let terminal = (style == Style::Terminal).then(|| Terminal::start(bus.clone(), shown));
        let stop = Stop::on_signals().map_err(|e| failed("signal handling", &e))?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "v2v-pod");
        let mut session = Self {
            bus,
            stop,
            logging,
            terminal,
            servers: JoinSet::new(),
            closing: watch::channel(false).0,
        };
        session.open_ports(ports).await;
        Ok(session)
    }

    /// A port that is taken is a pity, not a reason to fail a conversion.
    async fn open_ports(&mut self, ports: Ports) {
        let (bus, cancel) = (self.bus.clone(), self.closed());
        if let Some(listener) = listen(ports.metrics, "metrics").await {
            self.servers.spawn(async move {
                log_end("metrics", metrics::serve(listener, bus, cancel).await);
            });
        }
        let (bus, cancel) = (self.bus.clone(), self.closed());
        if let Some(listener) = listen(ports.live, "live page").await {
            self.servers.spawn(async move {
                log_end("live page", live::serve(listener, bus, cancel).await);
            });
        }
    }

    fn closed(&self) -> impl Future<Output = ()> + use<> {
        let mut closing = self.closing.subscribe();
        async move {
            // An error means that the session is gone, which is a reason to close as well.
            let _ = closing.wait_for(|closed| *closed).await;
        }
    }

    /// Tells everybody how it ended, and waits for them within bounds.
    async fn end(
        mut self,
        result: &Result<(), Failure>,
        termination_log: Option<&Path>,
        create: bool,
    ) -> u8 {
        let code = result.as_ref().map_or_else(|f| f.class.exit_code(), |()| 0);
        if let Err(failure) = result {
            tracing::error!(class = failure.class.name(), advice = failure.advice, "{failure}");
            write_termination_log(&failure.termination_message(), termination_log, create);
        } else {
            let s = self.bus.snapshot();
            let text = success_message(s.transport, s.trust, s.warnings.len());
            write_termination_log(&text, termination_log, create);
        }
        let reason = result.as_ref().err().map(|f| f.class.name());
        self.bus.emit(&Event::Finished { exit_code: code, reason });
        self.closing.send_replace(true);
        while self.servers.join_next().await.is_some() {}
        if let Some(terminal) = self.terminal {
            terminal.finish();
        }
        self.logging.finish();
        code
    }
}

fn style(format: LogFormat) -> Style {
    match format {
        LogFormat::Plain => Style::Plain,
        LogFormat::Human => Style::Terminal,
        LogFormat::Auto if io::stderr().is_terminal() => Style::Terminal,
        LogFormat::Json | LogFormat::Auto => Style::Json,
    }
}

async fn listen(port: u16, what: &str) -> Option<TcpListener> {
    if port == 0 {
        return None;
    }
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    };
    match listener {
        Ok(listener) => Some(listener),
        Err(e) => {
            tracing::warn!(port, error = %e, "no {what}: the port is not free");
            None
        }
    }
}

fn log_end(what: &str, result: io::Result<()>) {
    if let Err(e) = result {
        tracing::warn!(error = %e, "the {what} ended");
    }
}

/// For failures before there is a log.
fn report_failure(failure: &Failure) {
    let mut err = io::stderr();
    say(&mut err, &format!("v2v-pod: {failure}"));
    say(&mut err, &format!("  try: {}", failure.advice));
}

/// Kubernetes mounts the file; it is not made where it is not wanted.
fn write_termination_log(text: &str, path: Option<&Path>, create: bool) {
    let Some(path) = path.filter(|p| create || p.exists()) else { return };
    if let Err(e) = std::fs::write(path, format!("{text}\n")) {
        tracing::warn!(path = %path.display(), error = %e, "no termination message");
    }
}

/// A closed pipe at the other end is the reader's choice, not an error.
fn say(out: &mut impl Write, text: &str) {
    let _ = writeln!(out, "{text}");
}
