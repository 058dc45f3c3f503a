//! permessage-deflate (RFC 7692): its terms, and messages inflated and deflated with flate2.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What is offered, as browsers do.
pub(super) const OFFER: &str = "permessage-deflate; client_max_window_bits";
/// What ends every message and is left out on the wire (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// By how much an output buffer grows.
const STEP: usize = 4 << 10;
/// The size of the window that flate2 deflates with, as an exponent.
const OUR_WINDOW: u8 = 15;

thread_local! {
    /// A compressor is large and forgets everything between messages, so a thread has one.
    static COMPRESS: RefCell<Option<Compress>> = const { RefCell::new(None) };
}

/// What a server has agreed to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Whether it forgets everything between messages.
    server_forgets: bool,
    /// The window that we may use, as an exponent.
    client_window: u8,
}

impl Terms {
    /// Reads the server's answer (RFC 7692, 7.1).
    pub(super) fn read(extension: &str) -> Result<Self, String> {
        let mut parts = extension.split(';').map(str::trim);
        if parts.next() != Some("permessage-deflate") {
            return Err(format!("the extension `{extension}`, which was not offered"));
        }
        let mut terms = Self { server_forgets: false, client_window: OUR_WINDOW };
        let mut seen: Vec<&str> = Vec::new();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (part, None),
            };
            if seen.contains(&name) {
                return Err(format!("`{name}` twice in permessage-deflate"));
            }
            seen.push(name);
            let window = || match value.map(str::parse) {
                Some(Ok(bits @ 8..=15)) if !value.is_some_and(|value| value.starts_with('0')) => Ok(bits),
                _ => Err(format!("`{part}` in permessage-deflate; a window is from 8 to 15")),
            };
            match (name, value) {
                ("server_no_context_takeover", None) => terms.server_forgets = true,
                // We forget everything anyhow.
                ("client_no_context_takeover", None) => {}
                // Ours takes windows of every size.
                ("server_max_window_bits", _) => {
                    window()?;
                }
                ("client_max_window_bits", _) => terms.client_window = window()?,
                _ => return Err(format!("`{part}` in permessage-deflate")),
            }
        }
        Ok(terms)
    }

    /// The two directions of a socket whose messages may have so many bytes. What we send goes plain, which is
    /// always allowed, where a smaller window is wanted than flate2 deflates with.
    pub(super) fn begin(self, limit: usize) -> (Option<Inflate>, Option<Deflate>) {
        let inflate = Inflate { inner: None, forgets: self.server_forgets, limit };
        (Some(inflate), (self.client_window == OUR_WINDOW).then_some(Deflate))
    }
}

/// Why a message cannot be inflated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is larger than the limit.
    TooLarge,
    /// It is no deflated data.
    Broken,
}

/// Inflates what the server sends.
pub(super) struct Inflate {
    /// Some 48 KiB: made for the first message that wants it, and kept only as long as it remembers something.
    inner: Option<Box<Decompress>>,
    forgets: bool,
    limit: usize,
}

impl Inflate {
    /// Inflates a whole message.
    pub(super) fn message(&mut self, data: &[u8]) -> Result<Vec<u8>, Wrong> {
        let mut message = Vec::new();
        let mut inner = self.inner.take().unwrap_or_else(|| Box::new(Decompress::new(false)));
        self.some(&mut inner, data, &mut message)?;
        self.some(&mut inner, &TAIL, &mut message)?;
        self.inner = (!self.forgets).then_some(inner);
        Ok(message)
    }

    fn some(&self, inner: &mut Decompress, mut data: &[u8], message: &mut Vec<u8>) -> Result<(), Wrong> {
        loop {
            if message.len() > self.limit {
                return Err(Wrong::TooLarge);
            }
            if message.len() == message.capacity() {
                message.reserve(STEP);
            }
            let (taken, given) = (inner.total_in(), inner.total_out());
            let status = inner.decompress_vec(data, message, FlushDecompress::Sync);
            let status = status.map_err(|_| Wrong::Broken)?;
            data = &data[(inner.total_in() - taken) as usize..];
            let moved = inner.total_in() > taken || inner.total_out() > given;
            match status {
                // A block that says it is the last one is allowed (RFC 7692, 7.2.3.4); what follows begins anew.
                Status::StreamEnd => {
                    inner.reset(false);
                    if data.is_empty() {
                        return Ok(());
                    }
                }
                // There may be more to come out where the buffer was filled.
                Status::Ok | Status::BufError if message.len() == message.capacity() => {}
                _ if data.is_empty() => return Ok(()),
                _ if moved => {}
                _ => return Err(Wrong::Broken),
            }
        }
    }
}

/// Deflates what we send, each message by itself: that fits whatever was agreed on.
pub(super) struct Deflate;

