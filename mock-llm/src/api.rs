//! The OpenAI-compatible listener: chat completions, models, health.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use rand::RngExt;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::behaviour::Fault;
use crate::journal::TurnOutcome;
use crate::schedule::Schedule;
use crate::script::{self, Script};
use crate::socket::Line;
use crate::state::{LiveModel, OpenTurn, RateStanding, State};
use crate::stream::{Cut, Envelope, Reply, TokenStream};

/// The largest request body that is read.
const REQUEST_LIMIT: usize = 8 << 20;

/// The body of a response: whole, or a stream of tokens.
pub(crate) type Body = Either<Full<Bytes>, TokenStream>;

/// What a connection's requests need.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) state: Arc<State>,
    pub(crate) schedule: Schedule,
    pub(crate) line: Rc<Line>,
}

/// The parts of a chat completion request that the mock reads.
#[derive(Deserialize)]
struct ChatRequest {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

impl Message {
    /// The text of a content that is a string or a list of typed parts.
    fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                parts.iter().filter_map(|part| part.get("text")?.as_str()).collect::<Vec<_>>().join("\n")
            }
            _ => String::new(),
        }
    }
}

/// Answers one request. `Err` drops the connection, as a planned reset wants it.
pub(crate) async fn handle(request: Request<Incoming>, connection: Connection) -> Result<Response<Body>, Cut> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/chat/completions" | "/chat/completions") => chat(request, connection).await,
        (&Method::GET, "/v1/models" | "/models") => {
            let live = connection.state.live();
            if !authorized(request.headers(), live.behaviour.api_key.as_deref()) {
                return Ok(refused_key());
            }
            let data: Vec<Value> = live
                .behaviour
                .models
                .keys()
                .map(|name| json!({ "id": name, "object": "model", "created": 0, "owned_by": "mock-llm" }))
                .collect();
            Ok(answer(StatusCode::OK, &json!({ "object": "list", "data": data })))
        }
        (&Method::GET, "/health") => Ok(answer(StatusCode::OK, &json!({ "status": "ok", "service": "mock-llm" }))),
        (method, path) => {
            Ok(error(StatusCode::NOT_FOUND, "unknown_url", &format!("Unknown request URL: {method} {path}")))
        }
    }
}

