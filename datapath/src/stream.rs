//! Copies in strict order: from and to pipes, and for servers that cannot take many requests.

use crate::engine::Settings;
use crate::error::CopyError;
use crate::extent::Extent;
use crate::plan::{Piece, plan, split_zeroes};
use crate::progress::{Progress, add};
use crate::source::Source;
use crate::target::Target;
use bytes::BytesMut;
use std::io;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Failures of a pipe become I/O errors of a file with this name.
fn pipe_failed(what: &'static str, offset: u64, source: io::Error) -> CopyError {
    CopyError::Target(crate::target::TargetError::Io {
        target: "the pipe".into(),
        what,
        offset,
        length: 0,
        source,
    })
}

/// The pieces of a disk in order, handed to `each`.
async fn in_order<F>(source: &Source, settings: &Settings, mut each: F) -> Result<(), CopyError>
where
    F: AsyncFnMut(Piece) -> Result<(), CopyError>,
{
    let size = source.size();
    let mut at = 0;
    while at < size {
        let end = (at / settings.unit + 1).saturating_mul(settings.unit).min(size);
        let extents = whole_extents(source, settings, at, end).await;
        for piece in plan(at..end, &extents, settings.shape) {
            each(piece).await?;
        }
        at = end;
    }
    Ok(())
}

/// Extents of a part; a source that cannot tell them is read.
async fn whole_extents(source: &Source, settings: &Settings, start: u64, end: u64) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut at = start;
    while settings.extents && source.has_extents() && at < end {
        match source.extents(at..end, settings.shape.gap).await {
            Ok(more) if !more.is_empty() => {
                at = more.last().map_or(end, |e| e.end);
                extents.extend(more);
            }
            _ => break,
        }
    }
    extents
}

async fn read_chunk(source: &Source, start: u64, end: u64) -> Result<BytesMut, CopyError> {
    let length = usize::try_from(end - start).unwrap_or(0);
    Ok(source.read(start, crate::buffer::aligned(length)).await?)
}

/// Copies a disk one request after the other.
pub async fn disk_to_disk(
    source: &Source,
    target: &Target,
    settings: &Settings,
    progress: &Progress,
) -> Result<(), CopyError> {
    let size = source.size();
    progress.size.store(size, Ordering::Relaxed);
    target.prepare(size, true).await?;
    in_order(source, settings, async |piece| {
        let range = piece.range().clone();
        match piece {
            Piece::Zero(_) if target.known_zero() => {}
            Piece::Zero(_) => target.zero(range.start, range.end - range.start).await?,
            Piece::Chunk { .. } => {
                let data = read_chunk(source, range.start, range.end).await?;
                let runs = split_zeroes(&data, settings.sparse);
                target.write_runs(range.start, data, runs).await?;
            }
        }
        add(&progress.done, range.end - range.start);
        Ok(())
    })
    .await?;
    if settings.flush {
        target.flush().await?;
    }
    Ok(())
}

/// Writes a disk into a pipe.
pub async fn disk_to_pipe(
    source: &Source,
    pipe: &mut (impl AsyncWrite + Unpin),
    settings: &Settings,
    progress: &Progress,
) -> Result<(), CopyError> {
    progress.size.store(source.size(), Ordering::Relaxed);
    let zeroes = vec![0; 1 << 16];
    in_order(source, settings, async |piece| {
        let range = piece.range().clone();
        let failed = |e| pipe_failed("write", range.start, e);
        match piece {
            Piece::Zero(_) => {
                let mut left = range.end - range.start;
                while left > 0 {
                    let step = usize::try_from(left).unwrap_or(usize::MAX).min(zeroes.len());
                    pipe.write_all(&zeroes[..step]).await.map_err(failed)?;
                    left -= step as u64;
                }
            }
            Piece::Chunk { .. } => {
                let data = read_chunk(source, range.start, range.end).await?;
                pipe.write_all(&data).await.map_err(failed)?;
            }
        }
        add(&progress.done, range.end - range.start);
        Ok(())
    })
    .await?;
    pipe.flush().await.map_err(|e| pipe_failed("write", source.size(), e))
}

/// Copies a pipe to its end. `room` is what the target can take, `None` if it grows.
pub async fn pipe_to_disk(
    pipe: &mut (impl AsyncRead + Unpin),
    target: &Target,
    settings: &Settings,
    progress: &Progress,
) -> Result<u64, CopyError> {
    if let Target::File(file) = target
        && file.kind() == crate::target::Kind::Regular
    {
        target.prepare(0, true).await?;
    }
    let chunk = usize::try_from(settings.shape.chunk).unwrap_or(1 << 18);
    let mut at = 0_u64;
    loop {
        let mut data = crate::buffer::aligned(chunk);
        let mut filled = 0;
        while filled < chunk {
            match pipe.read(&mut data[filled..]).await {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) => return Err(pipe_failed("read", at + filled as u64, e)),
            }
        }
        if filled == 0 {
            break;
        }
        data.truncate(filled);
        let end = at + filled as u64;
        if let Some(room) = target.room()
            && end > room
        {
            let target = target.name();
            return Err(crate::target::TargetError::TooSmall { target, room, size: end }.into());
        }
        let runs = split_zeroes(&data, settings.sparse);
        target.write_runs(at, data, runs).await?;
        at = end;
        progress.size.store(at, Ordering::Relaxed);
        add(&progress.done, filled as u64);
    }
    // A hole at the end has no bytes that would make the file longer.
    if let Target::File(file) = target
        && file.kind() == crate::target::Kind::Regular
    {
        target.prepare(at, false).await?;
    }
    if settings.flush {
        target.flush().await?;
    }
    Ok(at)
}