impl Deflate {
    /// Deflates a whole message.
    #[expect(clippy::unused_self, reason = "whoever has one may deflate")]
    pub(super) fn message(&mut self, data: &[u8]) -> Vec<u8> {
        COMPRESS.with_borrow_mut(|compress| {
            let compress = compress.get_or_insert_with(|| Compress::new(Compression::fast(), false));
            compress.reset();
            let mut wire = Vec::with_capacity(data.len() / 2 + 64);
            loop {
                let taken = compress.total_in() as usize;
                // Into memory, with a compressor that was just reset: this cannot fail.
                let _ = compress.compress_vec(&data[taken..], &mut wire, FlushCompress::Sync);
                if compress.total_in() as usize == data.len() && wire.len() < wire.capacity() {
                    break;
                }
                wire.reserve(STEP);
            }
            if wire.ends_with(&TAIL) {
                wire.truncate(wire.len() - TAIL.len());
            }
            // An empty message is one byte (RFC 7692, 7.2.3.6).
            if wire.is_empty() {
                wire.push(0);
            }
            wire
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inflate(forgets: bool, limit: usize) -> Inflate {
        Terms { server_forgets: forgets, client_window: 15 }.begin(limit).0.unwrap()
    }

    #[test]
    fn the_server_s_terms_are_read() {
        let terms = |server_forgets, client_window| Ok(Terms { server_forgets, client_window });
        assert_eq!(Terms::read("permessage-deflate"), terms(false, 15));
        let long = "permessage-deflate; server_no_context_takeover;client_no_context_takeover; \
                    server_max_window_bits=10; client_max_window_bits=\"9\"";
        assert_eq!(Terms::read(long), terms(true, 9));
        for wrong in [
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; level=9",
        ] {
            assert!(Terms::read(wrong).is_err(), "{wrong}");
        }
        assert!(Terms::read("permessage-deflate; client_max_window_bits=9").unwrap().begin(1).1.is_none());
    }

    /// The examples of RFC 7692, 7.2.3.
    #[test]
    fn the_examples_of_the_standard_are_hello() {
        let hello = b"Hello".to_vec();
        let first: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let mut remembering = inflate(false, 100);
        assert_eq!(remembering.message(&first), Ok(hello.clone()));
        // The second one refers to the first (7.2.3.2).
        assert_eq!(remembering.message(&[0xf2, 0x00, 0x11, 0x00, 0x00]), Ok(hello.clone()));
        let mut forgetting = inflate(true, 100);
        assert_eq!(forgetting.message(&first), Ok(hello.clone()));
        assert_eq!(forgetting.message(&[0xf2, 0x00, 0x11, 0x00, 0x00]), Err(Wrong::Broken));
        // Without compression (7.2.3.3), a last block (7.2.3.4), two blocks (7.2.3.5).
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        assert_eq!(inflate(false, 100).message(&stored), Ok(hello.clone()));
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(inflate(false, 100).message(&last), Ok(hello.clone()));
        let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(false, 100).message(&two), Ok(hello));
        assert_eq!(inflate(false, 100).message(&[0x00]), Ok(Vec::new()));
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let bomb = Deflate.message(&vec![b'a'; 10 << 20]);
        assert!(bomb.len() < 500_000);
        assert_eq!(inflate(false, 1 << 20).message(&bomb), Err(Wrong::TooLarge));
        assert_eq!(inflate(false, 10 << 20).message(&bomb).map(|message| message.len()), Ok(10 << 20));
        assert_eq!(inflate(false, 100).message(&[0xff; 40]), Err(Wrong::Broken));
    }

    /// Deflates as a server that remembers what it has sent.
    fn remembering(compress: &mut Compress, data: &[u8]) -> Vec<u8> {
        let (mut wire, before) = (Vec::with_capacity(data.len() * 2 + 64), compress.total_in());
        while ((compress.total_in() - before) as usize) < data.len() || wire.len() == wire.capacity() {
            wire.reserve(STEP);
            let taken = (compress.total_in() - before) as usize;
            compress.compress_vec(&data[taken..], &mut wire, FlushCompress::Sync).unwrap();
        }
        if data.is_empty() {
            compress.compress_vec(&[], &mut wire, FlushCompress::Sync).unwrap();
        }
        if wire.ends_with(&TAIL) { wire[..wire.len() - TAIL.len()].to_vec() } else { vec![0] }
    }

    proptest! {
        /// Whatever is said comes out as it was said, with the server remembering or not, large and small in turns.
        #[test]
        fn messages_come_through(
            messages in proptest::collection::vec(("[a-e ]{0,40}", 0_usize..400), 1..30), forgets: bool,
        ) {
            let mut compress = Compress::new(Compression::default(), false);
            let mut receiving = inflate(forgets, 1 << 20);
            for (text, times) in messages {
                let message = text.repeat(times).into_bytes();
                if forgets {
                    compress.reset();
                }
                let wire = remembering(&mut compress, &message);
                prop_assert_eq!(receiving.message(&wire), Ok(message.clone()));
                prop_assert_eq!(inflate(true, 1 << 20).message(&Deflate.message(&message)), Ok(message));
            }
        }

        /// Bytes that compress to nothing less.
        #[test]
        fn noise_comes_through(noise in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            prop_assert_eq!(inflate(false, 1 << 20).message(&Deflate.message(&noise)), Ok(noise));
        }

        /// Nothing that a server sends makes it panic.
        #[test]
        fn rubbish_is_told(rubbish in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = inflate(false, 1_000).message(&rubbish);
        }
    }
}
