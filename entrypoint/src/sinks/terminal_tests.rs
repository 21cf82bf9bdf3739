use super::*;
use crate::event::{Event, Phase};
use indicatif::TermLike;
use std::io;
use std::sync::Mutex;
use std::time::Instant;

/// A terminal that keeps what is written, or that is stopped and never takes a byte.
#[derive(Debug, Clone, Default)]
struct FakeTerm {
    written: Arc<Mutex<String>>,
    stopped: bool,
}

impl FakeTerm {
    fn write(&self, text: &str) {
        if self.stopped {
            loop {
                thread::park();
            }
        }
        self.written.lock().unwrap().push_str(text);
    }
}

impl TermLike for FakeTerm {
    fn width(&self) -> u16 {
        110
    }
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write(&format!("{text}\n"));
        Ok(())
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        self.write(text);
        Ok(())
    }
    fn clear_line(&self) -> io::Result<()> {
        self.write("\r");
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

fn start(term: &FakeTerm, bus: &Bus) -> (Terminal, mpsc::Sender<String>) {
    let (lines, receiver) = mpsc::channel();
    let term = term.clone();
    let target = move || ProgressDrawTarget::term_like(Box::new(term));
    (Terminal::start_on(bus.clone(), receiver, target), lines)
}

#[test]
fn the_final_state_and_every_line_are_on_the_screen() {
    let (term, bus) = (FakeTerm::default(), Bus::default());
    let (terminal, lines) = start(&term, &bus);
    bus.emit(&Event::PhaseEntered(Phase::Copy));
    bus.emit(&Event::Described {
        vm: "web\u{1b}01".into(),
        source: "vsphere",
        transport: "vddk",
        trust: "ca",
        targets: vec!["/dev/block0".into(), "/dev/block1".into()],
    });
    bus.emit(&Event::DiskSize { disk: 0, bytes: 10 << 30 });
    bus.emit(&Event::DiskStarted { disk: 0, total: 2 });
    bus.emit(&Event::DiskPercent { disk: 0, percent: 50.0 });
    for i in 0..2000 {
        lines.send(format!("line {i}\n")).unwrap();
    }
    bus.emit(&Event::Finished { exit_code: 35, reason: Some("io") });
    terminal.finish();
    assert!(lines.send(String::new()).is_err(), "nobody reads any more");
    let screen = term.written.lock().unwrap().clone();
    let last = screen.rsplit("line 1999").next().unwrap();
    for wanted in [
        "failed after 0s (io, exit code 35): web\u{fffd}01 from vsphere over vddk, 25%",
        "disk 0 (/dev/block0) [=",
        "] 50%",
    ] {
        assert!(last.contains(wanted), "{wanted:?} is not in {last:?}");
    }
    assert!(screen.contains("line 0") && !screen.contains("/dev/block1"), "{screen}");
}

#[test]
fn a_stopped_terminal_delays_the_end_by_two_seconds_at_most() {
    let (term, bus) = (FakeTerm { stopped: true, ..FakeTerm::default() }, Bus::default());
    let (terminal, lines) = start(&term, &bus);
    lines.send("a line".to_owned()).unwrap();
    bus.emit(&Event::PhaseEntered(Phase::Copy));
    let began = Instant::now();
    terminal.finish();
    assert!(began.elapsed() < FINISH + Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn the_header_tells_phase_time_and_guest() {
    let mut s = Snapshot::default();
    assert_eq!(header_line(&s, 0), "starting");
    s.apply(0, &Event::PhaseEntered(Phase::Preflight));
    assert_eq!(header_line(&s, 5_000), "preflight, 5s");
    s.apply(
        5_000,
        &Event::Described {
            vm: "web01".into(),
            source: "ova",
            transport: "file",
            trust: "",
            targets: vec!["/dev/block0".into()],
        },
    );
    s.apply(5_000, &Event::PhaseEntered(Phase::Copy));
    s.apply(5_000, &Event::DiskStarted { disk: 0, total: 1 });
    assert_eq!(header_line(&s, 65_000), "copy, 1m 05s: web01 from ova over file");
    s.apply(70_000, &Event::Finished { exit_code: 0, reason: None });
    assert_eq!(header_line(&s, 99_000), "done in 1m 10s: web01 from ova over file");
}
