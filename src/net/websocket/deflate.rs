//! Compressed messages (permessage-deflate, RFC 7692), without I/O.
//!
//! The offer is that of a browser, so that the server keeps for each connection what it would keep for a person's: it
//! may take its window over from message to message, and so do we to read them. What is sent is compressed message by
//! message, which every sender may do: one compressor serves all connections of a thread.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::Violation;

/// What is offered (RFC 7692, 7.1).
pub(super) const OFFER: &str = "permessage-deflate; client_max_window_bits";
/// What ends a flushed block, and is left out on the wire (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Windows of DEFLATE have up to two to the power of this many bytes.
const WINDOW: u8 = 15;
/// The least bytes by which the room for an inflated message grows.
const ROOM: usize = 4 << 10;

thread_local! {
    /// Inflates for all servers that begin anew with each message.
    static FRESH: RefCell<Option<Decompress>> = const { RefCell::new(None) };
    /// Deflates for all connections, with a window of so many bits.
    static DEFLATER: RefCell<Option<(u8, Compress)>> = const { RefCell::new(None) };
}

/// What the server agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Whether a message of the server may refer to the ones before it.
    server_takeover: bool,
    /// How far back a message of ours may refer, as a power of two.
    client_window: u8,
}

impl Agreed {
    /// Reads the server's answer to [`OFFER`], the whole field. An error says what cannot be.
    pub(super) fn read(answer: &str) -> Result<Self, String> {
        let mut words = answer.split(';').map(str::trim);
        let name = words.next().unwrap_or_default();
        if name != "permessage-deflate" {
            return Err(format!("the extension `{name}`, which was not offered"));
        }
        let mut agreed = Self { server_takeover: true, client_window: WINDOW };
        let mut seen = Vec::new();
        for word in words {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start()))),
                None => (word, None),
            };
            if seen.contains(&name) {
                return Err(format!("the parameter `{name}` of permessage-deflate twice"));
            }
            seen.push(name);
            match (name, value, value.and_then(window)) {
                ("server_no_context_takeover", None, _) => agreed.server_takeover = false,
                // What we send never refers to a message before.
                ("client_no_context_takeover", None, _) => {}
                // A window of full size reads what a smaller one has written.
                ("server_max_window_bits", _, Some(_)) => {}
                ("client_max_window_bits", _, Some(bits)) => agreed.client_window = bits,
                _ => return Err(format!("the parameter `{word}` of permessage-deflate")),
            }
        }
        Ok(agreed)
    }
}

/// A value, which may be quoted (RFC 6455, 9.1).
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// The size of a window: 8 to 15, without leading noughts (RFC 7692, 7.1.2).
fn window(value: &str) -> Option<u8> {
    let digits = !value.starts_with('0') && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|bits| digits && (8..=WINDOW).contains(bits))
}

/// Inflates the messages of one connection.
pub(super) enum Inflater {
    /// With the window of the messages before, once there was one.
    Takeover(Option<Decompress>),
    /// Each by itself.
    Fresh,
}

impl Inflater {
    pub(super) fn new(agreed: Agreed) -> Self {
        if agreed.server_takeover { Self::Takeover(None) } else { Self::Fresh }
    }

