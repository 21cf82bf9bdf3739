//! The progress of nbdcopy: a bar on stderr, or `N/100` lines.

use super::args;
use crate::sys;
use datapath::progress::{Progress, get};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

const WIDTH: usize = 40;
const EVERY: Duration = Duration::from_millis(200);
const SPINNER: [char; 4] = ['▝', '▐', '▗', '▃'];

/// Shows progress until it is dropped.
pub async fn show(how: args::Progress, progress: Arc<Progress>) {
    let mut out: Box<dyn Write + Send> = match how {
        args::Progress::None => return std::future::pending().await,
        args::Progress::Bar => Box::new(std::io::stderr()),
        args::Progress::Lines(fd) => match sys::inherited(fd) {
            Ok(file) => Box::new(file),
            Err(_) => return std::future::pending().await,
        },
    };
    let mut last = None;
    for turn in 0_usize.. {
        let percent = percent(&progress);
        if how == args::Progress::Bar || last != Some(percent) {
            let _ = out.write_all(line(how, percent, turn).as_bytes());
            let _ = out.flush();
        }
        last = Some(percent);
        tokio::time::sleep(EVERY).await;
    }
}

/// The last line.
pub fn finish(how: args::Progress) {
    let _ = match how {
        args::Progress::None => Ok(()),
        args::Progress::Bar => {
            std::io::stderr().write_all(format!("█ 100% [{}]\n", "*".repeat(WIDTH)).as_bytes())
        }
        args::Progress::Lines(fd) => sys::inherited(fd).and_then(|mut f| f.write_all(b"100/100\n")),
    };
}

fn line(how: args::Progress, percent: usize, turn: usize) -> String {
    if how != args::Progress::Bar {
        return format!("{percent}/100\n");
    }
    let stars = percent * WIDTH / 100;
    let spinner = SPINNER[turn % SPINNER.len()];
    format!("{spinner} {percent:3}% [{}{}]\r", "*".repeat(stars), "-".repeat(WIDTH - stars))
}

/// Whole percent, below 100: only the end of the copy is 100.
fn percent(progress: &Progress) -> usize {
    let (done, size) = (u128::from(get(&progress.done)), u128::from(get(&progress.size)));
    usize::try_from((done * 100).checked_div(size).unwrap_or(0)).unwrap_or(0).min(99)
}
