//! Frames of WebSocket without I/O (RFC 6455, section 5): bytes in, messages out, whatever the chunking.

use std::ops::ControlFlow;

use bytes::{BufMut, BytesMut};

use super::SocketError;
use super::deflate::{Inflate, Wrong};
use super::handshake::random;

/// The most bytes of a control frame.
pub(super) const CONTROL: usize = 125;
/// The most bytes of a frame's head that comes from a server.
const HEAD: usize = 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn read(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    /// Whether it is a message or a part of one.
    pub(super) fn is_data(self) -> bool {
        matches!(self, Self::Continuation | Self::Text | Self::Binary)
    }
}

/// Writes a whole message as one frame, masked as a client must (RFC 6455, 5.3).
pub(super) fn encode(out: &mut BytesMut, opcode: Opcode, deflated: bool, payload: &[u8]) {
    let mask: [u8; 4] = random();
    out.reserve(payload.len() + 14);
    out.put_u8(0x80 | if deflated { 0x40 } else { 0 } | opcode.bits());
    match payload.len() {
        short @ 0..=125 => out.put_u8(0x80 | short as u8),
        middle @ 126..=0xffff => {
            out.put_u8(0x80 | 126);
            out.put_u16(middle as u16);
        }
        long => {
            out.put_u8(0x80 | 127);
            out.put_u64(long as u64);
        }
    }
    out.put_slice(&mask);
    let from = out.len();
    out.put_slice(payload);
    for (index, byte) in out[from..].iter_mut().enumerate() {
        *byte ^= mask[index % 4];
    }
}

