//! Receive stamps: when the bytes of a read arrived, as a pair of bounds.
//!
//! TCP merges queued segments, and then only the *last* one's stamp survives. So the stamp of a
//! read is exact for what its last segment completed, and an upper bound for what came before.
//! The lower bound is the later of two moments at which these bytes were certainly not there:
//! the return of this socket's previous read, if that took all there was, and the event loop's previous look at all
//! sockets.

use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;

use mock_llm::receive::{Received, Receiver};

use crate::clock::{self, Nanos, Pairing};

/// What is known about the arrival of a read's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadStamp {
    /// The number of the read on its socket, from 1.
    pub read: u64,
    /// When the last segment arrived: the kernel's stamp, or `returned` where there is none.
    pub latest: Nanos,
    /// When the first byte of the read can have arrived at the earliest.
    pub earliest: Nanos,
    /// When the read returned to user space.
    pub returned: Nanos,
    /// Whether `latest` is the kernel's stamp.
    pub kernel: bool,
    /// Whether the bytes end with a line, so that the last segment completed what was last in them.
    pub whole: bool,
    /// Whether it left nothing in the socket.
    pub drained: bool,
}

thread_local! {
    /// The two newest moments at which this thread's event loop came back from the kernel.
    static LOOKS: Cell<(Nanos, Nanos)> = const { Cell::new((0, 0)) };
    static PAIRING: Cell<Option<Pairing>> = const { Cell::new(None) };
    static STEPS: Cell<u64> = const { Cell::new(0) };
    static RECEIVER: RefCell<Receiver> = RefCell::new(Receiver::default());
}

/// Notes that this thread's event loop has just come back from the kernel with what is ready.
/// Install it as the runtime's `on_thread_unpark`.
pub fn loop_turned() {
    let now = clock::monotonic();
    LOOKS.with(|looks| looks.set((looks.get().1, now)));
}

/// Measures the distance between the kernel's wall-clock stamps and the run's clock again;
/// once a second is often enough. A step of the wall clock is counted.
pub fn refresh_pairing() {
    let pairing = Pairing::measure();
    let stepped = PAIRING.replace(Some(pairing)).is_some_and(|before| before.stepped(pairing));
    STEPS.with(|steps| steps.set(steps.get() + u64::from(stepped)));
}

/// Steps of the wall clock seen on this thread.
pub fn clock_stepped() -> u64 {
    STEPS.get()
}

fn pairing() -> Pairing {
    PAIRING.get().unwrap_or_else(|| {
        let pairing = Pairing::measure();
        PAIRING.set(Some(pairing));
        pairing
    })
}

/// Reads once, into `bytes`, from a socket that has `SO_TIMESTAMPNS` set: how many bytes came, and their stamp.
/// `previous` is the stamp of the socket's previous read.
pub(super) fn receive(socket: &impl AsRawFd, bytes: &mut [u8], previous: ReadStamp) -> nix::Result<(usize, ReadStamp)> {
    let Received { count, stamp: kernel, drained } =
        RECEIVER.with_borrow_mut(|receiver| receiver.receive(socket, bytes))?;
    let pairing = pairing();
    let returned = pairing.to_monotonic(clock::realtime());
    // A stamp later than now belongs to a clock that was stepped: fall back to now.
    let stamp = kernel.map(|wall| pairing.to_monotonic(clock::nanos(wall))).filter(|latest| *latest <= returned);
    let latest = stamp.unwrap_or(returned);
    // What a read left behind may have been there as long as what it took.
    let absent = if previous.drained { LOOKS.get().0.max(previous.returned) } else { previous.earliest };
    let whole = bytes[..count].ends_with(b"\n");
    let (read, earliest, kernel) = (previous.read + 1, absent.min(latest), stamp.is_some());
    Ok((count, ReadStamp { read, latest, earliest, returned, kernel, whole, drained }))
}
