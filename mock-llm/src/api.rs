//! The listener that models are asked at: every [`Format`], models, health.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use rand::RngExt;
use serde_json::{Value, json};

use crate::behaviour::Fault;
use crate::format::{Asked, Facts, Format};
use crate::journal::TurnOutcome;
use crate::schedule::Schedule;
use crate::script::{self, Script};
use crate::socket::Line;
use crate::state::{LiveModel, OpenTurn, State};
use crate::stream::{Cut, Reply, TokenStream};

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

/// Answers one request. `Err` drops the connection, as a planned reset wants it.
pub(crate) async fn handle(request: Request<Incoming>, connection: Connection) -> Result<Response<Body>, Cut> {
    let format = Format::served_at(request.uri().path()).filter(|_| request.method() == Method::POST);
    if let Some(format) = format {
        return reply(format, request, connection).await;
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/models" | "/models") => {
            let live = connection.state.live();
            if !authorized(Format::Chat, request.headers(), live.behaviour.api_key.as_deref()) {
                return Ok(refused_key(Format::Chat));
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
            let message = format!("Unknown request URL: {method} {path}");
            Ok(error(Format::Chat, StatusCode::NOT_FOUND, "unknown_url", &message))
        }
    }
}

/// Answers one request for a reply.
async fn reply(format: Format, request: Request<Incoming>, connection: Connection) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_LIMIT).collect().await;
    // What this thread was late in reading is no time of the caller's: the schedule begins when the request came.
    let lag = connection.line.lag();
    let mut turn = OpenTurn::new(Arc::clone(&connection.state), lag);
    let live = connection.state.live();
    if !authorized(format, &head.headers, live.behaviour.api_key.as_deref()) {
        turn.outcome(TurnOutcome::Unauthorized);
        return Ok(refused_key(format));
    }
    let asked = body.map_err(|error| error.to_string()).and_then(|body| format.read(&body.to_bytes()));
    let asked = match asked {
        Ok(asked) => asked,
        Err(message) => {
            turn.outcome(TurnOutcome::BadRequest);
            return Ok(error(format, StatusCode::BAD_REQUEST, "invalid_request", &message));
        }
    };
    turn.describe(&asked.model, asked.stream, &asked.prompt);
    let Some(model) = live.model(&asked.model).map(Arc::clone) else {
        turn.outcome(TurnOutcome::UnknownModel);
        let message = format!("The model `{}` does not exist", asked.model);
        return Ok(error(format, StatusCode::NOT_FOUND, "model_not_found", &message));
    };

    let standing = model.rate(Instant::now());
    if let Some(standing) = standing.filter(|standing| !standing.admitted) {
        turn.outcome(TurnOutcome::RateLimited);
        let mut response = error(format, StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", "Rate limit reached");
        format.add_rate_headers(response.headers_mut(), standing);
        return Ok(response);
    }
    let fault = connection.state.draw_fault(&live, &model);
    if let Some((status, outcome)) = refusal(fault) {
        turn.outcome(outcome);
        return Ok(error(format, status, "planned_error", "planned error"));
    }
    let arrived = Instant::now().checked_sub(lag);
    let Ok((slot, waited)) = model.slot(&connection.state.metrics).await else {
        turn.outcome(TurnOutcome::QueueFull);
        return Ok(error(format, StatusCode::SERVICE_UNAVAILABLE, "queue_full", "The server is overloaded"));
    };
    turn.admit();
    let start = arrived.filter(|_| !waited).unwrap_or_else(Instant::now);
    let reply = plan_reply(live.behaviour.seed, &asked, turn.traced(), &model, fault, start);
    let mut response = if asked.stream {
        let body = TokenStream::new(reply, turn, connection.schedule, connection.line, slot);
        let mut response = Response::new(Either::Right(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    } else {
        whole_reply(reply, turn, &connection.line).await?
    };
    if let Some(standing) = standing {
        format.add_rate_headers(response.headers_mut(), standing);
    }
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
    asked: &Asked,
    traced: Option<&str>,
    model: &LiveModel,
    fault: Option<Fault>,
    start: Instant,
) -> Reply {
    let mut timing = script::generator(seed, &format!("timing of {}", asked.model), &asked.prompt);
    let behaviour = &model.behaviour;
    let limit = asked.limit.unwrap_or(u64::MAX).max(1);
    let wanted = (behaviour.tokens.sample(&mut timing).round() as u64).max(1);
    let tokens = wanted.min(limit);
    let ttft = behaviour.ttft.sample_duration(&mut timing);
    let at = if tokens > 1 { timing.random_range(1..tokens) } else { 0 };
    let script = match traced {
        Some(marker) => Script::traced(marker),
        None => Script::untraced(script::generator(seed, &asked.model, &asked.prompt)),
    };
    Reply {
        start,
        ttft,
        gap: behaviour.gap,
        script: script.of_length(tokens),
        timing,
        fault: fault.map(|fault| (fault, at)),
        facts: Facts::new(asked, tokens, tokens < wanted),
    }
}

/// A reply that is not streamed: the whole turn's time, then one JSON body.
async fn whole_reply(mut reply: Reply, mut turn: OpenTurn, line: &Line) -> Result<Response<Body>, Cut> {
    let (format, tokens) = (reply.facts.format, reply.facts.tokens);
    let gaps: Duration = (1..tokens).map(|_| reply.gap.sample_duration(&mut reply.timing)).sum();
    tokio::time::sleep_until((reply.start + reply.ttft + gaps).into()).await;
    let mut text = String::new();
    for _ in 0..tokens {
        text.push(' ');
        reply.script.write_word(&mut text);
    }
    let body = reply.facts.whole(&reply.spoken(text));
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
            Ok(error(format, StatusCode::INTERNAL_SERVER_ERROR, "mock_error_event", "planned error"))
        }
        Some(Fault::MalformedJson) => {
            turn.outcome(TurnOutcome::MalformedJson);
            turn.tokens(tokens);
            Ok(Response::new(Either::Left(Full::from(format.malformed_body()))))
        }
        _ => {
            turn.tokens(tokens);
            turn.outcome(TurnOutcome::Completed);
            Ok(json_answer(StatusCode::OK, body))
        }
    }
}

fn authorized(format: Format, headers: &HeaderMap, key: Option<&str>) -> bool {
    let Some(key) = key else { return true };
    let shown = |name: &str, text: &str| headers.get(name).is_some_and(|value| value.as_bytes() == text.as_bytes());
    shown("authorization", &format!("Bearer {key}")) || format.key_header().is_some_and(|name| shown(name, key))
}

fn refused_key(format: Format) -> Response<Body> {
    error(format, StatusCode::UNAUTHORIZED, "invalid_api_key", "Incorrect API key provided")
}

fn error(format: Format, status: StatusCode, code: &str, message: &str) -> Response<Body> {
    answer(status, &format.error(status, code, message))
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    json_answer(status, value.to_string())
}

fn json_answer(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
