//! What is tested, and whether it may be.

use std::path::Path;

use mock_llm::behaviour::Behaviour;
use mock_llm::distribution::parse_duration;
use reference_chat::Plant;
use serde_json::Value;
use url::Url;

use super::protocol::{Described, described};
use super::{For, Problems};
use crate::cli::overlay::Wish;
use crate::scenario::file::{Profile, ScenarioFile, SsePreset, TargetSection};
use crate::scenario::{Accounts, Reference, Target, is_private, plain_url};

pub(super) fn target(wish: &Wish, what_for: For, problems: &mut Problems<'_>) -> Option<Target> {
    let file = &wish.file;
    let TargetSection { url, profile, mock_admin, endpoint, ca_file, .. } = &file.target;
    let Some(text) = url else { return embedded(wish, problems) };
    let profile = profile.unwrap_or(Profile::Openai);
    let base = problems.take("target.url", base(file, profile, text));
    let mock_admin = mock_admin.as_deref().and_then(|text| problems.take("target.mock_admin", plain_url(text)));
    if let (Some(path), For::Running) = (ca_file, what_for)
        && let Err(error) = std::fs::metadata(path)
    {
        problems.add("target.ca_file", format!("cannot read {}: {error}", path.display()));
    }
    only_embedded(wish, problems);
    for (path, url) in [("target.url", base.as_ref()), ("target.mock_admin", mock_admin.as_ref())] {
        if let Some(url) = url {
            problems.take(path, consent(url, &file.authorized));
        }
    }
    let described = described(wish, profile, problems);
    if let Some(described) = &described {
        described.wants(wish, problems);
    }
    let of_librechat = [
        ("target.endpoint", endpoint.is_some()),
        ("accounts.file", file.accounts.file.is_some() && profile == Profile::Openai),
        ("accounts.register", file.accounts.register == Some(true)),
    ];
    if profile != Profile::Librechat {
        for (path, _) in of_librechat.into_iter().filter(|(_, given)| *given) {
            problems.add(path, "is for --profile librechat");
        }
    }
    if let (Some(_), Some(true)) = (&file.accounts.file, file.accounts.register) {
        problems.add("accounts.register", "say one of a list and registration");
    }
    let registers = file.accounts.register.unwrap_or(false);
    if profile == Profile::Librechat && file.accounts.file.is_none() && !registers {
        problems.add(
            "accounts.file",
            "LibreChat wants a login for every user: name a list with --accounts FILE (`capacity-check accounts \
             create` makes one), or make the accounts by --register",
        );
    }
    let base = base?;
    Some(match (profile, &file.accounts.file) {
        (Profile::Openai, _) => Target::OpenAi { base, mock_admin },
        (Profile::Sse | Profile::Websocket | Profile::Socketio, accounts) => {
            let Described { protocol, site } = described?;
            Target::Described { base, mock_admin, protocol, site: Box::new(site), accounts: accounts.clone() }
        }
        (Profile::Librechat, accounts) => Target::LibreChat {
            base,
            mock_admin,
            endpoint: endpoint.clone(),
            accounts: accounts.clone().map_or(Accounts::Registration, |file| Accounts::List { file }),
        },
    })
}

/// The base that an address means to a profile.
fn base(file: &ScenarioFile, profile: Profile, text: &str) -> Result<Url, String> {
    let preset = file.target.sse.as_ref().and_then(|section| section.preset);
    match profile {
        Profile::Openai => Target::openai_base(text),
        Profile::Sse if preset.is_some_and(SsePreset::is_below_v1) => Target::openai_base(text),
        Profile::Librechat | Profile::Sse => plain_url(text),
        Profile::Websocket | Profile::Socketio => match text.split_once("://") {
            Some(("ws", rest)) => plain_url(&format!("http://{rest}")),
            Some(("wss", rest)) => plain_url(&format!("https://{rest}")),
            _ => plain_url(text),
        },
    }
}

/// What would go unheard with a target of somebody's own.
fn only_embedded(wish: &Wish, problems: &mut Problems<'_>) {
    let file = &wish.file;
    let reference = serde_json::to_value(&file.reference).expect("plain data");
    let given = reference.as_object().into_iter().flatten().find(|(_, value)| !value.is_null());
    if let Some((name, _)) = given {
        let message = "is for the embedded deployment, which is started where no target is named";
        problems.add(&format!("reference.{name}"), message);
    }
    for (typed, flag) in
        [(&wish.stores.reference_mongo, "--reference-mongo"), (&wish.stores.reference_redis, "--reference-redis")]
    {
        if typed.is_some() {
            problems.add(flag, "is for the embedded deployment, which is started where no target is named");
        }
    }
    if !file.mock.is_empty() {
        let message = "is for the embedded deployment; configure the mock behind a target with `mock-llm --config`";
        problems.add("mock", message);
    }
}