/// Something that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole text.
    Text(&'a str),
    /// Whole bytes.
    Binary(&'a [u8]),
    /// A ping, which wants an answer with the same bytes.
    Ping(&'a [u8]),
    /// The answer to one.
    Pong(&'a [u8]),
    /// The end.
    Close {
        /// Its code, where there is one.
        code: Option<u16>,
        /// Its reason.
        reason: &'a str,
    },
}

/// A frame's head.
#[derive(Debug, Clone, Copy)]
struct Head {
    opcode: Opcode,
    last: bool,
    deflated: bool,
    length: u64,
}

/// A message of which not every frame has come.
#[derive(Debug, Clone, Copy)]
struct Open {
    text: bool,
    deflated: bool,
}

/// The state between two pieces of a stream.
pub(super) struct Decoder {
    /// The beginning of a frame's head.
    head: [u8; HEAD],
    /// Bytes of it, while its frame has not begun.
    have: usize,
    /// The frame whose payload comes, and how much of it is to come.
    frame: Option<(Head, u64)>,
    /// The message whose frames come.
    open: Option<Open>,
    /// What has come of the message.
    data: Vec<u8>,
    /// What has come of a control frame, which may come between a message's frames.
    control: Vec<u8>,
    inflate: Option<Inflate>,
    limit: usize,
}

impl Decoder {
    /// At the beginning of a stream; no message may be larger than `limit` bytes.
    pub(super) fn new(limit: usize, inflate: Option<Inflate>) -> Self {
        let (data, control) = (Vec::new(), Vec::new());
        Self { head: [0; HEAD], have: 0, frame: None, open: None, data, control, inflate, limit }
    }

    /// Takes the next piece of the stream and hands what it completes to `take`, with the number of bytes behind it,
    /// until that has enough. Gives how many bytes were used up.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Incoming<'_>, usize) -> ControlFlow<()>,
    ) -> Result<usize, SocketError> {
        let mut used = 0;
        loop {
            let (head, left) = match self.frame {
                Some(frame) => frame,
                None => match self.read_head(bytes, &mut used)? {
                    Some(head) => (head, head.length),
                    None => return Ok(used),
                },
            };
            let rest = &bytes[used..];
            let length = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (piece, behind) = rest.split_at(length);
            used += length;
            let left = left - length as u64;
            if left > 0 {
                self.frame = Some((head, left));
                self.keep(head, piece);
                return Ok(used);
            }
            self.frame = None;
            if self.complete(head, piece, behind.len(), &mut take)?.is_break() {
                return Ok(used);
            }
        }
    }

    /// Reads a frame's head, byte by byte where it is cut; `None` while it is not all there.
    fn read_head(&mut self, bytes: &[u8], used: &mut usize) -> Result<Option<Head>, SocketError> {
        loop {
            let wanted = match self.have {
                0 | 1 => 2,
                _ => match self.head[1] & 0x7f {
                    126 => 4,
                    127 => 10,
                    _ => 2,
                },
            };
            if self.have == wanted {
                self.have = 0;
                return self.check_head(wanted).map(Some);
            }
            let Some(byte) = bytes.get(*used) else { return Ok(None) };
            self.head[self.have] = *byte;
            (self.have, *used) = (self.have + 1, *used + 1);
        }
    }

    fn check_head(&self, length: usize) -> Result<Head, SocketError> {
        let [first, second, ..] = self.head;
        let wrong = |what: &str| Err(SocketError::Protocol(what.to_owned()));
        let Some(opcode) = Opcode::read(first & 0x0f) else {
            return wrong(&format!("a frame of the reserved type {:#x}", first & 0x0f));
        };
        let (last, deflated) = (first & 0x80 != 0, first & 0x40 != 0);
        let payload = match length {
            4 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            10 => {
                let mut number = [0; 8];
                number.copy_from_slice(&self.head[2..10]);
                u64::from_be_bytes(number)
            }
            _ => u64::from(second & 0x7f),
        };
        if second & 0x80 != 0 {
            return wrong("a masked frame from a server");
        }
        if first & 0x30 != 0 {
            return wrong("a frame with a reserved bit");
        }
        if deflated && (self.inflate.is_none() || !matches!(opcode, Opcode::Text | Opcode::Binary)) {
            return wrong("a deflated frame where none may be");
        }
        match (opcode.is_data(), opcode, self.open) {
            (false, ..) if !last => return wrong("a control frame in fragments"),
            (false, ..) if payload > CONTROL as u64 => return wrong("a control frame that is too long"),
            (true, Opcode::Continuation, None) => return wrong("the continuation of nothing"),
            (true, Opcode::Text | Opcode::Binary, Some(_)) => return wrong("a message within another"),
            _ => {}
        }
        if opcode.is_data() && payload > (self.limit - self.data.len().min(self.limit)) as u64 {
            return Err(SocketError::TooLarge { limit: self.limit });
        }
        Ok(Head { opcode, last, deflated, length: payload })
    }

    /// Keeps a part of a frame.
    fn keep(&mut self, head: Head, piece: &[u8]) {
        if head.opcode.is_data() { self.data.extend_from_slice(piece) } else { self.control.extend_from_slice(piece) }
    }

    /// A frame is complete with this piece, and with it perhaps a message.
    fn complete(
        &mut self,
        head: Head,
        piece: &[u8],
        rest: usize,
        take: &mut impl FnMut(Incoming<'_>, usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, SocketError> {
        if !head.opcode.is_data() {
            let mut whole = std::mem::take(&mut self.control);
            whole.extend_from_slice(piece);
            return Ok(take(control(head.opcode, &whole)?, rest));
        }
        let open = self.open.unwrap_or(Open { text: head.opcode == Opcode::Text, deflated: head.deflated });
        if !head.last {
            self.open = Some(open);
            self.data.extend_from_slice(piece);
            return Ok(ControlFlow::Continue(()));
        }
        self.open = None;
        // Nearly every token comes as one frame in one piece, and is read where it lies.
        let mut joined = std::mem::take(&mut self.data);
        let whole = if joined.is_empty() {
            piece
        } else {
            joined.extend_from_slice(piece);
            &joined
        };
        let inflated = match &mut self.inflate {
            Some(inflate) if open.deflated => Some(inflate.message(whole).map_err(|wrong| match wrong {
                Wrong::TooLarge => SocketError::TooLarge { limit: self.limit },
                Wrong::Broken => SocketError::Protocol("a message that cannot be inflated".to_owned()),
            })?),
            _ => None,
        };
        let message = inflated.as_deref().unwrap_or(whole);
        if !open.text {
            return Ok(take(Incoming::Binary(message), rest));
        }
        match std::str::from_utf8(message) {
            Ok(text) => Ok(take(Incoming::Text(text), rest)),
            Err(_) => Err(SocketError::Protocol("a text that is not UTF-8".to_owned())),
        }
    }
}

/// A control frame, whole.
fn control(opcode: Opcode, payload: &[u8]) -> Result<Incoming<'_>, SocketError> {
    let wrong = |what: String| Err(SocketError::Protocol(what));
    match (opcode, payload) {
        (Opcode::Ping, _) => Ok(Incoming::Ping(payload)),
        (Opcode::Pong, _) => Ok(Incoming::Pong(payload)),
        (_, []) => Ok(Incoming::Close { code: None, reason: "" }),
        (_, [_]) => wrong("a close frame with half a code".to_owned()),
        (_, [high, low, reason @ ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            // RFC 6455, 7.4, and the codes that were registered since.
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return wrong(format!("a close frame with the code {code}"));
            }
            match std::str::from_utf8(reason) {
                Ok(reason) => Ok(Incoming::Close { code: Some(code), reason }),
                Err(_) => wrong("a close reason that is not UTF-8".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::deflate::{Deflate, Terms};
    use super::*;

    /// A frame as a server sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut wire = vec![first];
        match payload.len() {
            short @ 0..=125 => wire.push(short as u8),
            middle @ 126..=0xffff => {
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

    fn told(incoming: Incoming<'_>) -> String {
        match incoming {
            Incoming::Text(text) => format!("text {text}"),
            Incoming::Binary(bytes) => format!("binary {}", bytes.len()),
            Incoming::Ping(bytes) => format!("ping {}", bytes.len()),
            Incoming::Pong(bytes) => format!("pong {}", bytes.len()),
            Incoming::Close { code, reason } => format!("close {code:?} {reason}"),
        }
    }

    fn decoder(limit: usize) -> Decoder {
        Decoder::new(limit, Terms::read("permessage-deflate").unwrap().begin(limit).0)
    }

    /// Everything that a stream says when it comes in pieces of these lengths, over and over.
    fn read(decoder: &mut Decoder, wire: &[u8], cuts: &[usize]) -> Result<Vec<String>, SocketError> {
        let (mut all, mut at) = (Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = (at + (*cut).max(1)).min(wire.len());
            let used = decoder.feed(&wire[at..end], |incoming, _| {
                all.push(told(incoming));
                ControlFlow::Continue(())
            })?;
            assert_eq!(used, end - at);
            at = end;
            if at == wire.len() {
                return Ok(all);
            }
        }
        unreachable!("the cuts go on")
    }

    fn wrong(wire: &[u8]) -> String {
        read(&mut Decoder::new(100, None), wire, &[wire.len()]).unwrap_err().to_string()
    }

    #[test]
    fn fragments_make_a_message_and_control_frames_come_between_them() {
        let wire = [
            frame(0x01, b"Hel"),
            frame(0x89, b"?"),
            frame(0x00, b""),
            frame(0x80, b"lo"),
            frame(0x8a, b""),
            frame(0x82, &[7; 300]),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let expected = ["ping 1", "text Hello", "pong 0", "binary 300", "close Some(1000) bye"];
        for cuts in [vec![wire.len()], vec![1], vec![2, 3], vec![7]] {
            assert_eq!(read(&mut decoder(1_000), &wire, &cuts).unwrap(), expected);
        }
    }

    #[test]
    fn what_the_standard_forbids_is_told() {
        for (wire, part) in [
            (vec![0x81, 0x85, 0, 0, 0, 0], "masked"),
            (frame(0xa1, b"x"), "reserved bit"),
            (frame(0xc1, b"x"), "deflated frame"),
            (frame(0x83, b"x"), "reserved type 0x3"),
            (frame(0x8b, b"x"), "reserved type 0xb"),
            (frame(0x09, b"x"), "in fragments"),
            (frame(0x89, &[0; 126]), "too long"),
            (frame(0x80, b"x"), "continuation of nothing"),
            ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), "within another"),
            (frame(0x81, b"\xff"), "not UTF-8"),
            (frame(0x88, b"\x03"), "half a code"),
            (frame(0x88, b"\x03\xed"), "the code 1005"),
            (frame(0x88, b"\x03\xe8\xff"), "reason that is not UTF-8"),
            (frame(0x81, &[b'a'; 101]), "larger than 100"),
            ([frame(0x01, &[b'a'; 60]), frame(0x80, &[b'a'; 60])].concat(), "larger than 100"),
            (vec![0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "larger than 100"),
        ] {
            let told = wrong(&wire);
            assert!(told.contains(part), "{told}: {part}");
        }
        let bomb = frame(0xc1, &Deflate.message(&[b'a'; 5_000]));
        let told = read(&mut decoder(1_000), &bomb, &[1]).unwrap_err();
        assert_eq!(told, SocketError::TooLarge { limit: 1_000 });
    }

    #[test]
    fn what_was_not_taken_waits() {
        let wire = [frame(0x81, b"a"), frame(0x81, b"b")].concat();
        let mut decoder = Decoder::new(100, None);
        let mut rests = Vec::new();
        let used = decoder.feed(&wire, |_, rest| {
            rests.push(rest);
            ControlFlow::Break(())
        });
        assert_eq!((used, rests), (Ok(3), vec![3]));
    }

    #[test]
    fn what_we_send_is_masked_and_reads_back() {
        for length in [0, 125, 126, 70_000] {
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let mut wire = BytesMut::new();
            encode(&mut wire, Opcode::Binary, false, &payload);
            let head = match length {
                0..=125 => 2,
                126..=0xffff => 4,
                _ => 10,
            };
            assert_eq!((wire[0], wire[1] & 0x80, wire.len()), (0x82, 0x80, head + 4 + length));
            let mask = wire[head..head + 4].to_vec();
            let plain: Vec<u8> = wire[head + 4..].iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
            assert_eq!(plain, payload);
        }
    }

    proptest! {
        /// However a stream is cut and fragmented, deflated or not by turns, its messages are the same.
        #[test]
        fn messages_do_not_depend_on_cuts(
            messages in proptest::collection::vec(("[a-c가나]{0,60}", any::<bool>(), 1_usize..40), 1..12),
            cuts in proptest::collection::vec(1_usize..50, 1..8),
        ) {
            let mut wire = Vec::new();
            for (text, deflated, piece) in &messages {
                let payload = if *deflated { Deflate.message(text.as_bytes()) } else { text.clone().into_bytes() };
                let pieces: Vec<&[u8]> = if payload.is_empty() { vec![&[]] } else { payload.chunks(*piece).collect() };
                for (index, part) in pieces.iter().enumerate() {
                    let opcode = if index == 0 { 0x01 } else { 0x00 };
                    let last = if index + 1 == pieces.len() { 0x80 } else { 0 };
                    let rsv = if *deflated && index == 0 { 0x40 } else { 0 };
                    wire.extend(frame(opcode | last | rsv, part));
                }
            }
            let expected: Vec<String> = messages.iter().map(|(text, ..)| format!("text {text}")).collect();
            prop_assert_eq!(read(&mut decoder(1 << 20), &wire, &cuts).unwrap(), expected);
        }

        /// Nothing that a server sends makes it panic.
        #[test]
        fn rubbish_is_told(rubbish in proptest::collection::vec(any::<u8>(), 1..300)) {
            let _ = read(&mut decoder(1_000), &rubbish, &[13]);
        }
    }
}
