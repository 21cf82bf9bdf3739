use super::super::http::testing::{header, listener, request, run, status};
use super::*;
use crate::event;
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

fn described() -> event::Event {
    event::Event::Described {
        vm: "web01".into(),
        source: "ova",
        transport: "file",
        trust: "",
        targets: vec!["/dev/block0".into()],
    }
}

fn say(text: &str) -> event::Event {
    let severity = event::Severity::Info;
    event::Event::Message { severity, tool: "virt-v2v", text: text.to_owned() }
}

fn finished() -> event::Event {
    event::Event::Finished { exit_code: 0, reason: None }
}

/// Runs `client` against a server over a new bus.
fn with_server<C: Future<Output = ()>>(client: impl FnOnce(SocketAddr, Bus) -> C) {
    run(async {
        let (listener, address) = listener().await;
        let bus = Bus::default();
        serve(listener, bus.clone(), client(address, bus)).await.unwrap();
    });
}

/// An event stream as a browser sees it.
struct Viewer(BufReader<TcpStream>);

impl Viewer {
    /// Asks for the stream; `Err` with the status if it is refused.
    async fn open(to: SocketAddr) -> Result<Self, u16> {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: pod\r\n\r\n").await.unwrap();
        let mut viewer = Viewer(BufReader::new(stream));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(viewer.0.read_line(&mut head).await.unwrap(), 0, "{head}");
        }
        if status(&head) != 200 {
            return Err(status(&head));
        }
        assert_eq!(header(&head, "content-type"), Some("text/event-stream"));
        assert_eq!(header(&head, "cache-control"), Some("no-store"));
        Ok(viewer)
    }

    /// The next state; `None` when the stream has ended.
    async fn next(&mut self) -> Option<serde_json::Value> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await.unwrap() == 0 || line == "0\r\n" {
                return None;
            }
            // Chunk sizes and blank lines lie between the data lines.
            if let Some(json) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(json).unwrap());
            }
        }
    }
}

#[test]
fn the_page_is_self_contained_and_guarded() {
    with_server(|address, _| async move {
        let (head, body) = request(address, "GET", "/").await;
        assert_eq!(header(&head, "content-type"), Some("text/html; charset=utf-8"));
        assert!(header(&head, "content-security-policy").unwrap().contains("default-src 'none'"));
        for forbidden in ["http://", "https://", "src=", "url(", "innerHTML", "insertAdjacent"] {
            assert!(!body.contains(forbidden), "the page contains {forbidden}");
        }
        assert_eq!(status(&request(address, "POST", "/").await.0), 405);
        assert_eq!(status(&request(address, "GET", "/other").await.0), 404);
    });
}

#[test]
fn the_state_has_all_that_the_page_needs() {
    let mut s = Snapshot::default();
    s.apply(1_000, &event::Event::PhaseEntered(Phase::Copy));
    s.apply(1_000, &described());
    s.apply(1_000, &event::Event::DiskSize { disk: 0, bytes: 1000 });
    s.apply(1_000, &event::Event::DiskStarted { disk: 0, total: 1 });
    s.apply(2_000, &event::Event::DiskPercent { disk: 0, percent: 25.0 });
    let json: serde_json::Value = serde_json::from_str(&state_json(&s, 3_000)).unwrap();
    let expected = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "now_ms": 3000,
        "phase": "copy",
        "elapsed_ms": 2000,
        "durations": [{"phase": "copy", "ms": 2000}],
        "seconds_left": [3],
        "total": {"percent": 25.0, "done_bytes": 250, "size_bytes": 1000,
                  "rate_bytes_per_second": 250.0, "seconds_left": 3},
        "vm": "web01", "source": "ova", "transport": "file", "trust": "", "accelerator": "",
        "phases": [{"phase": "copy", "started_ms": 1000}],
        "disks": [{"target": "/dev/block0", "size_bytes": 1000, "percent": 25.0,
                   "done_bytes": 250, "rate_bytes_per_second": 250.0, "started_ms": 1000,
                   "finished_ms": null}],
        "messages": [], "warnings": [], "exit_code": null, "reason": null, "updated_ms": 2000,
    });
    assert_eq!(json, expected);
}

#[test]
fn the_state_is_served_as_json() {
    with_server(|address, bus| async move {
        bus.emit(&described());
        let (head, body) = request(address, "GET", "/state").await;
        assert_eq!(header(&head, "content-type"), Some("application/json"));
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(json["vm"], "web01");
    });
}

