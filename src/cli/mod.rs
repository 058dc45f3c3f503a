//! The command line: one file a subcommand; alone knows everything.

mod accounts;
mod args;
mod assemble;
mod calibrate;
mod child;
mod console;
mod folder;
mod overlay;
mod plan;
mod preflight;
mod progress;
mod ready;
mod render;
mod resolve;
mod route;
mod run;
mod sign_in;
mod watch;

use clap::Parser;
use mock_llm::cli::MockArgs;
use reference_chat::cli::ReferenceArgs;

use crate::exit::Exit;
use args::RunArgs;

/// How many users does an LLM chat deployment carry, what runs out first, and what must change?
#[derive(Parser)]
#[command(name = "capacity-check", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
#[command(after_help = args::EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say what a run will do before it does: duration, turns, tokens, streams, documents, accounts.
    Plan(plan::PlanArgs),
    /// Read a scenario and tell every problem of it, with its place.
    Validate(plan::ValidateArgs),
    /// Print the JSON Schema of a scenario, or of a result.
    Schema(plan::SchemaArgs),
    /// Render a report from a result.json, of this version or an older one.
    Report(render::ReportArgs),
    /// Make or remove accounts for a test of LibreChat.
    Accounts(accounts::AccountsArgs),
    /// Find out in 20 s what this machine carries as a generator, and how exact it is then.
    Calibrate(calibrate::CalibrateArgs),
    /// Run the bundled mock LLM alone.
    MockLlm(MockArgs),
    /// Run the reference deployment alone: LibreChat's shapes, the costs of Node processes.
    ReferenceChat(ReferenceArgs),
}

/// Parses the command line and does what it says.
pub fn main() -> Exit {
    // Another crate may bring another provider one day; rustls panics unless one is chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; where they cannot be printed nobody reads them.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Pass };
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(crate::net::loop_turned)
        .build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("capacity-check: cannot start: {error}");
            return Exit::Stopped;
        }
    };
    let exit = match cli.command {
        Some(Command::MockLlm(args)) => served("mock-llm", runtime.block_on(args.run())),
        Some(Command::Plan(args)) => plan::plan(&args),
        Some(Command::Validate(args)) => plan::validate(&args),
        Some(Command::Schema(args)) => plan::schema(&args),
        Some(Command::Report(args)) => render::run(&args),
        Some(Command::Calibrate(args)) => runtime.block_on(calibrate::run(args)),
        Some(Command::Accounts(args)) => runtime.block_on(accounts::run(args)),
        Some(Command::ReferenceChat(args)) => served("reference-chat", runtime.block_on(args.run())),
        None => runtime.block_on(run::run(cli.run)),
    };
    // A read of standard input may still block a thread.
    runtime.shutdown_timeout(std::time::Duration::ZERO);
    exit
}

/// How a server of ours ended that was run alone.
fn served(name: &str, done: Result<(), impl std::fmt::Display>) -> Exit {
    match done {
        Ok(()) => Exit::Pass,
        Err(error) => {
            eprintln!("capacity-check {name}: {error}");
            Exit::Usage
        }
    }
}