fn embedded(wish: &Wish, problems: &mut Problems<'_>) -> Option<Target> {
    let file = &wish.file;
    let TargetSection { profile, mock_admin, endpoint, ca_file, sni, client_cert, resolve, proxy, .. } = &file.target;
    let for_targets = [
        ("target.profile", profile.is_some_and(|profile| profile != Profile::Openai)),
        ("target.sse", file.target.sse.is_some()),
        ("target.websocket", file.target.websocket.is_some()),
        ("target.socketio", file.target.socketio.is_some()),
        ("target.site", file.target.site.is_some()),
        ("target.values_env", !file.target.values_env.is_empty()),
        ("target.mock_admin", mock_admin.is_some()),
        ("target.endpoint", endpoint.is_some()),
        ("target.ca_file", ca_file.is_some()),
        ("target.sni", sni.is_some()),
        ("target.client_cert", client_cert.is_some()),
        ("target.resolve", resolve.is_some()),
        ("target.proxy", proxy.is_some()),
        ("accounts.file", file.accounts.file.is_some()),
        ("accounts.register", file.accounts.register == Some(true)),
    ];
    for (path, _) in for_targets.into_iter().filter(|(_, given)| *given) {
        problems.add(path, "wants a --target; the embedded deployment needs none of it");
    }
    let mock = mock(file, problems);
    let section = &file.reference;
    let workers = section.workers.unwrap_or(1);
    if !(1..=256).contains(&workers) {
        problems.add("reference.workers", "should be from 1 to 256");
    }
    for text in &section.plants {
        problems.take("reference.plants", Plant::parse(text));
    }
    let mongo = wish.stores.reference_mongo.is_some() || section.mongo_env.is_some();
    let redis = wish.stores.reference_redis.is_some() || section.redis_env.is_some();
    if let Some(pool) = section.mongo_pool {
        if pool == 0 {
            problems.add("reference.mongo_pool", "should be 1 or more");
        }
        if !mongo {
            problems.add("reference.mongo_pool", "wants --reference-mongo");
        }
    }
    let mut cost = |name: &str, text: &Option<String>| {
        let cost = text.as_deref().map(|text| problems.take(&format!("reference.{name}"), parse_duration(text)));
        cost.flatten()
    };
    let reference = Reference {
        plants: section.plants.clone(),
        mongo,
        mongo_pool: section.mongo_pool,
        redis,
        workers: workers as usize,
        default_limits: section.default_limits.unwrap_or(false),
        one_step: section.one_step.unwrap_or(false),
        login_cost: cost("login_cost", &section.login_cost),
        turn_cost: cost("turn_cost", &section.turn_cost),
        token_cost: cost("token_cost", &section.token_cost),
        fixed_latency: cost("fixed_latency", &section.fixed_latency),
    };
    Some(Target::Embedded { mock: Box::new(mock?), reference })
}

/// How the embedded mock behaves: the section's own tree, or a file of it.
fn mock(file: &ScenarioFile, problems: &mut Problems<'_>) -> Option<Behaviour> {
    let (path, read) = match file.mock.get("config") {
        Some(_) if file.mock.len() > 1 => {
            problems.add("mock.config", "stands alone: what it says is all that is said");
            return None;
        }
        Some(Value::String(config)) => match std::fs::read_to_string(Path::new(config)) {
            Ok(text) => ("mock", Behaviour::from_toml(&text)),
            Err(error) => {
                problems.add("mock", format!("cannot read {config}: {error}"));
                return None;
            }
        },
        _ => ("", Behaviour::from_value(Value::Object(file.mock.clone()))),
    };
    let behaviour = match read {
        Ok(behaviour) => behaviour,
        Err(found) => {
            for problem in found {
                match path {
                    "" => problems.add(&format!("mock.{}", problem.key), problem.message),
                    path => problems.add(path, problem.to_string()),
                }
            }
            return None;
        }
    };
    if behaviour.api_key.is_some() {
        problems.add("mock", "api_key: the embedded deployment sends none; leave it out");
    }
    Some(behaviour)
}

/// Whether a host may be tested: it is private, or somebody has named it.
///
/// # Errors
/// A sentence that says how to name it.
pub(in crate::cli) fn consent(url: &Url, named: &[String]) -> Result<(), String> {
    let host = url.host_str().unwrap_or_default();
    if is_private(url) || named.iter().any(|named| named.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(format!(
        "{host} is a public host, and a load test of a host that is not yours is an attack; \
         if you may test it, say so with --i-am-authorized-to-test {host}"
    ))
}
