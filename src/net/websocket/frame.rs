//! WebSocket frames as a client sends and reads them, without I/O (RFC 6455, section 5).

/// The most bytes of a server's frame before its payload, which has no mask.
pub(super) const HEAD: usize = 10;
/// The most bytes of a control frame's payload (RFC 6455, 5.5).
pub(super) const CONTROL: usize = 125;
/// The most bytes of a close frame's reason: its code has two.
const REASON: usize = CONTROL - 2;
/// The end was as both sides wanted it (RFC 6455, 7.4.1).
const NORMAL: u16 = 1000;

/// What the peer did that a connection must be failed for (RFC 6455, 7.1.7).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// Frames that the standard does not allow.
    #[error("{0}")]
    Protocol(String),
    /// A text, or the reason of a close, that is not UTF-8.
    #[error("a text that is not UTF-8")]
    NotText,
    /// Compressed data that is none.
    #[error("a message that does not inflate: {0}")]
    NotDeflate(String),
    /// A message of more bytes than are allowed, as it came or inflated.
    #[error("a message larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

impl Violation {
    /// A protocol error, in words.
    pub(super) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }

    /// The code of the close frame that tells the peer (RFC 6455, 7.4.1).
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotText | Self::NotDeflate(_) => 1007,
            Self::TooLarge { .. } => 1009,
        }
    }
}

/// What a frame is (RFC 6455, 5.2).
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
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn number(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    /// Whether frames of it may stand between the fragments of a message.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// What stands before a frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) opcode: Opcode,
    /// Whether it is the last frame of its message.
    pub(super) last: bool,
    /// Whether the message that it begins is compressed (RFC 7692, 6).
    pub(super) compressed: bool,
    /// Bytes of the payload.
    pub(super) length: u64,
}

impl Head {
    /// Reads the head at the beginning of `wire`, and how many bytes it has; `None` while it is not all there.
    /// `deflate` says whether messages may be compressed.
    pub(super) fn read(wire: &[u8], deflate: bool) -> Result<Option<(Self, usize)>, Violation> {
        let &[first, second, ref extended @ ..] = wire else { return Ok(None) };
        let number = first & 0x0f;
        let Some(opcode) = Opcode::of(number) else {
            return Err(Violation::protocol(format!("the reserved opcode {number:#x}")));
        };
        let (last, compressed, short) = (first & 0x80 != 0, first & 0x40 != 0, second & 0x7f);
        let may_be_compressed = deflate && matches!(opcode, Opcode::Text | Opcode::Binary);
        if first & 0x30 != 0 || (compressed && !may_be_compressed) {
            return Err(Violation::protocol("a reserved bit that nothing was agreed on"));
        }
        if second & 0x80 != 0 {
            return Err(Violation::protocol("a masked frame from the server"));
        }
        if opcode.is_control() && (!last || usize::from(short) > CONTROL) {
            return Err(Violation::protocol("a control frame that is long or fragmented"));
        }
        let (length, size, least) = match short {
            126 => {
                let Some(bytes) = extended.first_chunk::<2>() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*bytes)), 4, 126)
            }
            127 => {
                let Some(bytes) = extended.first_chunk::<8>() else { return Ok(None) };
                (u64::from_be_bytes(*bytes), HEAD, 1 << 16)
            }
            short => (u64::from(short), 2, 0),
        };
        if length < least || length >> 63 != 0 {
            return Err(Violation::protocol("a length that is not in its shortest form"));
        }
        Ok(Some((Self { opcode, last, compressed, length }, size)))
    }
}

