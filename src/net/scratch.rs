//! Where a thread's reads go. What is read is used at once, so an idle connection needs no room of its own.

use std::cell::RefCell;

use tokio::io::ReadBuf;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 16 << 10]);
}

/// Gives a read the thread's room; what it puts there is gone after it.
pub(super) fn with_scratch<T>(read: impl FnOnce(&mut ReadBuf<'_>) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| read(&mut ReadBuf::new(scratch)))
}
