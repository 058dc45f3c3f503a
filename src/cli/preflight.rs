//! Before any ramp: one user's turn, and the look into the mock's journal.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use mock_llm::journal::Call;
use serde::Deserialize;
use url::Url;

use super::resolve::Secrets;
use crate::clock::{self, Nanos};
use crate::driver::{Driver, Live, Prompt, Trace};
use crate::net::Fetcher;
use crate::plan::marker;
use crate::record::{Outcome, Turn};
use crate::secret::{Secret, escaped};
use crate::trace::{MockAdmin, TraceError, WhiteSpace};

/// How long the journal may take to show the turn.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(3);
/// The bytes of a list of models that are read.
const MODELS_LIMIT: usize = 4 << 20;
/// The characters of an answer that are shown.
const SHOWN: usize = 200;

/// Why no ramp was begun. What was asked, what came back, what to check.
#[derive(Debug, thiserror::Error)]
pub(super) enum PreflightError {
    /// The target lists no model.
    #[error("the first look failed.\n  asked GET {url} for a model\n  came back: {answer}\n  check: {check}")]
    Models { url: String, answer: String, check: String },
    /// The turn did not complete.
    #[error(
        "one user's turn failed.\n  asked POST {url} for one turn of model `{model}`\n  came back: {outcome}: {detail}\n  check: {check}"
    )]
    Turn { url: String, model: String, outcome: Outcome, detail: String, check: &'static str },
    /// The turn completed without a word.
    #[error(
        "one user's turn failed.\n  asked POST {url} for one turn of model `{model}`\n  came back: a whole reply without a single token\n  check: {check}"
    )]
    Empty { url: String, model: String, check: &'static str },
    /// The model is not known to be our mock.
    #[error(
        "the target answers, but its model is not known to be the mock LLM: {why}.\n  Hundreds of users would spend somebody's tokens. Put `capacity-check mock-llm` behind the target and name its \
             admin listener with --mock-admin URL, or say --real-model"
    )]
    RealModel { why: String },
    /// The deployment adds to what a user says.
    #[error(
        "the mock LLM was asked about the turn, but never with the user's message as it was sent: something stands behind \
         it. Either the deployment adds to what users say, and then replies cannot be known in advance (switch that off \
         for the test), or only titles reach the mock, and another model answers the users (--endpoint, --model); with \
         --real-model the run goes on without tracing"
    )]
    Rewritten,
    /// Somebody was not let in.
    #[error(
        "{what} failed.\n  asked for {name}, after {before} that succeeded\n  came back: {outcome}: {detail}\n  check: {check}"
    )]
    SignIn { what: &'static str, name: String, before: u32, outcome: Outcome, detail: String, check: &'static str },
    /// Endpoints and models could not be read.
    #[error(
        "the first look failed.\n  asked GET {base}/api/endpoints and /api/models\n  came back: {outcome}: {detail}\n  check: {check}"
    )]
    Offers { base: String, outcome: Outcome, detail: String, check: &'static str },
    /// No endpoint and model fit.
    #[error("no custom endpoint fits: {why}. The deployment offers {offered}. {next}")]
    NoOffer { why: String, offered: String, next: &'static str },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] TraceError),
}

/// What to do about a ban.
pub(super) const BANNED: &str = "the deployment's ban: for a test set BAN_VIOLATIONS=false, remove the ban (it lasts 2 h) \
     and restart it";

/// The models that a target lists.
#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

/// The first model that the target lists.
///
/// # Errors
/// When it lists none.
pub(super) async fn first_model(
    fetcher: &Fetcher,
    base: &Url,
    secrets: &Secrets,
    key: Option<&Secret>,
) -> Result<String, PreflightError> {
    let url = format!("{}/models", base.as_str().trim_end_matches('/'));
    let path = format!("{}/models", base.path().trim_end_matches('/'));
    let failed = |answer: &str, check: &str| PreflightError::Models {
        url: url.clone(),
        answer: escaped(&secrets.redacted(answer), SHOWN),
        check: check.to_owned(),
    };
    let mut headers = HeaderMap::new();
    let bearer = key.map(|key| (AUTHORIZATION.to_string(), Secret::new(format!("Bearer {}", key.expose()))));
    for (name, value) in bearer.iter().chain(&secrets.headers) {
        let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value.expose()));
        let (Ok(parsed_name), Ok(parsed_value)) = parsed else {
            return Err(failed("nothing, since nothing was asked", &format!("the header {name} cannot be sent")));
        };
        headers.insert(parsed_name, parsed_value);
    }
    let response = fetcher.get(&path, headers, MODELS_LIMIT).await.map_err(|error| {
        let check = "is the server running, the address right, and its certificate trusted (--ca-file, --insecure)?";
        failed(&error.to_string(), check)
    })?;
    let (status, body) = (response.status(), response.into_body());
    if !status.is_success() {
        let check = match status.as_u16() {
            401 | 403 => "the key in CAPACITY_CHECK_API_KEY, or --api-key-env",
            _ => "the path of --target (OpenAI-compatible APIs mostly end in /v1), or name the model with --model",
        };
        return Err(failed(&format!("{status}: {}", String::from_utf8_lossy(&body)), check));
    }
    let models: Models = serde_json::from_slice(&body).map_err(|_| {
        failed(&String::from_utf8_lossy(&body), "is this an OpenAI-compatible API? If so, name the model with --model")
    })?;
    models
        .data
        .into_iter()
        .next()
        .map(|model| model.id)
        .ok_or_else(|| failed("an empty list", "name the model with --model"))
}