/// Appends a whole message, or a control frame, as one frame. `mask` is to be random (RFC 6455, 5.3).
pub(super) fn write(out: &mut Vec<u8>, opcode: Opcode, compressed: bool, payload: &[u8], mask: [u8; 4]) {
    const LAST: u8 = 0x80;
    const MASKED: u8 = 0x80;
    out.reserve(HEAD + mask.len() + payload.len());
    out.push(LAST | (u8::from(compressed) << 6) | opcode.number());
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => out.push(MASKED | short),
        (_, Ok(middle)) => {
            out.push(MASKED | 126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let begin = out.len();
    out.extend_from_slice(payload);
    for (byte, key) in out[begin..].iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Whether a close frame may carry a code (RFC 6455, 7.4, and IANA's registry of 1012 to 1014).
fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// A close frame's code and reason.
pub(super) fn read_close(payload: &[u8]) -> Result<(Option<u16>, &str), Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok((None, "")),
            _ => Err(Violation::protocol("half a close code")),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !is_sendable(code) {
        return Err(Violation::protocol(format!("the close code {code}")));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::NotText)?;
    Ok((Some(code), reason))
}

/// A close frame's payload. A code that may not be sent goes as 1000, and of a long reason the beginning.
pub(super) fn close_payload(code: Option<u16>, reason: &str) -> Vec<u8> {
    let Some(code) = code else { return Vec::new() };
    let mut end = reason.len().min(REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let code = if is_sendable(code) { code } else { NORMAL };
    [&code.to_be_bytes(), &reason.as_bytes()[..end]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(wire: &[u8]) -> Result<Option<(Head, usize)>, Violation> {
        Head::read(wire, true)
    }

    #[test]
    fn a_frame_is_written_as_the_standard_s_example() {
        let mut out = Vec::new();
        write(&mut out, Opcode::Text, false, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn a_length_takes_the_fewest_bytes() {
        for (length, head) in [
            (0, vec![0xc2, 0x80]),
            (125, vec![0xc2, 0xfd]),
            (126, vec![0xc2, 0xfe, 0, 126]),
            (65_535, vec![0xc2, 0xfe, 0xff, 0xff]),
            (65_536, vec![0xc2, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            write(&mut out, Opcode::Binary, true, &vec![7; length], [0; 4]);
            assert_eq!(out[..head.len()], head);
            assert_eq!(out.len(), head.len() + 4 + length);
        }
    }

    #[test]
    fn heads_are_read_and_wait_for_their_last_byte() {
        let head = |opcode, last, compressed, length| Head { opcode, last, compressed, length };
        for (wire, expected) in [
            (&[0x81, 5][..], head(Opcode::Text, true, false, 5)),
            (&[0x42, 125][..], head(Opcode::Binary, false, true, 125)),
            (&[0x00, 126, 0, 126][..], head(Opcode::Continuation, false, false, 126)),
            (&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], head(Opcode::Binary, true, false, 65_536)),
            (&[0x88, 2][..], head(Opcode::Close, true, false, 2)),
            (&[0x89, 0][..], head(Opcode::Ping, true, false, 0)),
            (&[0x8a, 125][..], head(Opcode::Pong, true, false, 125)),
        ] {
            assert_eq!(read(wire), Ok(Some((expected, wire.len()))), "{wire:x?}");
            for cut in 0..wire.len() {
                assert_eq!(read(&wire[..cut]), Ok(None), "{wire:x?} up to {cut}");
            }
        }
    }

    #[test]
    fn what_the_standard_forbids_is_a_protocol_error() {
        for (what, wire) in [
            ("a reserved opcode", &[0x83, 0][..]),
            ("a reserved control opcode", &[0x8b, 0][..]),
            ("the second reserved bit", &[0xa1, 0][..]),
            ("the third reserved bit", &[0x91, 0][..]),
            ("a compressed continuation", &[0xc0, 0][..]),
            ("a compressed ping", &[0xc9, 0][..]),
            ("a mask", &[0x81, 0x85][..]),
            ("a long ping", &[0x89, 126][..]),
            ("a fragmented ping", &[0x09, 0][..]),
            ("two bytes for a short length", &[0x81, 126, 0, 125][..]),
            ("eight bytes for a middle one", &[0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff][..]),
            ("a length of 64 bits", &[0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0][..]),
        ] {
            assert_eq!(read(wire).map_err(|error| error.code()), Err(1002), "{what}");
        }
        // What was agreed on is no error.
        assert!(Head::read(&[0xc1, 0], true).is_ok());
        assert!(Head::read(&[0xc1, 0], false).is_err());
    }

    #[test]
    fn closes_have_a_code_and_a_text() {
        assert_eq!(read_close(b""), Ok((None, "")));
        assert_eq!(read_close(b"\x03\xe8"), Ok((Some(1000), "")));
        assert_eq!(read_close(b"\x0f\xa0over"), Ok((Some(4000), "over")));
        assert_eq!(read_close(b"\x03\xe8\xff"), Err(Violation::NotText));
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            assert_eq!(read_close(&code.to_be_bytes()).map_err(|error| error.code()), Err(1002), "{code}");
        }
        assert_eq!(read_close(b"\x03").map_err(|error| error.code()), Err(1002));
    }

    #[test]
    fn a_close_of_ours_is_one_that_may_be_sent() {
        assert_eq!(close_payload(None, "unsaid"), b"");
        assert_eq!(close_payload(Some(1001), "gone"), b"\x03\xe9gone");
        assert_eq!(close_payload(Some(1005), ""), b"\x03\xe8");
        let long = close_payload(Some(1000), &"\u{e9}".repeat(100));
        assert_eq!(read_close(&long), Ok((Some(1000), "\u{e9}".repeat(61).as_str())));
    }

    proptest! {
        #[test]
        fn masking_twice_gives_the_payload(
            payload in prop::collection::vec(any::<u8>(), 0..300),
            mask in any::<[u8; 4]>(),
        ) {
            let mut out = Vec::new();
            write(&mut out, Opcode::Binary, false, &payload, mask);
            let masked = &out[out.len() - payload.len()..];
            let plain: Vec<u8> = masked.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            prop_assert_eq!(plain, payload);
        }

        #[test]
        fn no_bytes_are_too_wild(wire in prop::collection::vec(any::<u8>(), 0..12), deflate in any::<bool>()) {
            if let Ok(Some((head, size))) = Head::read(&wire, deflate) {
                prop_assert!(size <= wire.len() && (!head.compressed || deflate));
            }
        }
    }
}
