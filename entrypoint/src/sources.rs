//! Local disk images as sources: format, size, and what they must not point at.

use crate::failure::{Class, Failure};
use crate::guest::image::{
    HEADER_LEN, ImageError, ImageFormat, ImageInfo, decide_format, refuse_external,
};
use crate::toolbox::Toolbox;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reading a header takes milliseconds; a network file system may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// The common format of all images and the virtual size of each, in order.
pub async fn measure_all(
    toolbox: &Toolbox,
    paths: &[PathBuf],
    explicit: Option<ImageFormat>,
    allow_backing: bool,
) -> Result<(ImageFormat, Vec<u64>), Failure> {
    let mut common: Option<(ImageFormat, &Path)> = None;
    let mut sizes = Vec::new();
    for path in paths {
        let (format, size) = measure(toolbox, path, explicit, allow_backing).await?;
        sizes.push(size);
        if let Some((other, first)) = common.filter(|(f, _)| *f != format) {
            let message = format!(
                "{} is {other}, but {} is {format}: one run converts images of one format",
                first.display(),
                path.display()
            );
            return Err(Failure::new(Class::Config, message)
                .advise("convert them to one format first, e.g. with `qemu-img convert -O raw`"));
        }
        common = Some((format, path));
    }
    Ok((common.map_or(ImageFormat::Raw, |(f, _)| f), sizes))
}

async fn measure(
    toolbox: &Toolbox,
    path: &Path,
    explicit: Option<ImageFormat>,
    allow_backing: bool,
) -> Result<(ImageFormat, u64), Failure> {
    let (header, is_block) = read_header(path)?;
    let format = decide_format(path, explicit, &header, is_block).map_err(|e| {
        // Without a known header it may just be empty; another format's header is a trap.
        let unknown = matches!(e, ImageError::NotAsNamed { found: None, .. });
        let class = if unknown { Class::Io } else { Class::Config };
        Failure::new(class, e.to_string()).advise("name the true format with --format")
    })?;
    let name = path.to_string_lossy();
    let args = ["info", "--output=json", "-f", format.as_str(), &name];
    let (status, text) = toolbox.ask("qemu-img", &args, LIMIT).await.ok_or_else(|| {
        Failure::new(
            Class::Tool,
            format!(
                "qemu-img is not installed or does not answer: {} cannot be measured",
                path.display()
            ),
        )
    })?;
    if !status.success() {
        return Err(Failure::new(
            Class::Io,
            format!("{} cannot be read as {format}: {}", path.display(), text.trim()),
        ));
    }
    let start = text.find('{').unwrap_or(0);
    let info = ImageInfo::parse(&text.as_bytes()[start..])
        .map_err(|e| Failure::new(Class::Io, format!("{}: {e}", path.display())))?;
    refuse_external(&info, allow_backing).map_err(|e| {
        Failure::new(Class::Config, e.to_string()).advise("flatten the image with `qemu-img convert`, or allow it with --allow-backing if you trust it")
    })?;
    Ok((format, info.virtual_size))
}

fn read_header(path: &Path) -> Result<(Vec<u8>, bool), Failure> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Failure::new(Class::NotFound, not_found(path))
            .advise("check the path of the source disk"),
        _ => Failure::new(Class::Io, format!("{} cannot be read: {e}", path.display())),
    };
    let file = File::open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(Failure::new(
            Class::Config,
            format!("{} is neither a file nor a block device", path.display()),
        ));
    }
    let mut header = Vec::new();
    file.take(HEADER_LEN as u64).read_to_end(&mut header).map_err(failed)?;
    Ok((header, kind.is_block_device()))
}

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

    #[test]
    fn a_folder_is_no_disk() {
        assert_eq!(read_header(Path::new("/")).unwrap_err().class, Class::Config);
        assert_eq!(read_header(Path::new("/nonexistent")).unwrap_err().class, Class::NotFound);
    }
}