async fn chat(request: Request<Incoming>, connection: Connection) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_LIMIT).collect().await;
    // What this thread was late in reading is no time of the caller's: the schedule begins when the request came.
    let lag = connection.line.lag();
    let mut turn = OpenTurn::new(Arc::clone(&connection.state), lag);
    let live = connection.state.live();
    if !authorized(&head.headers, live.behaviour.api_key.as_deref()) {
        turn.outcome(TurnOutcome::Unauthorized);
        return Ok(refused_key());
    }
    let request = body
        .map_err(|error| error.to_string())
        .and_then(|body| serde_json::from_slice::<ChatRequest>(&body.to_bytes()).map_err(|error| error.to_string()));
    let request = match request {
        Ok(request) => request,
        Err(message) => {
            turn.outcome(TurnOutcome::BadRequest);
            return Ok(error(StatusCode::BAD_REQUEST, "invalid_request", &message));
        }
    };
    let prompt =
        request.messages.iter().rev().find(|message| message.role == "user").map(Message::text).unwrap_or_default();
    turn.describe(&request.model, request.stream, &prompt);
    let Some(model) = live.model(&request.model).map(Arc::clone) else {
        turn.outcome(TurnOutcome::UnknownModel);
        let message = format!("The model `{}` does not exist", request.model);
        return Ok(error(StatusCode::NOT_FOUND, "model_not_found", &message));
    };

    let standing = model.rate(Instant::now());
    if standing.is_some_and(|standing| !standing.admitted) {
        turn.outcome(TurnOutcome::RateLimited);
        let mut response = error(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", "Rate limit reached");
        add_rate_headers(response.headers_mut(), standing);
        return Ok(response);
    }
    let fault = connection.state.draw_fault(&live, &model);
    if let Some((status, outcome)) = refusal(fault) {
        turn.outcome(outcome);
        return Ok(error(status, "planned_error", "planned error"));
    }
    let arrived = Instant::now().checked_sub(lag);
    let Ok((slot, waited)) = model.slot(&connection.state.metrics).await else {
        turn.outcome(TurnOutcome::QueueFull);
        return Ok(error(StatusCode::SERVICE_UNAVAILABLE, "queue_full", "The server is overloaded"));
    };
    turn.admit();
    let streamed = request.stream;
    let start = arrived.filter(|_| !waited).unwrap_or_else(Instant::now);
    let reply = plan_reply(live.behaviour.seed, &request, &prompt, turn.traced(), &model, fault, start);
    let mut response = if streamed {
        let body = TokenStream::new(reply, turn, connection.schedule, connection.line, slot);
        let mut response = Response::new(Either::Right(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    } else {
        whole_reply(reply, turn, &request, &prompt, &connection.line).await?
    };
    add_rate_headers(response.headers_mut(), standing);
    Ok(response)
}

/// The faults that are an answer without a reply.
fn refusal(fault: Option<Fault>) -> Option<(StatusCode, TurnOutcome)> {
    match fault {
        Some(Fault::Http500) => Some((StatusCode::INTERNAL_SERVER_ERROR, TurnOutcome::Http500)),
        Some(Fault::Http503) => Some((StatusCode::SERVICE_UNAVAILABLE, TurnOutcome::Http503)),
        _ => None,
    }
}

/// Draws everything about a reply from the seed, the model's name and the prompt; the text of a traced
/// turn's reply from its marker alone.
fn plan_reply(
    seed: u64,
    request: &ChatRequest,
    prompt: &str,
    traced: Option<&str>,
    model: &LiveModel,
    fault: Option<Fault>,
    start: Instant,
) -> Reply {
    let mut timing = script::generator(seed, &format!("timing of {}", request.model), prompt);
    let behaviour = &model.behaviour;
    let limit = request.max_completion_tokens.or(request.max_tokens).unwrap_or(u64::MAX).max(1);
    let wanted = (behaviour.tokens.sample(&mut timing).round() as u64).max(1);
    let tokens = wanted.min(limit);
    let ttft = behaviour.ttft.sample_duration(&mut timing);
    let at = if tokens > 1 { timing.random_range(1..tokens) } else { 0 };
    let usage = request.stream_options.as_ref().is_some_and(|options| options.include_usage);
    let script = match traced {
        Some(marker) => Script::traced(marker),
        None => Script::untraced(script::generator(seed, &request.model, prompt)),
    };
    let finish = if tokens < wanted { "length" } else { "stop" };
    Reply {
        start,
        ttft,
        gap: behaviour.gap,
        script: script.of_length(tokens),
        timing,
        tokens,
        fault: fault.map(|fault| (fault, at)),
        envelope: envelope(&request.model, prompt, tokens, finish, usage),
    }
}

/// The texts around the tokens, as OpenAI's `chat.completion.chunk` objects.
fn envelope(model: &str, prompt: &str, tokens: u64, finish: &str, usage: bool) -> Envelope {
    let id = format!("chatcmpl-{:016x}", script::stable_hash(&[model.as_bytes(), prompt.as_bytes()]));
    let created = crate::journal::unix_us() / 1_000_000;
    let model = json!(model);
    let opening = format!(
        "data: {{\"id\":\"{id}\",\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":{model},\"choices\":["
    );
    // With include_usage every other chunk carries `"usage":null`, as OpenAI sends it.
    let (after, closing) = if usage {
        ("\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n", "],\"usage\":null}\n\n")
    } else {
        ("\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n", "]}\n\n")
    };
    let mut tail =
        format!("{opening}{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"{finish}\"}}{closing}");
    if usage {
        tail.push_str(&format!("{opening}],\"usage\":{}}}\n\n", usage_of(prompt, tokens)));
    }
    Envelope {
        head: format!(
            "{opening}{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\"finish_reason\":null}}{closing}"
        ),
        before: format!("{opening}{{\"index\":0,\"delta\":{{\"content\":\""),
        after,
        tail,
        done: "data: [DONE]\n\n",
    }
}

/// The usage object; a prompt's tokens are its words.
fn usage_of(prompt: &str, tokens: u64) -> Value {
    let asked = prompt.split_whitespace().count() as u64;
    json!({ "prompt_tokens": asked, "completion_tokens": tokens, "total_tokens": asked + tokens })
}

/// A reply that is not streamed: the whole turn's time, then one JSON body.
async fn whole_reply(
    mut reply: Reply,
    mut turn: OpenTurn,
    request: &ChatRequest,
    prompt: &str,
    line: &Line,
) -> Result<Response<Body>, Cut> {
    let gaps: Duration = (1..reply.tokens).map(|_| reply.gap.sample_duration(&mut reply.timing)).sum();
    tokio::time::sleep_until((reply.start + reply.ttft + gaps).into()).await;
    let mut text = String::new();
    for _ in 0..reply.tokens {
        text.push(' ');
        reply.script.write_word(&mut text);
    }
    let body = json!({
        "id": format!("chatcmpl-{:016x}", script::stable_hash(&[request.model.as_bytes(), prompt.as_bytes()])),
        "object": "chat.completion",
        "created": crate::journal::unix_us() / 1_000_000,
        "model": request.model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text },
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": usage_of(prompt, reply.tokens),
    });
    match reply.fault.map(|(fault, _)| fault) {
        Some(Fault::Reset) => {
            turn.outcome(TurnOutcome::Reset);
            line.reset.set(true);
            Err(Cut)
        }
        Some(Fault::Stall) => {
            turn.outcome(TurnOutcome::Stall);
            std::future::pending().await
        }
        Some(Fault::ErrorEvent) => {
            turn.outcome(TurnOutcome::ErrorEvent);
            Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "mock_error_event", "planned error"))
        }
        Some(Fault::MalformedJson) => {
            turn.outcome(TurnOutcome::MalformedJson);
            turn.tokens(reply.tokens);
            Ok(Response::new(Either::Left(Full::from("{\"choices\":["))))
        }
        _ => {
            turn.tokens(reply.tokens);
            turn.outcome(TurnOutcome::Completed);
            Ok(answer(StatusCode::OK, &body))
        }
    }
}

fn authorized(headers: &HeaderMap, key: Option<&str>) -> bool {
    let Some(key) = key else { return true };
    headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes() == format!("Bearer {key}").as_bytes())
}

fn refused_key() -> Response<Body> {
    error(StatusCode::UNAUTHORIZED, "invalid_api_key", "Incorrect API key provided")
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    answer(status, &json!({ "error": { "message": message, "type": "mock_llm_error", "param": null, "code": code } }))
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The headers of OpenAI's rate limits, and `Retry-After` (whole seconds, RFC 9110) on a refusal.
fn add_rate_headers(headers: &mut HeaderMap, standing: Option<RateStanding>) {
    let Some(RateStanding { limit, remaining, reset, admitted }) = standing else { return };
    headers.insert("x-ratelimit-limit-requests", HeaderValue::from(limit));
    headers.insert("x-ratelimit-remaining-requests", HeaderValue::from(remaining));
    if let Ok(value) = HeaderValue::from_str(&format!("{}ms", reset.as_millis())) {
        headers.insert("x-ratelimit-reset-requests", value);
    }
    if !admitted {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(reset.as_secs_f64().ceil() as u64));
    }
}
