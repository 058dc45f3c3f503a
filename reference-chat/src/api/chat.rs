//! The chat itself: start a turn, read its stream, resume, abort.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, Path, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Caller, Peer, add_standing};
use crate::app::{App, Full, Open};
use crate::archive::Exchange;
use crate::chats::{Message, NO_PARENT};
use crate::generation::{self, Turn, question};
use crate::job::{From, Job, frame, sync};
use crate::limits::{Limiter, Standing, Violation, Who};
use crate::store::StoreError;
use crate::store::commands::Redis;
use crate::store::stream::{Publisher, relayed};

/// What the web client sends, as far as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChatRequest {
    text: String,
    model: String,
    /// A custom endpoint must be called one.
    endpoint_type: String,
    #[serde(default)]
    message_id: Option<String>,
    #[serde(default)]
    parent_message_id: Option<String>,
    #[serde(default)]
    conversation_id: Option<String>,
}

/// `POST /api/agents/chat/ENDPOINT`.
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    caller: Caller,
    peer: Peer,
    Path(endpoint): Path<String>,
    body: Bytes,
) -> Result<Response, StoreError> {
    let concerned = caller.concerned(peer);
    let request: Option<ChatRequest> = serde_json::from_slice(&body).ok();
    let asked = |text: String| {
        let conversation = request.as_ref().and_then(|request| request.conversation_id.clone());
        denied(request.as_ref().map_or("", |request| &request.text), conversation, &text)
    };
    if app.is_banned(&concerned).await? {
        return Ok(asked(json!({ "type": "ban" }).to_string()));
    }
    let limit = app.settings.limits.concurrent;
    let open = match Open::admit(&app, &caller.0.id, limit).await {
        Ok(open) => open,
        Err(Full::Open(pending)) => {
            let violations = app.violate(&concerned, Violation::Concurrent).await?;
            let body = json!({ "type": "concurrent", "limit": limit, "pendingRequests": pending + 1, "score": 1,
                "violation_count": violations });
            return Ok((StatusCode::TOO_MANY_REQUESTS, Json(body)).into_response());
        }
        Err(Full::Store(error)) => return Err(error),
    };
    let (standing, refused) = admit(&app, &concerned).await?;
    let mut response = match (refused, &request) {
        (Some(text), _) => asked(text),
        (None, Some(request)) if endpoint == app.settings.endpoint && request.endpoint_type == "custom" => {
            Box::pin(begin(app, &caller, request, open)).await?
        }
        _ => error_event(&json!({ "text": "Error parsing conversation" })),
    };
    add_standing(response.headers_mut(), standing);
    Ok(response)
}

/// Counts a message. Gives what stands in the headers, and the refusal of a limiter that is full.
async fn admit(app: &App, concerned: &[Who; 2]) -> Result<(Option<Standing>, Option<String>), StoreError> {
    let mut shown = None;
    for (limiter, name, who) in
        [(Limiter::MessageIp, "ip", &concerned[1]), (Limiter::MessageUser, "user", &concerned[0])]
    {
        let Some(standing) = app.hit(limiter, who).await? else { continue };
        shown = Some(standing);
        if !standing.admitted {
            let violations = app.violate(concerned, Violation::Messages).await?;
            let text = json!({ "type": "message_limit", "max": standing.max.to_string(), "limiter": name,
                "windowInMinutes": 1, "violation_count": violations });
            return Ok((shown, Some(text.to_string())));
        }
    }
    Ok((shown, None))
}

/// Lets nobody pass who names no browser; that is a grave violation. Who has no good token is
/// refused for that first.
pub(crate) async fn browsers_only(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let browser = ["Chrome/", "Firefox/", "Safari/", "Edg/", "OPR/"].iter().any(|name| agent.contains(name));
    if agent.starts_with("Mozilla/5.0") && browser {
        return next.run(request).await;
    }
    let (mut parts, _) = request.into_parts();
    let caller = match Caller::from_request_parts(&mut parts, &app).await {
        Ok(caller) => caller,
        Err(refused) => return refused,
    };
    let peer = parts.extensions.get::<Peer>().copied();
    if let Some(peer) = peer
        && let Err(error) = app.violate(&caller.concerned(peer), Violation::NonBrowser).await
    {
        return error.into_response();
    }
    error_event(&json!({ "message": "Illegal request" }))
}

