//! Local sources; images are in [`measure`].

pub mod answer;
mod extents;
pub mod measure;

use std::path::Path;

/// `path does not exist`, with what is in the folder instead.
pub fn not_found(path: &Path) -> String {
    let shown = path.display();
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(dir) else {
        return format!("{shown} does not exist, nor does its folder");
    };
    let mut names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).take(20).collect();
    names.sort();
    let inside = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    format!("{shown} does not exist; its folder has: {inside}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_path_says_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("real.ova"), b"").unwrap();
        assert!(not_found(&dir.path().join("x.ova")).ends_with("its folder has: real.ova"));
        assert!(not_found(Path::new("/nonexistent/x")).contains("nor does its folder"));
    }
}
