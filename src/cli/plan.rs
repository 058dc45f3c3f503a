//! What can be said of a scenario without running it: `plan`, `validate`, `schema`.

use clap::{Args, ValueEnum};
use mock_llm::behaviour::{Behaviour, ModelBehaviour};

use super::args::RunArgs;
use super::console::Console;
use super::ready::measured_logins;
use super::resolve::{For, Resolved, resolve};
use crate::analysis::steady_needed;
use crate::exit::Exit;
use crate::lang::Texts;
use crate::plan::{Assumed, Forecast};
use crate::report::forecast;
use crate::result::RunResult;
use crate::scenario::{Scenario, Target, Tier, schema as scenario_schema};

/// The flags of `capacity-check plan`: those of a run.
#[derive(Debug, Clone, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    run: RunArgs,
}

/// The flags of `capacity-check validate`: those of a run.
#[derive(Debug, Clone, Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    run: RunArgs,
}

/// The flags of `capacity-check schema`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SchemaArgs {
    /// What it describes.
    #[arg(long, value_enum, default_value_t = Described::Scenario)]
    of: Described,
}

/// What has a schema.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Described {
    /// A scenario, for editors of TOML.
    Scenario,
    /// result.json.
    Result,
}

/// Says what a run will do.
pub(super) fn plan(args: &PlanArgs) -> Exit {
    let console = Console { json: false };
    looked_at(&args.run, console, |resolved| {
        let (assumed, known) = assumed(&resolved.scenario);
        let tiers = &resolved.scenario.load.tiers;
        let logins = if known { measured_logins(resolved.scenario.quick) } else { 0 };
        let steady = |tier: usize, rate| steady_needed(&tiers[tier].budgets, rate);
        let told = Forecast::new(&resolved.scenario, assumed, logins, steady);
        console.say(&forecast(&told, assumed, known, &Texts::new(resolved.output.lang)));
    })
}

/// Tells every problem of a scenario, or that there is none.
pub(super) fn validate(args: &ValidateArgs) -> Exit {
    let console = Console { json: false };
    looked_at(&args.run, console, |resolved| {
        let load = &resolved.scenario.load;
        let size = |tier: &Tier| tier.rate.map_or_else(|| tier.users.to_string(), |rate| rate.to_string());
        let sizes: Vec<String> = load.tiers.iter().map(size).collect();
        let unit = if load.arrivals.is_closed() { "users" } else { "turns/s" };
        let (name, kind) = (&resolved.scenario.name, resolved.scenario.target.kind());
        console.say(&format!("{name}: no problem found; target {kind}, tiers of {} {unit}", sizes.join(", ")));
    })
}

fn looked_at(args: &RunArgs, console: Console, then: impl FnOnce(&Resolved)) -> Exit {
    match resolve(args, For::Looking) {
        Ok(resolved) => {
            then(&resolved);
            Exit::Pass
        }
        Err(problems) => {
            let list: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            console.complain(&format!("{} problem(s):{list}", problems.len()));
            Exit::Usage
        }
    }
}

/// Prints a schema.
pub(super) fn schema(args: &SchemaArgs) -> Exit {
    let schema = match args.of {
        Described::Scenario => scenario_schema(),
        Described::Result => schemars::schema_for!(RunResult).to_value(),
    };
    Console { json: false }.say(&serde_json::to_string_pretty(&schema).expect("a schema is plain data"));
    Exit::Pass
}

/// The mean turn and reply, and whether they are those of a mock that the run itself starts.
fn assumed(scenario: &Scenario) -> (Assumed, bool) {
    let of = |model: &ModelBehaviour| Assumed { turn: model.mean_turn(), tokens: model.tokens.mean() };
    let fallback = Behaviour::default();
    let behaviour = match &scenario.target {
        Target::Embedded { mock, .. } => mock,
        _ => &fallback,
    };
    // The embedded run asks the first model that its mock serves, unless one is named.
    let named = scenario.model.as_ref().and_then(|name| behaviour.models.get(name));
    let model = named.or_else(|| behaviour.models.values().next());
    let known = matches!(scenario.target, Target::Embedded { .. });
    (model.map_or_else(|| of(&ModelBehaviour::default()), of), known)
}