#[test]
fn streams_send_changes_and_end_after_the_final_state() {
    with_server(|address, bus| async move {
        let mut viewer = Viewer::open(address).await.unwrap();
        assert_eq!(viewer.next().await.unwrap()["vm"], "");
        bus.emit(&described());
        assert_eq!(viewer.next().await.unwrap()["vm"], "web01");
        bus.emit(&say("one\nline"));
        let state = viewer.next().await.unwrap();
        assert_eq!(state["messages"][0]["text"], "one\nline");
        bus.emit(&finished());
        let state = viewer.next().await.unwrap();
        assert_eq!((&state["phase"], &state["exit_code"]), (&"done".into(), &0.into()));
        assert_eq!(viewer.next().await, None);
        // Who comes late gets the final state as well.
        let mut late = Viewer::open(address).await.unwrap();
        assert_eq!(late.next().await.unwrap()["exit_code"], 0);
        assert_eq!(late.next().await, None);
    });
}

#[test]
fn changes_are_coalesced_to_four_a_second() {
    with_server(|address, bus| async move {
        let mut viewer = Viewer::open(address).await.unwrap();
        let began = Instant::now();
        let emitter = async {
            for i in 0..100 {
                bus.emit(&say(&i.to_string()));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            bus.emit(&finished());
        };
        let reader = async {
            let mut states = 0u32;
            let mut last = serde_json::Value::Null;
            while let Some(state) = viewer.next().await {
                states += 1;
                last = state;
            }
            (states, last)
        };
        let ((), (states, last)) = tokio::join!(emitter, reader);
        let allowed = u32::try_from(began.elapsed().as_millis() / 250).unwrap() + 1;
        assert!((3..=allowed).contains(&states), "{states} states, {allowed} allowed");
        assert_eq!(last["messages"].as_array().unwrap().last().unwrap()["text"], "99");
    });
}

#[test]
fn a_client_that_never_reads_slows_nobody_down() {
    with_server(|address, bus| async move {
        let mut deaf = TcpStream::connect(address).await.unwrap();
        deaf.write_all(b"GET /events HTTP/1.1\r\nHost: pod\r\n\r\n").await.unwrap();
        let mut viewer = Viewer::open(address).await.unwrap();
        viewer.next().await.unwrap();
        let long = "x".repeat(200_000);
        let mut slowest = Duration::ZERO;
        // Some 8 MB a state and a quarter of a second each: far more than a socket buffers.
        for i in 0..60 {
            let began = std::time::Instant::now();
            bus.emit(&say(&format!("{i} {long}")));
            slowest = slowest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bus.emit(&finished());
        assert!(slowest < Duration::from_millis(200), "{slowest:?}");
        let mut last = serde_json::Value::Null;
        while let Some(state) = viewer.next().await {
            last = state;
        }
        assert_eq!(last["exit_code"], 0);
        drop(deaf);
    });
}

#[test]
fn the_33rd_stream_is_refused_until_one_ends() {
    with_server(|address, bus| async move {
        let mut viewers = Vec::new();
        for _ in 0..MAX_STREAMS {
            let mut viewer = Viewer::open(address).await.unwrap();
            viewer.next().await.unwrap();
            viewers.push(viewer);
        }
        assert_eq!(Viewer::open(address).await.err(), Some(503));
        assert_eq!(status(&request(address, "GET", "/state").await.0), 200);
        viewers.pop();
        // The server notices a closed socket when it polls the connection.
        let again = async {
            loop {
                if let Ok(viewer) = Viewer::open(address).await {
                    return viewer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        viewers.push(again.await);
        bus.emit(&finished());
    });
}

#[test]
fn silent_streams_are_kept_alive() {
    run(async {
        let (listener, address) = listener().await;
        let router = router(Bus::default(), Duration::from_millis(50));
        let client = async {
            let mut viewer = Viewer::open(address).await.unwrap();
            viewer.next().await.unwrap();
            let mut line = String::new();
            while line != ": keep-alive\n" {
                line.clear();
                assert_ne!(viewer.0.read_line(&mut line).await.unwrap(), 0);
            }
        };
        http::serve(listener, router, client, GRACE).await.unwrap();
    });
}