    /// Appends what a whole message inflates to. `out` may have `limit` bytes after it.
    pub(super) fn inflate(&mut self, message: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Violation> {
        let fresh = || Decompress::new(false);
        match self {
            Self::Takeover(state) => inflate(state.get_or_insert_with(fresh), message, limit, out),
            Self::Fresh => FRESH.with_borrow_mut(|state| {
                let state = state.get_or_insert_with(fresh);
                state.reset(false);
                inflate(state, message, limit, out)
            }),
        }
    }
}

/// One message and the end of a block that was left out.
fn inflate(state: &mut Decompress, message: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Violation> {
    // Not as the standard writes an empty message, which is a block's beginning; its end alone would be half a block.
    if message.is_empty() {
        return Ok(());
    }
    // A final block has its own end, and where nothing comes after it nothing was left out (RFC 7692, 7.2.3.4).
    if !pump(state, message, limit, out)? {
        pump(state, &TAIL, limit, out)?;
    }
    Ok(())
}

/// Takes all of `input`. True where a final block has ended with it.
fn pump(state: &mut Decompress, mut input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<bool, Violation> {
    let broken = |what: &str| Violation::NotDeflate(what.to_owned());
    loop {
        if out.len() == out.capacity() {
            // One byte above the limit is enough to know that there are too many.
            out.reserve_exact(out.len().max(ROOM).min(limit.saturating_sub(out.len()).saturating_add(1)));
        }
        let (taken, had) = (state.total_in(), out.len());
        let status = state
            .decompress_vec(input, out, FlushDecompress::Sync)
            .map_err(|error| broken(error.message().unwrap_or("no reason given")))?;
        let used = usize::try_from(state.total_in() - taken).unwrap_or(usize::MAX);
        input = &input[used..];
        if out.len() > limit {
            return Err(Violation::TooLarge { limit });
        }
        let is_full = out.len() == out.capacity();
        match status {
            // The standard does not say whether the window outlives a final block; who writes one begins anew.
            Status::StreamEnd => {
                state.reset(false);
                if input.is_empty() {
                    return Ok(true);
                }
            }
            // Where the room is full, more may wait although all input was taken.
            Status::Ok | Status::BufError if input.is_empty() && !is_full => return Ok(false),
            Status::Ok | Status::BufError if used == 0 && out.len() == had => return Err(broken("it does not go on")),
            Status::Ok | Status::BufError => {}
        }
    }
}

/// A message as it is sent compressed; nothing where that is not shorter.
pub(super) fn deflate(message: &[u8], agreed: Agreed) -> Option<Vec<u8>> {
    // zlib cannot make raw blocks with the smallest window: they would refer too far back.
    let bits = Some(agreed.client_window).filter(|bits| *bits > 8)?;
    DEFLATER.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(size, _)| *size != bits) {
            *kept = Some((bits, Compress::new_with_window_bits(Compression::default(), false, bits)));
        }
        let (_, state) = kept.as_mut()?;
        state.reset();
        let (mut input, mut out) = (message, Vec::with_capacity(message.len() + message.len() / 8 + 64));
        loop {
            let taken = state.total_in();
            state.compress_vec(input, &mut out, FlushCompress::Sync).ok()?;
            input = &input[usize::try_from(state.total_in() - taken).ok()?..];
            if input.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(ROOM);
        }
        let length = out.strip_suffix(&TAIL)?.len();
        out.truncate(length);
        (length < message.len()).then_some(out)
    })
}

