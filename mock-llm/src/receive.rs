//! One read from a socket, with the kernel's stamp of when its last bytes arrived.
//!
//! Both ends of a run read with it, so that a request at the mock and a token at the user are stamped alike: by
//! when they came, not by when a busy thread got round to them.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

/// Asks the kernel to stamp what arrives (`SO_TIMESTAMPNS`). Sockets that a listener accepts inherit it.
///
/// # Errors
/// What the system says.
pub fn stamp_arrivals(socket: &impl AsFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::ReceiveTimestampns, &true)
}

/// Reads sockets; has the room for what the kernel says beside the bytes, once a thread.
pub struct Receiver {
    control: Vec<u8>,
}

/// What one read gave.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// How many bytes; none at the end of the stream.
    pub count: usize,
    /// The kernel's stamp of the last segment that they came with, since the Unix epoch.
    pub stamp: Option<Duration>,
    /// Whether it was a short read, which leaves nothing in the socket.
    pub drained: bool,
}

impl Default for Receiver {
    fn default() -> Self {
        Self { control: nix::cmsg_space!(nix::sys::time::TimeSpec, [u64; 8]) }
    }
}

impl Receiver {
    /// Reads once, into `bytes`.
    ///
    /// # Errors
    /// What the system says; `EAGAIN` when nothing is there.
    pub fn receive(&mut self, socket: &impl AsRawFd, bytes: &mut [u8]) -> nix::Result<Received> {
        let room = bytes.len();
        let mut parts = [IoSliceMut::new(bytes)];
        let message = loop {
            match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut self.control), MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        let stamp = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        let count = message.bytes;
        Ok(Received { count, stamp, drained: count > 0 && count < room })
    }
}
