//! `reference-chat`: the reference deployment as a program of its own.

use std::process::ExitCode;

use clap::Parser;
use reference_chat::cli::{ReferenceArgs, ReferenceError};

/// A chat deployment in LibreChat's shapes, with the cost model of a Node process.
#[derive(Parser)]
#[command(name = "reference-chat", version)]
struct Cli {
    #[command(flatten)]
    reference: ReferenceArgs,
}

fn main() -> ExitCode {
    let args = Cli::parse().reference;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(ReferenceError::Serve).and_then(|runtime| {
        let result = runtime.block_on(args.run());
        // A read of standard input may still be blocking a thread.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reference-chat: {error}");
            ExitCode::from(2)
        }
    }
}