/// What one turn has shown.
pub(super) struct Seen {
    /// How long it took.
    pub(super) turn: Duration,
    /// Whether the mock's journal has it.
    pub(super) mock: bool,
}

/// Speaks one traced turn, and looks for it in the mock's journal. `real_model` allows that it is not there.
///
/// # Errors
/// When the turn fails, or the model is not our mock and need be.
pub(super) async fn preflight(
    driver: &Driver,
    url: &str,
    model: &str,
    run: &str,
    admin: Option<&MockAdmin>,
    real_model: bool,
) -> Result<Seen, PreflightError> {
    // Before the turn, so that a long journal is not searched from its beginning.
    let after = match admin {
        Some(admin) => admin.newest().await?,
        None => 0,
    };
    let marker = marker(run, "preflight", 0);
    let text = format!("Say hello. [[{marker}]]");
    // Of a described protocol a wrong pointer would be told as a deployment that spoils replies.
    let described = matches!(driver, Driver::Sse(_) | Driver::WebSocket(_) | Driver::SocketIo(_));
    let trace = admin.filter(|_| described && !real_model);
    let trace = trace.map(|_| Trace { marker: marker.clone(), white: WhiteSpace::Collapse });
    let prompt = Prompt { text, opens: true, continues: false, disturb: None, trace };
    let now = clock::monotonic();
    let mut turn = Turn::new(now, now);
    driver.turn(&mut driver.session(0), &prompt, &mut turn, Live::nobody()).await;
    if turn.outcome != Outcome::Completed {
        return Err(PreflightError::Turn {
            url: escaped(url, SHOWN),
            model: escaped(model, SHOWN),
            outcome: turn.outcome,
            detail: turn.detail,
            check: check(driver, turn.outcome),
        });
    }
    if turn.tokens == 0 {
        let check = if described {
            "is `token` of the reply a pointer into the messages that carry text, and do they meet `token_when`? (Socket.IO's \
             pointers lead into the list of arguments, such as /0/text.) If so: does the model answer at all?"
        } else {
            "does the model answer at all?"
        };
        return Err(PreflightError::Empty { url: escaped(url, SHOWN), model: escaped(model, SHOWN), check });
    }
    let calls = match admin {
        Some(admin) => in_journal(admin, &marker, after).await?,
        None => Vec::new(),
    };
    let mock = calls.iter().any(|call| *call != Call::Aside);
    if !calls.is_empty() && !mock && !real_model {
        return Err(PreflightError::Rewritten);
    }
    if !mock && !real_model {
        let why = match admin {
            Some(admin) => format!("the turn is not in the journal at {}", admin.base()),
            None => "no --mock-admin was given".to_owned(),
        };
        return Err(PreflightError::RealModel { why });
    }
    Ok(Seen { turn: Duration::from_nanos((turn.ended - turn.intended).max(0) as u64), mock })
}

