//! `mock-llm`: the mock LLM as a program of its own.

use std::process::ExitCode;

use clap::Parser;
use mock_llm::cli::{MockArgs, MockError};

/// A deterministic mock LLM with an exact token schedule and a journal. It serves POST /v1/chat/completions and
/// /v1/responses (OpenAI), /v1/messages (Anthropic) and /api/chat (Ollama), streamed or not.
#[derive(Parser)]
#[command(name = "mock-llm", version)]
struct Cli {
    #[command(flatten)]
    mock: MockArgs,
}

fn main() -> ExitCode {
    let args = Cli::parse().mock;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(MockError::Serve).and_then(|runtime| {
        let result = runtime.block_on(args.run());
        // A read of standard input may still be blocking a thread.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mock-llm: {error}");
            ExitCode::from(2)
        }
    }
}
