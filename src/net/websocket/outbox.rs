//! What is to be sent: whole frames that wait until the socket takes them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::AsyncWrite;

use super::super::connect::Stream;
use super::super::http1::classify;
use super::SocketError;
use super::deflate::{Agreed, deflate};
use super::frame::{self, CONTROL, Opcode};

/// As long as more bytes than this wait, nothing is added to them.
const UNSENT: usize = 1 << 20;
/// The most room that is kept when nothing waits.
const KEPT: usize = 1 << 10;

/// What can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping, of which the first 125 bytes are sent.
    Ping(&'a [u8]),
    /// A pong that nobody asked for, of which the first 125 bytes are sent; pings are answered anyway.
    Pong(&'a [u8]),
    /// A close with its code (RFC 6455, 7.4; one that may not be sent goes as 1000) and reason, of which the first 123
    /// bytes are sent. Nothing can be sent after it.
    Close(u16, &'a str),
}

/// Random bytes that nobody can guess: for masks, and for the key of an upgrade (RFC 6455, 10.3 and 4.1).
pub(super) fn random<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).expect("the system has random bytes");
    bytes
}

/// The frames that wait.
pub(super) struct Outbox {
    /// Where compression was agreed on.
    agreed: Option<Agreed>,
    unsent: Vec<u8>,
    /// How many of them the socket has taken.
    taken: usize,
    /// Whether some of what was taken may still lie in TLS.
    unflushed: bool,
    /// Whether a close is among what was queued.
    closed: bool,
    /// Whether something found no room.
    overflowed: bool,
    /// Why the socket takes no more.
    refused: Option<SocketError>,
}

impl Outbox {
    /// With what is left of the request for the upgrade.
    pub(super) fn new(agreed: Option<Agreed>, request: Option<Bytes>) -> Self {
        Self {
            agreed,
            unflushed: request.is_some(),
            unsent: request.map(Vec::from).unwrap_or_default(),
            taken: 0,
            closed: false,
            overflowed: false,
            refused: None,
        }
    }

    /// Queues what a user sends. Where too much waits it is lost, which [`Self::failure`] tells.
    pub(super) fn queue(&mut self, message: Outgoing<'_>) {
        match message {
            Outgoing::Close(code, reason) => self.close(Some(code), reason),
            _ if !self.has_room() => self.overflowed = true,
            Outgoing::Text(text) => self.message(Opcode::Text, text.as_bytes()),
            Outgoing::Binary(data) => self.message(Opcode::Binary, data),
            Outgoing::Ping(data) => self.frame(Opcode::Ping, false, &data[..data.len().min(CONTROL)]),
            Outgoing::Pong(data) => self.frame(Opcode::Pong, false, &data[..data.len().min(CONTROL)]),
        }
    }

    /// Answers a ping. A server that reads none of the answers gets no more of them.
    pub(super) fn pong(&mut self, data: &[u8]) {
        if self.has_room() {
            self.frame(Opcode::Pong, false, data);
        }
    }

    /// Closes, or answers a close, unless that was done.
    pub(super) fn close(&mut self, code: Option<u16>, reason: &str) {
        self.frame(Opcode::Close, false, &frame::close_payload(code, reason));
        self.closed = true;
    }

    fn has_room(&self) -> bool {
        self.unsent.len() - self.taken <= UNSENT
    }

    fn message(&mut self, opcode: Opcode, data: &[u8]) {
        match self.agreed.and_then(|agreed| deflate(data, agreed)) {
            Some(deflated) => self.frame(opcode, true, &deflated),
            None => self.frame(opcode, false, data),
        }
    }

    fn frame(&mut self, opcode: Opcode, compressed: bool, payload: &[u8]) {
        if !self.closed {
            frame::write(&mut self.unsent, opcode, compressed, payload, random());
        }
    }

    /// What went wrong with sending, if anything did.
    pub(super) fn failure(&mut self) -> Option<SocketError> {
        self.overflow().or_else(|| self.refused.take())
    }

    /// Whether something was lost because too much waits.
    pub(super) fn overflow(&mut self) -> Option<SocketError> {
        let lost = std::mem::take(&mut self.overflowed);
        lost.then(|| SocketError::Protocol(format!("more than {UNSENT} bytes wait that the server does not read")))
    }

    /// Writes what waits. Ready when nothing does, or nothing more will be taken.
    pub(super) fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        while self.taken < self.unsent.len() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &self.unsent[self.taken..])) {
                Ok(0) => return self.refuse(SocketError::Closed),
                Ok(count) => (self.taken, self.unflushed) = (self.taken + count, true),
                Err(error) => return self.refuse(classify(&error).into()),
            }
        }
        if self.unflushed {
            if let Err(error) = ready!(Pin::new(stream).poll_flush(cx)) {
                return self.refuse(classify(&error).into());
            }
            self.forget();
        }
        Poll::Ready(())
    }

    fn refuse(&mut self, why: SocketError) -> Poll<()> {
        self.refused = Some(why);
        // Whatever is queued from now on would be refused as well.
        self.closed = true;
        self.forget();
        Poll::Ready(())
    }

    fn forget(&mut self) {
        (self.taken, self.unflushed) = (0, false);
        self.unsent.clear();
        self.unsent.shrink_to(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        Outbox::new(None, None)
    }

    /// The opcodes of what waits, each frame shorter than 126 bytes.
    fn opcodes(outbox: &Outbox) -> Vec<u8> {
        let (mut rest, mut found) = (&outbox.unsent[..], Vec::new());
        while let [first, second, ..] = rest {
            found.push(first & 0x0f);
            rest = &rest[6 + usize::from(second & 0x7f)..];
        }
        found
    }

    #[test]
    fn nothing_follows_a_close() {
        let mut outbox = outbox();
        outbox.queue(Outgoing::Text("a"));
        outbox.queue(Outgoing::Ping(&[0; 200]));
        outbox.queue(Outgoing::Close(1000, ""));
        outbox.pong(b"late");
        outbox.close(Some(1000), "again");
        outbox.queue(Outgoing::Binary(b"late"));
        assert_eq!(opcodes(&outbox), [0x1, 0x9, 0x8]);
        assert!(outbox.failure().is_none());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut outbox = outbox();
        // One message may be as large as it likes.
        outbox.queue(Outgoing::Binary(&vec![0; 2 * UNSENT]));
        let waiting = outbox.unsent.len();
        assert!(waiting > 2 * UNSENT && outbox.failure().is_none());
        outbox.pong(b"?");
        assert_eq!((outbox.unsent.len(), outbox.failure().is_none()), (waiting, true));
        outbox.queue(Outgoing::Text("a"));
        assert_eq!(outbox.unsent.len(), waiting);
        assert!(matches!(outbox.failure(), Some(SocketError::Protocol(_))));
        // Leaving is always possible.
        outbox.queue(Outgoing::Close(1000, ""));
        assert_eq!(outbox.unsent.len(), waiting + 8);
    }

    #[test]
    fn a_message_is_compressed_where_that_was_agreed_on() {
        let text = "again and ".repeat(20);
        let agreed = Agreed::read("permessage-deflate").ok();
        for (agreed, first, shorter) in [(None, 0x81, false), (agreed, 0xc1, true)] {
            let mut outbox = Outbox::new(agreed, None);
            outbox.queue(Outgoing::Text(&text));
            assert_eq!((outbox.unsent[0], outbox.unsent.len() < text.len()), (first, shorter));
        }
    }

    #[test]
    fn masks_differ() {
        assert_ne!(random::<16>(), random::<16>());
    }
}
