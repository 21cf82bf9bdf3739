//! What must hold in every case, whatever was recorded.

use crate::cases::Case;
use crate::compare::{Diffs, Run};
use crate::records::Record;

/// Nothing listens on 8080 while tools run, and the stand-ins themselves worked.
pub fn ports(run: &Run, diffs: &mut Diffs) {
    for record in &run.records {
        match record {
            Record::Early8080(tool) => {
                diffs.text("port 8080", "closed".into(), format!("open while {tool} runs"));
            }
            Record::Broken(what) => diffs.text("stand-in", "works".into(), what.clone()),
            Record::Call(_) => {}
        }
    }
}

/// No child knows the pod's `V2V_*` variables (`envFrom` puts the password in there), and no secret is in any
/// child's argv or environment, nor in anything the pod says.
pub fn secrets(case: &Case, run: &Run, diffs: &mut Diffs) {
    for call in run.all_calls() {
        let tool = &call.argv[0];
        let inherited: Vec<_> = call.env.keys().filter(|k| k.starts_with("V2V_")).collect();
        if !inherited.is_empty() {
            diffs.text(
                format!("environment of {tool}"),
                "no V2V_*".into(),
                format!("{inherited:?}"),
            );
        }
        for secret in case.secrets() {
            if call.argv.iter().any(|w| w.contains(&secret)) {
                diffs.text(
                    format!("argv of {tool}"),
                    "no secret".into(),
                    format!("{:?}", call.argv),
                );
            }
            for (name, value) in call.env.iter().filter(|(_, v)| v.contains(&secret)) {
                let seen = format!("{name}={value}");
                diffs.text(format!("environment of {tool}"), "no secret".into(), seen);
            }
        }
    }
    for secret in case.secrets() {
        let said = [("output", &run.output), ("termination message", &run.observed.termination)];
        for (what, text) in said {
            if let Some(line) = text.lines().find(|l| l.contains(&secret)) {
                diffs.text(format!("the pod's {what}"), "no secret".into(), line.to_owned());
            }
        }
    }
}
