//! Cuts a byte stream into lines, with bounded memory whatever the stream holds.
//!
//! virt-v2v's progress bars end in `\r`, its messages in `\n`, and a guest may make it print lines
//! of any length and any bytes.

/// A longer line is handed out in pieces of this size; nothing is lost, memory stays bounded.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// How a piece ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `\n`, or the end of the stream.
    Newline,
    /// `\r`: a progress bar that the next one overwrites.
    CarriageReturn,
    /// The line is longer than [`MAX_LINE_BYTES`]; the next piece goes on with it.
    Cut,
}

/// The cutter.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes and hands out every piece that is complete.
    pub fn push(&mut self, mut bytes: &[u8], mut piece: impl FnMut(&str, End)) {
        while let Some(at) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let end = if bytes[at] == b'\n' { End::Newline } else { End::CarriageReturn };
            self.extend(&bytes[..at], &mut piece);
            self.flush(end, &mut piece);
            bytes = &bytes[at + 1..];
        }
        self.extend(bytes, &mut piece);
    }

    /// Hands out what is left when the stream ends.
    pub fn finish(&mut self, mut piece: impl FnMut(&str, End)) {
        self.flush(End::Newline, &mut piece);
    }

    fn extend(&mut self, mut bytes: &[u8], piece: &mut impl FnMut(&str, End)) {
        while self.partial.len() + bytes.len() > MAX_LINE_BYTES {
            let room = MAX_LINE_BYTES - self.partial.len();
            self.partial.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
            self.flush(End::Cut, piece);
        }
        self.partial.extend_from_slice(bytes);
    }

    fn flush(&mut self, end: End, piece: &mut impl FnMut(&str, End)) {
        if !self.partial.is_empty() {
            piece(&String::from_utf8_lossy(&self.partial), end);
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(chunks: &[&[u8]]) -> Vec<(String, End)> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |t, e| out.push((t.to_owned(), e)));
        }
        lines.finish(|t, e| out.push((t.to_owned(), e)));
        out
    }

    #[test]
    fn lines_and_bars_are_told_apart() {
        let out = cut(&[b"a\nb", b"c\r 5% []\rlast"]);
        let want = [
            ("a", End::Newline),
            ("bc", End::CarriageReturn),
            (" 5% []", End::CarriageReturn),
            ("last", End::Newline),
        ];
        assert_eq!(out, want.map(|(t, e)| (t.to_owned(), e)));
    }

    #[test]
    fn a_huge_line_comes_whole_in_pieces() {
        let huge = vec![b'x'; MAX_LINE_BYTES * 3 + 7];
        let out = cut(&[&huge, b"\n"]);
        assert_eq!(out.len(), 4);
        assert_eq!(out[0].1, End::Cut);
        assert_eq!(out.iter().map(|(t, _)| t.len()).sum::<usize>(), huge.len());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_it_is_chunked(text in "[a-z\r\n]{0,300}", at in prop::collection::vec(0usize..300, 0..5)) {
            let mut cuts: Vec<usize> = at.into_iter().map(|i| i.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &text.as_bytes()[w[0]..w[1]]).collect();
            let whole: Vec<&str> = text.split(['\r', '\n']).filter(|s| !s.is_empty()).collect();
            let cut = cut(&chunks);
            prop_assert_eq!(cut.iter().map(|(t, _)| t.as_str()).collect::<Vec<_>>(), whole);
        }
    }
}
