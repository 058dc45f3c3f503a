//! Where words go: to standard output, unless that belongs to the result.

use std::io::{self, Write};

/// The terminal of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Console {
    /// Whether standard output is for the result alone.
    pub(super) json: bool,
}

impl Console {
    /// Says something to the person who runs the tool.
    pub(super) fn say(self, text: &str) {
        // A reader that went away is not told anything more.
        let _ = if self.json { writeln!(io::stderr(), "{text}") } else { writeln!(io::stdout(), "{text}") };
    }

    /// Says why something did not work.
    pub(super) fn complain(self, text: &str) {
        let _ = writeln!(io::stderr(), "capacity-check: {text}");
    }

    /// The result itself, on standard output.
    pub(super) fn result(self, text: &str) {
        let _ = writeln!(io::stdout(), "{text}");
    }
}