/// An error in status 200, without a content type.
fn error_event(data: &Value) -> Response {
    Response::new(Body::from(format!("event: error\ndata: {data}\n\n")))
}

/// A refusal as a chat: the user's message, then the reason as the answer's text.
fn denied(text: &str, conversation: Option<String>, reason: &str) -> Response {
    let conversation = conversation.unwrap_or_else(|| Uuid::new_v4().to_string());
    let asked = Message {
        id: Uuid::new_v4().to_string(),
        parent: NO_PARENT.to_owned(),
        text: text.to_owned(),
        by_user: true,
        error: None,
    };
    let created = frame(&json!({ "message": question(&conversation, &asked), "created": true }));
    let refusal = json!({
        "sender": "AI", "messageId": Uuid::new_v4().to_string(), "conversationId": conversation,
        "parentMessageId": asked.id, "unfinished": false, "error": true, "final": true, "text": reason,
        "isCreatedByUser": false,
    });
    let mut body = created.to_vec();
    body.extend_from_slice(format!("event: error\ndata: {refusal}\n\n").as_bytes());
    Response::new(Body::from(body))
}

/// Begins a turn that was admitted.
async fn begin(app: Arc<App>, caller: &Caller, request: &ChatRequest, open: Open) -> Result<Response, StoreError> {
    let conversation = request.conversation_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    if app.archive.is_foreign(&conversation, &caller.0.id).await? {
        return Ok((StatusCode::FORBIDDEN, Json(json!({ "error": "Unauthorized" }))).into_response());
    }
    let worker = app.workers.next();
    let costs = app.settings.costs;
    worker.pass(costs.turn / costs.passes).await;
    let exchange = Exchange {
        conversation: conversation.clone(),
        user: caller.0.id.clone(),
        model: request.model.clone(),
        endpoint: app.settings.endpoint.clone(),
        question: Message {
            id: request.message_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string()),
            parent: request.parent_message_id.clone().unwrap_or_else(|| NO_PARENT.to_owned()),
            text: request.text.clone(),
            by_user: true,
            error: None,
        },
        answer_id: Uuid::new_v4().to_string(),
        asked_at: SystemTime::now(),
        follow_up: request.conversation_id.is_some(),
        one_step: app.settings.one_step,
    };
    let asked = question(&conversation, &exchange.question);
    let job = Arc::new(Job::new(&conversation, &caller.0.id, asked, &exchange.answer_id));
    let publisher = match &app.stores.redis {
        Some(redis) => {
            redis.begin(&job).await?;
            let (publisher, task) = Publisher::new(redis, &job);
            app.spawn(task);
            Some(publisher)
        }
        None => None,
    };
    app.archive.begin(&exchange);
    app.jobs().insert(conversation.clone(), Arc::clone(&job));
    let stream = app.settings.one_step.then(|| sse(streamed(&app, job.subscribe(From::Beginning))));
    let turn = Turn { job, worker, exchange, publisher, open };
    app.spawn(generation::run(Arc::clone(&app), turn));
    Ok(stream.unwrap_or_else(|| {
        Json(json!({ "streamId": conversation, "conversationId": conversation, "status": "started" })).into_response()
    }))
}

/// A body that counts as a stream in flight as long as it lives.
fn streamed<S>(app: &App, frames: S) -> Body
where
    S: Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
{
    let in_flight = app.metrics.streams.hold();
    Body::from_stream(frames.map(move |frame| {
        let _held = &in_flight;
        frame
    }))
}

fn sse(body: Body) -> Response {
    let mut response = Response::new(body);
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CONTENT_ENCODING, "identity"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[derive(Deserialize)]
pub(crate) struct StreamQuery {
    #[serde(default)]
    resume: bool,
}

/// `GET /api/agents/chat/stream/ID`.
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<StreamQuery>,
) -> Result<Response, StoreError> {
    let here = app.jobs().get(&id).cloned();
    // What has ended here may go on elsewhere, with the next turn of the same conversation.
    if let Some(redis) = &app.stores.redis
        && here.as_ref().is_none_or(|job| job.has_ended())
        && let Some(response) = elsewhere(&app, redis, &caller, &id, query.resume).await?
    {
        return Ok(response);
    }
    let Some(job) = here else {
        let body =
            json!({ "error": "Stream not found", "message": "The generation job does not exist or has expired." });
        return Ok((StatusCode::NOT_FOUND, Json(body)).into_response());
    };
    if job.user != caller.0.id {
        return Ok(not_yours());
    }
    let from = match (query.resume, app.settings.shared_streams) {
        (true, _) => From::Sync,
        (false, true) => From::Now,
        (false, false) => From::Beginning,
    };
    Ok(sse(streamed(&app, job.subscribe(from))))
}