/// A server's compressor.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in crate::net::websocket) struct Server {
        state: Compress,
        takeover: bool,
    }

    impl Server {
        pub(in crate::net::websocket) fn new(takeover: bool, bits: u8) -> Self {
            Self { state: Compress::new_with_window_bits(Compression::best(), false, bits), takeover }
        }

        /// What it agreed on.
        pub(in crate::net::websocket) fn agreed(&self) -> Agreed {
            Agreed { server_takeover: self.takeover, client_window: WINDOW }
        }

        pub(in crate::net::websocket) fn deflate(&mut self, message: &[u8]) -> Vec<u8> {
            if message.is_empty() {
                return vec![0];
            }
            if !self.takeover {
                self.state.reset();
            }
            let mut out = Vec::with_capacity(2 * message.len() + 64);
            let before = self.state.total_in();
            self.state.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
            assert_eq!(self.state.total_in() - before, message.len() as u64);
            out.strip_suffix(&TAIL).unwrap().to_vec()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::Server;
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn read(answer: &str) -> Option<(bool, u8)> {
        Agreed::read(answer).ok().map(|agreed| (agreed.server_takeover, agreed.client_window))
    }

    fn inflater(takeover: bool) -> Inflater {
        Inflater::new(Agreed { server_takeover: takeover, client_window: WINDOW })
    }

    fn text(inflater: &mut Inflater, message: &[u8]) -> Result<String, Violation> {
        let mut out = Vec::new();
        inflater.inflate(message, LIMIT, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn answers_are_read_as_the_standard_has_them() {
        for (answer, expected) in [
            ("permessage-deflate", (true, 15)),
            ("permessage-deflate; server_no_context_takeover", (false, 15)),
            ("permessage-deflate;client_no_context_takeover ; server_max_window_bits=8", (true, 15)),
            ("permessage-deflate; client_max_window_bits = \"10\"; server_no_context_takeover", (false, 10)),
        ] {
            assert_eq!(read(answer), Some(expected), "{answer}");
        }
        for broken in [
            "",
            "permessage-bzip2",
            "permessage-deflate, permessage-deflate",
            "permessage-deflate; ",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
            "permessage-deflate; client_max_window_bits=\"9",
        ] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    /// RFC 7692, 7.2.3.1 to 7.2.3.6.
    #[test]
    fn the_standard_s_examples_inflate() {
        for takeover in [true, false] {
            for (message, expected) in [
                (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], "Hello"),
                (&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00][..], "Hello"),
                (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00][..], "Hello"),
                (&[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00][..], "Hello"),
                (&[0x00][..], ""),
            ] {
                let mut inflater = inflater(takeover);
                for _ in 0..3 {
                    assert_eq!(text(&mut inflater, message).as_deref(), Ok(expected), "{message:x?}");
                }
            }
        }
        let mut inflater = inflater(true);
        assert_eq!(text(&mut inflater, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]).as_deref(), Ok("Hello"));
        assert_eq!(text(&mut inflater, &[0xf2, 0x00, 0x11, 0x00, 0x00]).as_deref(), Ok("Hello"));
    }

    #[test]
    fn a_final_block_or_an_empty_message_leaves_the_next_one_whole() {
        for takeover in [true, false] {
            let mut inflater = inflater(takeover);
            // A final block without the byte that pads it, and a message of no bytes at all.
            for message in [&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], &[0_u8; 0][..], &[0x00][..]] {
                text(&mut inflater, message).unwrap();
                let next = text(&mut inflater, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
                assert_eq!(next.as_deref(), Ok("Hello"), "after {message:x?}");
            }
        }
    }

    #[test]
    fn without_takeover_a_message_cannot_refer_to_another() {
        let mut inflater = inflater(false);
        assert!(text(&mut inflater, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]).is_ok());
        assert!(text(&mut inflater, &[0xf2, 0x00, 0x11, 0x00, 0x00]).is_err());
        // What is broken spoils nothing that comes after it, on whatever connection of the thread.
        assert!(text(&mut inflater, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]).is_ok());
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let mut server = Server::new(true, 15);
        let mut inflater = Inflater::new(server.agreed());
        let mut bomb = |length: usize, limit: usize| {
            let mut out = Vec::new();
            let inflated = inflater.inflate(&server.deflate(&vec![b'x'; length]), limit, &mut out);
            assert!(out.capacity() <= limit + 1, "{} bytes of room for {limit}", out.capacity());
            inflated.map(|()| out.len())
        };
        assert_eq!(bomb(100_000, 100_000), Ok(100_000));
        assert_eq!(bomb(100_000, 99_999), Err(Violation::TooLarge { limit: 99_999 }));
        let mut inflater = Inflater::new(server.agreed());
        let bomb = Server::new(false, 15).deflate(&vec![0; 50 << 20]);
        assert!(bomb.len() < 100_000);
        assert_eq!(inflater.inflate(&bomb, LIMIT, &mut Vec::new()), Err(Violation::TooLarge { limit: LIMIT }));
    }

    #[test]
    fn garbage_does_not_inflate() {
        let broken = text(&mut inflater(true), &[0xff, 0xff, 0xff]).unwrap_err();
        assert!(matches!(broken, Violation::NotDeflate(_)), "{broken}");
        assert_eq!(broken.code(), 1007);
    }

    #[test]
    fn what_gains_nothing_goes_as_it_is() {
        let agreed = |bits| Agreed { server_takeover: true, client_window: bits };
        assert_eq!(deflate(b"", agreed(15)), None);
        assert_eq!(deflate(b"ab", agreed(15)), None);
        assert_eq!(deflate(&[b'x'; 1_000], agreed(8)), None);
        assert!(deflate(&[b'x'; 1_000], agreed(9)).unwrap().len() < 100);
    }

    /// Words that come again, so that messages refer to those before them, and some that do not.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            4 => prop::sample::select(vec!["token", " the", "{\"delta\":", " \u{d55c}\u{ad6d}", "0123456789"])
                .prop_map(|word| word.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..40),
        ];
        (prop::collection::vec(word, 0..40), 1_usize..60).prop_map(|(words, times)| words.concat().repeat(times))
    }

    proptest! {
        #[test]
        fn a_server_s_messages_come_out_as_they_went_in(
            messages in prop::collection::vec(message(), 1..12),
            takeover in any::<bool>(),
            bits in 9_u8..=15,
        ) {
            let mut server = Server::new(takeover, bits);
            let mut inflater = Inflater::new(server.agreed());
            for message in messages {
                let (mut out, wire) = (Vec::new(), server.deflate(&message));
                prop_assert_eq!(inflater.inflate(&wire, message.len(), &mut out), Ok(()));
                prop_assert_eq!(out, message);
            }
        }

        #[test]
        fn our_messages_come_out_as_they_went_in(
            messages in prop::collection::vec(message(), 1..8),
            client_window in 9_u8..=15,
        ) {
            // With the window that the server asked for and no greater one.
            let mut state = Decompress::new_with_window_bits(false, client_window);
            for message in messages {
                let Some(wire) = deflate(&message, Agreed { server_takeover: true, client_window }) else { continue };
                let mut out = Vec::new();
                prop_assert_eq!(inflate(&mut state, &wire, message.len(), &mut out), Ok(()));
                prop_assert_eq!(out, message);
            }
        }

        #[test]
        fn no_bytes_are_too_wild(wire in prop::collection::vec(any::<u8>(), 0..200), takeover in any::<bool>()) {
            let (mut inflater, mut out) = (inflater(takeover), Vec::new());
            for _ in 0..2 {
                out.clear();
                let inflated = inflater.inflate(&wire, 1_000, &mut out);
                prop_assert!(inflated.is_err() || out.len() <= 1_000);
            }
        }
    }
}
