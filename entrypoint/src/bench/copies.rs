//! The arguments of the copiers that are compared. Pure.

use super::args::Tool;
use crate::serve_disks::lines::Files;
use std::path::Path;

/// Where disk `number` is copied to.
pub fn target(scratch: Option<&Path>, number: usize) -> String {
    scratch.map_or_else(
        || "null:".to_owned(),
        |dir| dir.join(format!("v2v-pod-bench{number}.raw")).to_string_lossy().into_owned(),
    )
}

/// The arguments of the processes that copy the first `count` disks together: nbdcopy one for each,
/// v2v-pod all in one.
pub fn copies(tool: Tool, files: &Files, scratch: Option<&Path>, count: usize) -> Vec<Vec<String>> {
    let pairs = (0..count).map(|n| [files.uri(n), target(scratch, n)]);
    match tool {
        Tool::Nbdcopy => pairs.map(|pair| [&["--flush".to_owned()][..], &pair].concat()).collect(),
        Tool::V2vPod => {
            let words = ["copy".to_owned(), "--quiet".to_owned()];
            vec![words.into_iter().chain(pairs.flatten()).collect()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files { folder: "/run/x".into() }
    }

    #[test]
    fn copies_are_one_process_for_nbdcopy_and_disk_and_one_for_v2v_pod() {
        let nbdcopy = copies(Tool::Nbdcopy, &files(), None, 2);
        assert_eq!(nbdcopy[1], ["--flush", "nbd+unix:///?socket=/run/x/in1", "null:"]);
        let ours = copies(Tool::V2vPod, &files(), Some(Path::new("/s")), 2);
        assert_eq!((ours.len(), ours[0].len()), (1, 6));
        assert_eq!(ours[0][5], "/s/v2v-pod-bench1.raw");
    }
}
