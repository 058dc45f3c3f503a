//! Server-sent events, decoded without I/O: bytes in, events out, whatever the chunking.
//!
//! Follows "Interpreting an event stream" of the HTML standard, section 9.2.6; data stays bytes,
//! since who reads it knows what it should be.

/// The most bytes that one event may have by default.
pub const EVENT_LIMIT: usize = 1 << 20;

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The event type; empty where the stream names none, which means `message`.
    pub name: &'a [u8],
    /// The data lines, joined with line feeds.
    pub data: &'a [u8],
    /// The last event id seen so far.
    pub id: &'a [u8],
    /// Bytes of the same piece that come after it.
    pub rest: usize,
}

/// An event or a line is larger than the limit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an event is larger than {limit} bytes")]
pub struct TooLarge {
    /// The limit.
    pub limit: usize,
}

/// The state between two pieces of a stream.
#[derive(Debug)]
pub struct Decoder {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    name: Vec<u8>,
    id: Vec<u8>,
    /// Whether an id has come that no complete event has had yet.
    id_is_new: bool,
    /// The id of the newest complete event.
    last_id: Vec<u8>,
    retry_ms: Option<u64>,
    after_return: bool,
    at_start: bool,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(EVENT_LIMIT)
    }
}

impl Decoder {
    /// A decoder at the beginning of a stream; no event may be larger than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            name: Vec::new(),
            id: Vec::new(),
            id_is_new: false,
            last_id: Vec::new(),
            retry_ms: None,
            after_return: false,
            at_start: true,
            limit,
        }
    }

    /// A decoder of the stream that goes on where this one broke off: it knows the newest id and the reconnection time.
    pub fn again(&self) -> Self {
        let (id, last_id) = (self.last_id.clone(), self.last_id.clone());
        Self { id, last_id, retry_ms: self.retry_ms, ..Self::new(self.limit) }
    }

    /// The id of the newest complete event, as `Last-Event-ID` has it; empty where none had one. An id whose event
    /// broke off is none: that event would never come again.
    pub fn last_id(&self) -> &[u8] {
        &self.last_id
    }

    /// The reconnection time in milliseconds that the stream has set, if any.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Takes the next piece of the stream and hands every event that it completes to `take`.
    ///
    /// # Errors
    /// When an event is larger than the limit; the decoder is of no more use then.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(Event<'_>)) -> Result<(), TooLarge> {
        if self.after_return && !bytes.is_empty() {
            // A line feed after a carriage return belongs to the same line end.
            self.after_return = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            let line = &bytes[..end];
            let returned = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if returned {
                self.after_return = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            if let Some(data) = self.whole_event(line, bytes) {
                bytes = &bytes[1..];
                self.within_limit(data.len())?;
                self.note_id();
                take(Event { name: &self.name, data, id: &self.id, rest: bytes.len() });
                self.name.clear();
            } else if self.line.is_empty() {
                self.take_line(line, bytes.len(), &mut take)?;
            } else {
                self.line.extend_from_slice(line);
                let mut whole = std::mem::take(&mut self.line);
                self.take_line(&whole, bytes.len(), &mut take)?;
                whole.clear();
                self.line = whole;
            }
        }
        self.line.extend_from_slice(bytes);
        self.within_limit(self.line.len())
    }

    /// The data of an event that has no other line and is complete with this one: nearly every token comes so, and is
    /// read where it lies.
    fn whole_event<'a>(&self, line: &'a [u8], after: &[u8]) -> Option<&'a [u8]> {
        let data = line.strip_prefix(b"data:")?;
        let alone = self.line.is_empty() && !self.has_data && !self.at_start && after.first() == Some(&b'\n');
        alone.then(|| data.strip_prefix(b" ").unwrap_or(data))
    }

    fn within_limit(&self, more: usize) -> Result<(), TooLarge> {
        if self.data.len() + more > self.limit { Err(TooLarge { limit: self.limit }) } else { Ok(()) }
    }

    fn take_line(&mut self, mut line: &[u8], rest: usize, take: &mut impl FnMut(Event<'_>)) -> Result<(), TooLarge> {
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(rest, take);
            return Ok(());
        }
        self.within_limit(line.len())?;
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => value.clone_into(&mut self.name),
            b"id" if !value.contains(&0) => {
                value.clone_into(&mut self.id);
                self.id_is_new = true;
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry_ms = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            }
            _ => {}
        }
        Ok(())
    }

    /// An event is complete: its id is the newest.
    fn note_id(&mut self) {
        if std::mem::take(&mut self.id_is_new) {
            self.last_id.clone_from(&self.id);
        }
    }

    fn dispatch(&mut self, rest: usize, take: &mut impl FnMut(Event<'_>)) {
        self.note_id();
        if std::mem::take(&mut self.has_data) {
            take(Event { name: &self.name, data: &self.data, id: &self.id, rest });
            self.data.clear();
        }
        self.name.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<(String, String, String)> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for piece in pieces {
            decoder.feed(piece, |event| events.push((text(event.name), text(event.data), text(event.id)))).unwrap();
        }
        events
    }

    #[test]
    fn the_standard_s_corners() {
        for (stream, expected) in [
            ("data: a\n\ndata:b\n\n", vec![("", "a", ""), ("", "b", "")]),
            ("data: a\rdata: b\r\rdata: c\r\n\r\n", vec![("", "a\nb", ""), ("", "c", "")]),
            ("\u{feff}data: a\n\n", vec![("", "a", "")]),
            (": comment\nevent: x\n\ndata: a\n\n", vec![("", "a", "")]),
            ("event: x\ndata\n\n", vec![("x", "", "")]),
            ("id: 7\ndata: a\n\ndata: b\n\nid\ndata: c\n\n", vec![("", "a", "7"), ("", "b", "7"), ("", "c", "")]),
            ("data:  two\n\n", vec![("", " two", "")]),
            ("data: never finished\n", vec![]),
        ] {
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(name, data, id)| (name.to_owned(), data.to_owned(), id.to_owned()))
                .collect();
            assert_eq!(decode(&[stream.as_bytes()]), expected, "{stream:?}");
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(decode(&bytes), expected, "{stream:?} byte by byte");
        }
    }

    #[test]
    fn a_stream_goes_on_from_the_newest_event_that_was_complete() {
        let mut decoder = Decoder::default();
        decoder.feed(b"retry: 70\nid: 1\ndata: a\n\nid: 2\ndata: b\n", |_| {}).unwrap();
        assert_eq!(decoder.last_id(), b"1");
        let mut again = decoder.again();
        assert_eq!((again.last_id(), again.retry_ms()), (&b"1"[..], Some(70)));
        let mut ids = Vec::new();
        again.feed(b"data: b\n\nid: 3\n\ndata: c\n\n", |event| ids.push(event.id.to_vec())).unwrap();
        assert_eq!(ids, [b"1", b"3"]);
        assert_eq!(again.last_id(), b"3");
        again.feed(b"id\n\n", |_| {}).unwrap();
        assert_eq!(again.last_id(), b"");
    }

    #[test]
    fn retry_wants_digits() {
        let mut decoder = Decoder::default();
        decoder.feed(b"retry: 12x\n\n", |_| {}).unwrap();
        assert_eq!(decoder.retry_ms(), None);
        decoder.feed(b"retry: 1200\n\n", |_| {}).unwrap();
        assert_eq!(decoder.retry_ms(), Some(1_200));
    }

    #[test]
    fn a_flood_without_an_end_is_refused() {
        let mut decoder = Decoder::new(100);
        assert_eq!(decoder.feed(&[b'x'; 101], |_| {}), Err(TooLarge { limit: 100 }));
        let mut decoder = Decoder::new(100);
        let flood = b"data: 0123456789\n".repeat(20);
        assert_eq!(decoder.feed(&flood, |_| {}), Err(TooLarge { limit: 100 }));
    }
}