fn not_yours() -> Response {
    (StatusCode::FORBIDDEN, Json(json!({ "error": "Unauthorized" }))).into_response()
}

/// The stream of a job that another process generates, if one does.
async fn elsewhere(
    app: &App,
    redis: &Redis,
    caller: &Caller,
    id: &str,
    resume: bool,
) -> Result<Option<Response>, StoreError> {
    if redis.find(id).await?.is_none_or(|job| !job.running) {
        return Ok(None);
    }
    // Asked again after the channel is open: what ends between the two would never be heard of.
    let listening = redis.listen(id).await?;
    let Some(job) = redis.find(id).await?.filter(|job| job.running) else { return Ok(None) };
    if job.user != caller.0.id {
        return Ok(Some(not_yours()));
    }
    let summary = if resume { Some(redis.summary(id).await?) } else { None };
    let summary = summary.map(|(told, summary)| (told, sync(&summary)));
    Ok(Some(sse(streamed(app, relayed(listening, summary)))))
}

/// `GET /api/agents/chat/active`.
pub(crate) async fn active(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Value>, StoreError> {
    let ids = match &app.stores.redis {
        Some(redis) => redis.active(&caller.0.id).await?,
        None => {
            let jobs = app.jobs();
            let mine = jobs.values().filter(|job| job.user == caller.0.id && !job.has_ended());
            mine.map(|job| job.id.clone()).collect()
        }
    };
    Ok(Json(json!({ "activeJobIds": ids })))
}

/// `GET /api/agents/chat/status/ID`: what a page asks that is loaded in the middle of a turn.
pub(crate) async fn status(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, StoreError> {
    let here = app.jobs().get(&id).cloned();
    let running = match (&here, &app.stores.redis) {
        (Some(job), _) if !job.has_ended() => Some((job.user.clone(), job.summary())),
        (_, Some(redis)) => match redis.find(&id).await? {
            Some(job) if job.running => Some((job.user, redis.summary(&id).await?.1)),
            _ => None,
        },
        _ => None,
    };
    let active = running.is_some();
    // One that has ended is told of as long as it is kept.
    let known = running.or_else(|| here.map(|job| (job.user.clone(), job.summary())));
    let Some((user, summary)) = known else { return Ok(Json(json!({ "active": false })).into_response()) };
    if user != caller.0.id {
        return Ok(not_yours());
    }
    let body = json!({
        "active": active, "streamId": id, "status": if active { "running" } else { "complete" },
        "aggregatedContent": summary["aggregatedContent"], "resumeState": summary,
    });
    Ok(Json(body).into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Abort {
    #[serde(alias = "conversationId", alias = "abortKey")]
    stream_id: String,
}

/// `POST /api/agents/chat/abort`.
pub(crate) async fn abort(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(wish): Json<Abort>,
) -> Result<Response, StoreError> {
    let here = app.jobs().get(&wish.stream_id).filter(|job| job.user == caller.0.id && !job.has_ended()).cloned();
    let found = match (here, &app.stores.redis) {
        (Some(job), _) => {
            job.abort.send_replace(true);
            true
        }
        (None, Some(redis)) => {
            let job = redis.find(&wish.stream_id).await?;
            let mine = job.is_some_and(|job| job.running && job.user == caller.0.id);
            if mine {
                redis.abort(&wish.stream_id).await?;
            }
            mine
        }
        (None, None) => false,
    };
    if !found {
        let body = json!({ "error": "Job not found", "streamId": wish.stream_id });
        return Ok((StatusCode::NOT_FOUND, Json(body)).into_response());
    }
    Ok(Json(json!({ "success": true, "aborted": wish.stream_id })).into_response())
}
