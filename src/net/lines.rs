//! Messages that are lines of text, such as newline-delimited JSON, decoded without I/O: bytes in, lines out, whatever
//! the chunking.

use super::sse::{EVENT_LIMIT, Event, TooLarge};

/// The state between two pieces of a stream of lines.
#[derive(Debug)]
pub struct Decoder {
    line: Vec<u8>,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(EVENT_LIMIT)
    }
}

impl Decoder {
    /// A decoder at the beginning of a stream; no line may be larger than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { line: Vec::new(), limit }
    }

    /// Takes the next piece of the stream and hands every line that it completes to `take`, as an event without a
    /// name. A line ends with a line feed, or with a carriage return before it; blank ones are passed over.
    ///
    /// # Errors
    /// When a line is larger than the limit; the decoder is of no more use then.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(Event<'_>)) -> Result<(), TooLarge> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            self.within_limit(line.len())?;
            if self.line.is_empty() {
                hand(line, bytes.len(), &mut take);
            } else {
                self.line.extend_from_slice(line);
                hand(&self.line, bytes.len(), &mut take);
                self.line.clear();
            }
        }
        self.within_limit(bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// The stream is over: hands what stands in its last line, which need not have an end. Whoever reads it is told
    /// that something came after it, for its own bytes were there before the end was.
    pub fn end(&mut self, mut take: impl FnMut(Event<'_>)) {
        hand(&self.line, 1, &mut take);
        self.line.clear();
    }

    fn within_limit(&self, more: usize) -> Result<(), TooLarge> {
        if self.line.len() + more > self.limit { Err(TooLarge { limit: self.limit }) } else { Ok(()) }
    }
}

fn hand(line: &[u8], rest: usize, take: &mut impl FnMut(Event<'_>)) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if !line.trim_ascii().is_empty() {
        take(Event { name: &[], data: line, id: &[], rest });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<String> {
        let (mut decoder, mut lines) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.feed(piece, |event| lines.push(String::from_utf8_lossy(event.data).into_owned())).unwrap();
        }
        decoder.end(|event| lines.push(String::from_utf8_lossy(event.data).into_owned()));
        lines
    }

    #[test]
    fn lines_end_as_they_may_and_the_last_need_not() {
        assert_eq!(decode([&b"a\nb\r\n\n \r\nc"[..]]), ["a", "b", "c"]);
        assert_eq!(decode([&b"a\n"[..]]), ["a"]);
        assert_eq!(decode([&b""[..]]), [""; 0]);
        assert_eq!(decode([&b"half"[..], &b" and half\r"[..], &b"\nrest"[..]]), ["half and half", "rest"]);
    }

    #[test]
    fn what_comes_after_a_line_is_told() {
        let (mut decoder, mut rests) = (Decoder::default(), Vec::new());
        decoder.feed(b"a\nbc", |event| rests.push(event.rest)).unwrap();
        decoder.end(|event| rests.push(event.rest));
        decoder.end(|event| rests.push(event.rest));
        assert_eq!(rests, [2, 1]);
    }

    #[test]
    fn a_flood_without_an_end_is_refused() {
        for flood in [vec![b'x'; 101], [vec![b'x'; 101], b"\n".to_vec()].concat()] {
            assert_eq!(Decoder::new(100).feed(&flood, |_| {}), Err(TooLarge { limit: 100 }));
        }
        let mut decoder = Decoder::new(100);
        decoder.feed(&[b'x'; 60], |_| {}).unwrap();
        assert_eq!(decoder.feed(&[b'x'; 60], |_| {}), Err(TooLarge { limit: 100 }));
    }

    proptest! {
        #[test]
        fn chunking_does_not_matter(text in "[ab\r\n ]{0,60}", size in 1_usize..9) {
            prop_assert_eq!(decode(text.as_bytes().chunks(size)), decode([text.as_bytes()]));
        }
    }
}