/// Waits until the journal has a turn with this marker: it is written when the mock has let go of
/// the request, which may be a moment after the client has read the end.
async fn in_journal(admin: &MockAdmin, marker: &str, after: u64) -> Result<Vec<Call>, TraceError> {
    let deadline = clock::monotonic() + JOURNAL_PATIENCE.as_nanos() as Nanos;
    loop {
        let turns = admin.turns(after).await?.into_iter().filter(|turn| turn.marker.as_deref() == Some(marker));
        let found: Vec<Call> = turns.filter_map(|turn| turn.call).collect();
        // A title may be asked for before the turn's own entry is written.
        if found.iter().any(|call| *call != Call::Aside) || clock::monotonic() > deadline {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What to check when one turn did not complete.
pub(super) fn check(driver: &Driver, outcome: Outcome) -> &'static str {
    match (driver, outcome) {
        (_, Outcome::ConnectRefused) => "is the server running, and the port right? Does a --proxy let us through?",
        (_, Outcome::ConnectTimeout) => "can this machine reach the address (firewall, VPN, wrong network)?",
        (_, Outcome::Dns) => "the host's name in --target or --proxy, and this machine's resolver",
        (_, Outcome::Tls) => {
            "the certificate: --ca-file for an authority of your own, --insecure to accept any, --sni where it names another \
             host, --client-cert where the server asks for ours; or http instead of https"
        }
        (Driver::Sse(_) | Driver::WebSocket(_) | Driver::SocketIo(_), Outcome::Corrupted) => {
            "is `token` of the reply a pointer to the text alone, and does `token_when` leave out what is no text of the reply?"
        }
        (Driver::Sse(_) | Driver::WebSocket(_) | Driver::SocketIo(_), Outcome::Stalled | Outcome::Truncated) => {
            "does a message meet `end` of the reply (a value must be of its type: true, not \"true\")? If so: does a proxy or a \
             time limit hold or cut streams?"
        }
        (Driver::OpenAi(_), Outcome::Unauthorized) => {
            "the key in CAPACITY_CHECK_API_KEY (or --api-key-env), or --header"
        }
        (Driver::LibreChat(_), Outcome::Unauthorized) => {
            "the accounts: is JWT_SECRET that of the deployment, and do the accounts exist?"
        }
        (Driver::WebSocket(_) | Driver::SocketIo(_), Outcome::Unauthorized) => {
            "what lets users in: the key, target.headers_env and target.values_env, and the places that they fill"
        }
        (Driver::WebSocket(_), Outcome::HttpClient(_)) => {
            "the path in [target.websocket]: is it where the target takes WebSocket upgrades?"
        }
        (Driver::SocketIo(_), Outcome::HttpClient(_)) => {
            "the path and transport in [target.socketio], and for polling whether the load balancer has sticky sessions"
        }
        (Driver::SocketIo(_), Outcome::Protocol) => {
            "does the target speak Socket.IO 3 or 4 at the path in [target.socketio], and is its message_limit enough?"
        }
        (Driver::WebSocket(_), Outcome::Protocol) => {
            "is [target.websocket] what the target speaks? Its subprotocols, message_limit, and the pointers of its reply"
        }
        (Driver::OpenAi(_), Outcome::HttpClient(404)) => {
            "the path of --target (OpenAI-compatible APIs mostly end in /v1), and the model's name in --model"
        }
        (Driver::OpenAi(_), Outcome::HttpClient(_)) => {
            "does the API take OpenAI chat completions with \"stream\": true, and this model?"
        }
        (Driver::LibreChat(_), Outcome::HttpClient(_)) => "is this LibreChat v0.7.9 or later, at the path of --target?",
        (Driver::LibreChat(_), Outcome::RateLimited) => {
            "the deployment's limits: for a test set LIMIT_MESSAGE_IP=false LIMIT_MESSAGE_USER=false \
             LIMIT_CONCURRENT_MESSAGES=false and restart it"
        }
        (Driver::LibreChat(_), Outcome::ErrorEvent) => {
            "the deployment's own log, and the model behind it: is mock-llm running, and baseURL in librechat.yaml right?"
        }
        (_, Outcome::HttpServer(_) | Outcome::ErrorEvent) => "the target's own log, and the model behind it",
        (Driver::OpenAi(_), Outcome::Protocol) => {
            "is this an OpenAI-compatible API? A web page instead of a stream means a wrong path or port"
        }
        (Driver::LibreChat(_), Outcome::Protocol) => {
            "is this LibreChat? A web page instead of a stream means a wrong path or port, or a version before v0.7.9"
        }
        (_, Outcome::Unauthorized) => {
            "the key in CAPACITY_CHECK_API_KEY (or --api-key-env), --header, target.values_env, the login of [target.site]"
        }
        (_, Outcome::HttpClient(_)) => "the path below --target, and whether the deployment takes such a request",
        (_, Outcome::RateLimited) => "the target's rate limit: one turn was already too much",
        (_, Outcome::Protocol) => {
            "does the scenario describe what the target answers? A web page instead of a stream means a wrong path or port"
        }
        (_, Outcome::Stalled | Outcome::TimedOut) => {
            "does the model answer at all, and does a proxy hold the stream back?"
        }
        (_, Outcome::Truncated | Outcome::Reset) => "does a proxy or time limit cut streams off?",
        (_, Outcome::Banned) => BANNED,
        // The preflight's reply is not checked.
        (_, Outcome::Corrupted | Outcome::Leaked) => "the text of the reply",
        (_, Outcome::Completed | Outcome::Aborted | Outcome::Interrupted) => "nothing",
    }
}
