//! From bytes to messages, without I/O: frames are put together, inflated and checked (RFC 6455, 5.4 to 8.1).

use std::cell::Cell;
use std::ops::ControlFlow;

use super::deflate::Inflater;
use super::frame::{self, HEAD, Head, Opcode, Violation};

/// The most room that is kept for the next message that does not come in one piece.
const KEPT: usize = 1 << 10;
/// The most room that a thread keeps for what is inflated.
const KEPT_INFLATED: usize = 256 << 10;

thread_local! {
    /// Where a thread's messages are inflated: each is used at once.
    static INFLATED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What has come, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping. Its pong is already on its way.
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong(&'a [u8]),
    /// The server closes; nothing comes after it. It is already being answered.
    Close {
        /// Why, by number (RFC 6455, 7.4), where it says so.
        code: Option<u16>,
        /// Why, in its words, which may be none.
        reason: &'a str,
    },
}

/// The state between two pieces of what a server sends.
pub(super) struct Decoder {
    /// The most bytes of a message, as it came and inflated.
    limit: usize,
    /// Where compression was agreed on.
    inflater: Option<Inflater>,
    /// The beginning of a head.
    head: Vec<u8>,
    /// The frame that is being read, and how many bytes of it are still to come.
    frame: Option<(Head, usize)>,
    /// What has come of a control frame's payload.
    control: Vec<u8>,
    /// What the message is that has begun, and whether it is compressed.
    begun: Option<(Opcode, bool)>,
    /// What has come of it.
    message: Vec<u8>,
    /// Whether the server has closed.
    closed: bool,
}

impl Decoder {
    /// At the beginning of a connection.
    pub(super) fn new(limit: usize, inflater: Option<Inflater>) -> Self {
        Self {
            limit,
            inflater,
            head: Vec::new(),
            frame: None,
            control: Vec::new(),
            begun: None,
            message: Vec::new(),
            closed: false,
        }
    }

    /// Takes the next bytes and hands every message that they complete to `take`, with how many of them come after it,
    /// until that has enough. Gives how many bytes were used up: all of them, unless `take` had enough or the server
    /// has closed. After an error the decoder is of no more use.
    pub(super) fn feed(
        &mut self,
        wire: &[u8],
        mut take: impl FnMut(Incoming<'_>, usize) -> ControlFlow<()>,
    ) -> Result<usize, Violation> {
        let mut used = 0;
        while !self.closed {
            let (head, left) = match self.frame.take() {
                Some(begun) => begun,
                None => {
                    let (size, head) = self.head(&wire[used..])?;
                    used += size;
                    let Some(head) = head else { break };
                    (head, self.begin(head)?)
                }
            };
            let payload = &wire[used..used + left.min(wire.len() - used)];
            used += payload.len();
            if payload.len() < left {
                self.frame = Some((head, left - payload.len()));
                let begun = if head.opcode.is_control() { &mut self.control } else { &mut self.message };
                begun.extend_from_slice(payload);
                break;
            }
            if self.end(head, payload, wire.len() - used, &mut take)?.is_break() {
                break;
            }
        }
        Ok(used)
    }

    /// The next frame's head, and how many bytes of `wire` belong to it; all of them while it is not all there.
    fn head(&mut self, wire: &[u8]) -> Result<(usize, Option<Head>), Violation> {
        let deflate = self.inflater.is_some();
        if self.head.is_empty()
            && let Some((head, size)) = Head::read(wire, deflate)?
        {
            return Ok((size, Some(head)));
        }
        let before = self.head.len();
        self.head.extend_from_slice(&wire[..wire.len().min(HEAD - before)]);
        let Some((head, size)) = Head::read(&self.head, deflate)? else {
            return Ok((self.head.len() - before, None));
        };
        self.head.clear();
        Ok((size - before, Some(head)))
    }

    /// A frame begins: whether it may come now, and how many bytes of payload it has.
    fn begin(&mut self, head: Head) -> Result<usize, Violation> {
        match (head.opcode, self.begun) {
            (Opcode::Continuation, None) => return Err(Violation::protocol("a continuation of no message")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::protocol("a message within another one"));
            }
            (Opcode::Text | Opcode::Binary, None) => self.begun = Some((head.opcode, head.compressed)),
            (Opcode::Continuation, Some(_)) | (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {}
        }
        let limit = self.limit;
        let length = usize::try_from(head.length).map_err(|_| Violation::TooLarge { limit })?;
        if !head.opcode.is_control() && length > limit.saturating_sub(self.message.len()) {
            return Err(Violation::TooLarge { limit });
        }
        Ok(length)
    }

    /// A frame ends with `payload`; `rest` bytes come after it.
    fn end(
        &mut self,
        head: Head,
        payload: &[u8],
        rest: usize,
        take: &mut impl FnMut(Incoming<'_>, usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        if head.opcode.is_control() {
            let whole = joined(&mut self.control, payload);
            let incoming = match head.opcode {
                Opcode::Ping => Incoming::Ping(whole),
                Opcode::Pong => Incoming::Pong(whole),
                _ => {
                    let (code, reason) = frame::read_close(whole)?;
                    self.closed = true;
                    Incoming::Close { code, reason }
                }
            };
            let flow = take(incoming, rest);
            self.control.clear();
            return Ok(flow);
        }
        if !head.last {
            self.message.extend_from_slice(payload);
            return Ok(ControlFlow::Continue(()));
        }
        let (opcode, compressed) = self.begun.take().unwrap_or((head.opcode, false));
        let whole = joined(&mut self.message, payload);
        let flow = match self.inflater.as_mut().filter(|_| compressed) {
            None => hand(opcode, whole, rest, take)?,
            Some(inflater) => {
                let mut room = INFLATED.take();
                room.clear();
                inflater.inflate(whole, self.limit, &mut room)?;
                let flow = hand(opcode, &room, rest, take)?;
                if room.capacity() <= KEPT_INFLATED {
                    INFLATED.set(room);
                }
                flow
            }
        };
        if self.message.capacity() > KEPT {
            self.message = Vec::new();
        }
        self.message.clear();
        Ok(flow)
    }
}

/// All of a payload, which is copied only where its beginning came before.
fn joined<'a>(begun: &'a mut Vec<u8>, payload: &'a [u8]) -> &'a [u8] {
    if begun.is_empty() {
        return payload;
    }
    begun.extend_from_slice(payload);
    begun
}

/// Hands a whole message on.
fn hand(
    opcode: Opcode,
    message: &[u8],
    rest: usize,
    take: &mut impl FnMut(Incoming<'_>, usize) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Violation> {
    Ok(match opcode {
        Opcode::Text => take(Incoming::Text(std::str::from_utf8(message).map_err(|_| Violation::NotText)?), rest),
        _ => take(Incoming::Binary(message), rest),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::deflate::testing::Server;
    use super::*;

    const LIMIT: usize = 1 << 20;
    const TEXT: u8 = 0x1;
    const BINARY: u8 = 0x2;
    const LAST: u8 = 0x80;
    const COMPRESSED: u8 = 0x40;

    /// What came, as it can be kept and compared.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Came {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<u16>, String),
    }

    impl Came {
        fn of(incoming: Incoming<'_>) -> Self {
            match incoming {
                Incoming::Text(text) => Self::Text(text.to_owned()),
                Incoming::Binary(data) => Self::Binary(data.to_vec()),
                Incoming::Ping(data) => Self::Ping(data.to_vec()),
                Incoming::Pong(data) => Self::Pong(data.to_vec()),
                Incoming::Close { code, reason } => Self::Close(code, reason.to_owned()),
            }
        }
    }

    /// A server's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut wire = vec![first];
        match payload.len() {
            short @ ..126 => wire.push(short as u8),
            middle @ ..65_536 => {
                wire.push(126);
                wire.extend_from_slice(&(middle as u16).to_be_bytes());
            }
            long => {
                wire.push(127);
                wire.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        wire.extend_from_slice(payload);
        wire
    }

    fn plain() -> Decoder {
        Decoder::new(LIMIT, None)
    }

    /// What comes of a wire that is cut into pieces of so many bytes.
    fn decode(decoder: &mut Decoder, wire: &[u8], cut: usize) -> Result<Vec<Came>, Violation> {
        let mut came = Vec::new();
        for piece in wire.chunks(cut) {
            let used = decoder.feed(piece, |incoming, _| {
                came.push(Came::of(incoming));
                ControlFlow::Continue(())
            })?;
            assert!(used == piece.len() || decoder.closed);
        }
        Ok(came)
    }

    #[test]
    fn the_standard_s_examples_are_read_whole_and_byte_by_byte() {
        let hello = || Came::Text("Hello".to_owned());
        for (wire, expected) in [
            (frame(0x81, b"Hello"), vec![hello()]),
            ([frame(0x01, b"Hel"), frame(0x80, b"lo")].concat(), vec![hello()]),
            (frame(0x89, b"Hello"), vec![Came::Ping(b"Hello".to_vec())]),
            (frame(0x8a, b""), vec![Came::Pong(Vec::new())]),
            (frame(0x82, &[7; 256]), vec![Came::Binary(vec![7; 256])]),
            (frame(0x82, &[7; 65_536]), vec![Came::Binary(vec![7; 65_536])]),
            (
                [frame(1, b"Hel"), frame(0x89, b"?"), frame(0, b""), frame(0x8a, b"!"), frame(0x80, b"lo")].concat(),
                vec![Came::Ping(b"?".to_vec()), Came::Pong(b"!".to_vec()), hello()],
            ),
            (
                [frame(0x81, b""), frame(0x02, b""), frame(0x80, b""), frame(0x88, b"\x03\xe8bye")].concat(),
                vec![Came::Text(String::new()), Came::Binary(Vec::new()), Came::Close(Some(1000), "bye".to_owned())],
            ),
        ] {
            for cut in [1, 2, 3, 7, wire.len()] {
                assert_eq!(decode(&mut plain(), &wire, cut), Ok(expected.clone()), "cut into {cut}");
            }
        }
        // RFC 7692, 7.2.3.1: in one frame, and in two.
        let compressed = [0xc1, 0x07, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let fragmented = [0x41, 0x03, 0xf2, 0x48, 0xcd, 0x80, 0x04, 0xc9, 0xc9, 0x07, 0x00];
        for wire in [&compressed[..], &fragmented[..]] {
            for cut in 1..=wire.len() {
                let mut decoder = Decoder::new(LIMIT, Some(Inflater::Fresh));
                assert_eq!(decode(&mut decoder, wire, cut), Ok(vec![hello()]));
            }
        }
    }

    #[test]
    fn a_message_in_one_piece_is_read_where_it_lies() {
        let wire = [frame(0x81, b"one"), frame(0x82, b"two")].concat();
        let (mut decoder, range) = (plain(), wire.as_ptr_range());
        let used = decoder.feed(&wire, |incoming, _| {
            let at = match incoming {
                Incoming::Text(text) => text.as_ptr(),
                Incoming::Binary(data) => data.as_ptr(),
                other => panic!("{other:?}"),
            };
            assert!(range.contains(&at));
            ControlFlow::Continue(())
        });
        assert_eq!((used, decoder.message.capacity(), decoder.head.capacity()), (Ok(wire.len()), 0, 0));
    }

    #[test]
    fn who_has_enough_gets_the_rest_later() {
        let wire = [frame(0x81, b"one"), frame(0x89, b""), frame(0x81, b"two"), frame(0x01, b"th")].concat();
        let (mut decoder, mut at, mut came) = (plain(), 0, Vec::new());
        while at < wire.len() {
            at += decoder
                .feed(&wire[at..], |incoming, rest| {
                    came.push((Came::of(incoming), rest));
                    ControlFlow::Break(())
                })
                .unwrap();
        }
        let text = |text: &str| Came::Text(text.to_owned());
        assert_eq!(came, [(text("one"), 11), (Came::Ping(Vec::new()), 9), (text("two"), 4)]);
        assert_eq!(decode(&mut decoder, &frame(0x80, b"ree"), 1), Ok(vec![text("three")]));
    }

    #[test]
    fn nothing_is_read_after_a_close() {
        let wire = [frame(0x88, b""), frame(0x81, b"late")].concat();
        let mut decoder = plain();
        assert_eq!(decode(&mut decoder, &wire, wire.len()), Ok(vec![Came::Close(None, String::new())]));
        assert_eq!(decode(&mut decoder, &frame(0x81, b"later"), 9), Ok(Vec::new()));
    }

    #[test]
    fn what_the_standard_forbids_fails_with_its_code() {
        for (what, wire, code) in [
            ("a continuation of nothing", frame(0x80, b"x"), 1002),
            ("a continuation after the end", [frame(0x81, b"x"), frame(0x80, b"x")].concat(), 1002),
            ("a message in another", [frame(0x01, b"x"), frame(0x81, b"x")].concat(), 1002),
            ("a compressed message without agreement", frame(0xc1, b"x"), 1002),
            ("a fragmented close", frame(0x08, b""), 1002),
            ("a close that is half a code", frame(0x88, b"x"), 1002),
            ("a close with a code that is none", frame(0x88, &1005_u16.to_be_bytes()), 1002),
            ("a close whose reason is no text", frame(0x88, b"\x03\xe8\xff"), 1007),
            ("a text that is none", frame(0x81, b"\xc3"), 1007),
            ("a text that is none across frames", [frame(0x01, b"\xc3"), frame(0x80, b"\x28")].concat(), 1007),
            ("a message above the limit", frame(0x82, &[0; LIMIT + 1]), 1009),
            ("fragments above the limit", [frame(0x02, &[0; LIMIT]), frame(0x80, b"x")].concat(), 1009),
        ] {
            for cut in [1_000, wire.len()] {
                assert_eq!(decode(&mut plain(), &wire, cut).map_err(|error| error.code()), Err(code), "{what}");
            }
        }
        // A character may be cut in two, if only it is whole in the message.
        let wire = [frame(0x01, b"\xc3"), frame(0x80, b"\xa9")].concat();
        assert_eq!(decode(&mut plain(), &wire, 1), Ok(vec![Came::Text("\u{e9}".to_owned())]));
    }

    #[test]
    fn a_length_above_the_limit_fails_before_its_bytes_come() {
        let head = &frame(0x82, &[0; LIMIT + 1])[..HEAD];
        assert_eq!(decode(&mut plain(), head, 1), Err(Violation::TooLarge { limit: LIMIT }));
        let mut server = Server::new(true, 15);
        let mut decoder = Decoder::new(LIMIT, Some(Inflater::new(server.agreed())));
        let bomb = frame(0xc2, &server.deflate(&[0; LIMIT + 1]));
        assert_eq!(decode(&mut decoder, &bomb, bomb.len()), Err(Violation::TooLarge { limit: LIMIT }));
    }

    /// A message, whether it is a text and whether it is compressed, into how many frames it is cut, and a ping that
    /// stands between them.
    type Sent = (String, bool, bool, usize, Option<u8>);

    fn sent() -> impl Strategy<Value = Sent> {
        let words = "(token |\u{d55c}\u{ad6d} |[a-z]{1,9}){0,40}";
        let text = (words, 1_usize..20).prop_map(|(text, times)| text.repeat(times));
        (text, any::<bool>(), any::<bool>(), 1_usize..6, any::<Option<u8>>())
    }

    proptest! {
        /// Compressed and uncompressed ones in one connection, with the window taken over from one to the next, in
        /// fragments with pings between them, in reads of any length.
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in prop::collection::vec(sent(), 1..12),
            takeover in any::<bool>(),
            bits in 9_u8..=15,
            cut in 1_usize..3_000,
        ) {
            let mut server = Server::new(takeover, bits);
            let mut decoder = Decoder::new(LIMIT, Some(Inflater::new(server.agreed())));
            let (mut wire, mut expected) = (Vec::new(), Vec::new());
            for (text, is_text, compressed, fragments, ping) in messages {
                let payload = if compressed { server.deflate(text.as_bytes()) } else { text.clone().into_bytes() };
                let size = payload.len().div_ceil(fragments).max(1);
                let pieces: Vec<&[u8]> = if payload.is_empty() {
                    vec![payload.as_slice()]
                } else {
                    payload.chunks(size).collect()
                };
                for (at, piece) in pieces.iter().enumerate() {
                    let mut first = if at + 1 == pieces.len() { LAST } else { 0 };
                    if at == 0 {
                        first |= if is_text { TEXT } else { BINARY };
                        first |= if compressed { COMPRESSED } else { 0 };
                    } else if let Some(ping) = ping {
                        wire.extend(frame(0x89, &[ping]));
                        expected.push(Came::Ping(vec![ping]));
                    }
                    wire.extend(frame(first, piece));
                }
                expected.push(if is_text { Came::Text(text) } else { Came::Binary(text.into_bytes()) });
            }
            prop_assert_eq!(decode(&mut decoder, &wire, cut), Ok(expected));
        }

        #[test]
        fn no_bytes_are_too_wild(wire in prop::collection::vec(any::<u8>(), 0..300), cut in 1_usize..40) {
            let mut decoder = Decoder::new(100, Some(Inflater::Fresh));
            let _ = decode(&mut decoder, &wire, cut);
            prop_assert!(decoder.message.len() <= 100 && decoder.control.len() <= 125);
        }
    }
}
