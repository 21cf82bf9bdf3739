use super::*;
use std::os::unix::process::ExitStatusExt;

struct Run {
    lines: Vec<String>,
    messages: Vec<MachineMessage>,
    ended: Ended,
}

async fn bash(script: &str, stop: &Stop, grace: Duration) -> Run {
    let (mut lines, mut messages) = (Vec::new(), Vec::new());
    let env = [("PATH".into(), "/usr/bin:/bin".into()), ("ONLY".into(), "this".into())];
    let spec = Spec {
        program: Path::new("/bin/bash"),
        env: &env,
        dir: Path::new("/"),
        grace,
        messages: true,
        certificates: None,
    };
    let script = script.to_owned();
    let ended = run(
        &spec,
        |fd| ["-c".into(), script.replace("@FD", &fd.unwrap().to_string()).into()].into(),
        stop,
        |heard| match heard {
            Heard::Output(line, _) => lines.push(line.to_owned()),
            Heard::Message(message) => messages.push(message),
        },
    )
    .await
    .unwrap();
    Run { lines, messages, ended }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_last_line_after_twenty_thousand_is_heard() {
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo 'virt-v2v: error: last' >&2; exit 1";
    let run = bash(script, &Stop::default(), LONG).await;
    assert_eq!(run.lines.len(), 20_001);
    assert_eq!(run.lines.last().unwrap(), "virt-v2v: error: last");
    assert_eq!(run.ended.status.code(), Some(1));
}

#[tokio::test]
async fn messages_have_their_own_descriptor() {
    let run = bash(
        r#"echo '{"message":"m","timestamp":"t","type":"warning"}' >&@FD; echo out"#,
        &Stop::default(),
        LONG,
    )
    .await;
    assert_eq!(run.messages[0].message, "m");
    assert_eq!(run.lines, ["out"]);
}

#[tokio::test]
async fn the_environment_is_only_what_was_given() {
    let run = bash("env", &Stop::default(), LONG).await;
    let names: Vec<&str> =
        run.lines.iter().filter_map(|l| l.split_once('=')).map(|(k, _)| k).collect();
    assert!(
        names.contains(&"ONLY") && !names.contains(&"HOME") && !names.contains(&"CARGO"),
        "{names:?}"
    );
}

#[tokio::test]
async fn a_signal_is_passed_on_and_the_tool_may_clean_up() {
    let stop = Stop::default();
    stop.set(StopCause::Terminate);
    let run =
        bash("trap 'echo cleaned; exit 3' TERM; while :; do sleep 0.1; done", &stop, LONG).await;
    // The trap may not be set yet when the signal comes; then the shell just dies of it.
    assert!(run.ended.status.code() == Some(3) || run.ended.status.signal() == Some(15));
    assert_eq!(run.ended.stopped, Some(StopCause::Terminate));
}

#[tokio::test]
async fn a_tool_that_ignores_the_signal_is_killed_with_its_children() {
    let stop = Stop::default();
    let setter = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        setter.set(StopCause::Terminate);
    });
    let run = bash(
        "trap '' TERM; sleep 987654 & echo $!; while :; do sleep 0.1; done",
        &stop,
        Duration::from_millis(300),
    )
    .await;
    assert_eq!(run.ended.status.signal(), Some(9));
    let pid: i32 = run.lines[0].parse().unwrap();
    let gone =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z "));
    assert!(gone, "the child {pid} is still there");
}

#[tokio::test]
async fn a_child_that_keeps_the_pipe_open_does_not_hang_the_run() {
    let run = bash("sleep 987655 & echo started; exit 0", &Stop::default(), LONG).await;
    assert_eq!((run.lines, run.ended.status.code()), (vec!["started".to_owned()], Some(0)));
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let spec = Spec {
        program: Path::new("/nonexistent/tool"),
        env: &[],
        dir: Path::new("/"),
        grace: LONG,
        messages: false,
        certificates: None,
    };
    let error = run(&spec, |_| vec![], &Stop::default(), |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot start /nonexistent/tool");
}
