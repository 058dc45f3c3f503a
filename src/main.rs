//! `capacity-check`: parse, call, map to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    capacity_check::cli::main().into()
}
