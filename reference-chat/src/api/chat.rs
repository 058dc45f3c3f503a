//! The chat itself: start a turn, read its stream, resume, abort.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, Path, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Caller, Peer, add_standing, is_banned};
use crate::app::{App, Open};
use crate::chats::{Message, NO_PARENT};
use crate::generation::{self, Turn, question};
use crate::job::{From, Job, frame};
use crate::limits::{Limiter, Standing, Violation, Who};

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
    body: bytes::Bytes,
) -> Response {
    let concerned = caller.concerned(peer);
    let request: Option<ChatRequest> = serde_json::from_slice(&body).ok();
    let asked = |text: String| {
        let conversation = request.as_ref().and_then(|request| request.conversation_id.clone());
        denied(request.as_ref().map_or("", |request| &request.text), conversation, &text)
    };
    if is_banned(&app, &concerned) {
        return asked(json!({ "type": "ban" }).to_string());
    }
    let limit = app.settings.limits.concurrent;
    let open = match Open::admit(&app, &caller.0.id, limit) {
        Ok(open) => open,
        Err(pending) => {
            let violations = app.gate().violate(&concerned, Violation::Concurrent, Instant::now());
            let body = json!({ "type": "concurrent", "limit": limit, "pendingRequests": pending + 1, "score": 1,
                "violation_count": violations });
            return (StatusCode::TOO_MANY_REQUESTS, Json(body)).into_response();
        }
    };
    let (standing, refused) = admit(&app, &concerned);
    let mut response = match (refused, &request) {
        (Some(text), _) => asked(text),
        (None, Some(request)) if endpoint == app.settings.endpoint && request.endpoint_type == "custom" => {
            begin(app, &caller, request, open).await
        }
        _ => error_event(&json!({ "text": "Error parsing conversation" })),
    };
    add_standing(response.headers_mut(), standing);
    response
}

/// Counts a message. Gives what stands in the headers, and the refusal of a limiter that is full.
fn admit(app: &App, concerned: &[Who; 2]) -> (Option<Standing>, Option<String>) {
    let now = Instant::now();
    let mut gate = app.gate();
    let mut shown = None;
    for (limiter, name, who) in
        [(Limiter::MessageIp, "ip", &concerned[1]), (Limiter::MessageUser, "user", &concerned[0])]
    {
        let Some(standing) = gate.hit(limiter, who.clone(), now) else { continue };
        shown = Some(standing);
        if !standing.admitted {
            let violations = gate.violate(concerned, Violation::Messages, now);
            let text = json!({ "type": "message_limit", "max": standing.max.to_string(), "limiter": name,
                "windowInMinutes": 1, "violation_count": violations });
            return (shown, Some(text.to_string()));
        }
    }
    (shown, None)
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
    if let Some(peer) = parts.extensions.get::<Peer>() {
        app.gate().violate(&caller.concerned(*peer), Violation::NonBrowser, Instant::now());
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
async fn begin(app: Arc<App>, caller: &Caller, request: &ChatRequest, open: Open) -> Response {
    if request.conversation_id.as_ref().is_some_and(|id| app.chats().is_foreign(id, &caller.0.id)) {
        return (StatusCode::FORBIDDEN, Json(json!({ "error": "Unauthorized" }))).into_response();
    }
    let worker = app.workers.next();
    let costs = app.settings.costs;
    worker.pass(costs.turn / costs.passes).await;
    let conversation = request.conversation_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let asked = Message {
        id: request.message_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string()),
        parent: request.parent_message_id.clone().unwrap_or_else(|| NO_PARENT.to_owned()),
        text: request.text.clone(),
        by_user: true,
        error: None,
    };
    let answer_id = Uuid::new_v4().to_string();
    let job = Arc::new(Job::new(&conversation, &caller.0.id, question(&conversation, &asked), &answer_id));
    app.chats().add(&conversation, &caller.0.id, &request.model, asked.clone());
    app.jobs().insert(conversation.clone(), Arc::clone(&job));
    let stream = app.settings.one_step.then(|| sse(Body::from_stream(job.subscribe(From::Beginning))));
    let turn = Turn { job, worker, model: request.model.clone(), question: asked, answer_id, open };
    tokio::spawn(generation::run(app, turn));
    stream.unwrap_or_else(|| {
        Json(json!({ "streamId": conversation, "conversationId": conversation, "status": "started" })).into_response()
    })
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
) -> Response {
    let Some(job) = app.jobs().get(&id).cloned() else {
        let body =
            json!({ "error": "Stream not found", "message": "The generation job does not exist or has expired." });
        return (StatusCode::NOT_FOUND, Json(body)).into_response();
    };
    if job.user != caller.0.id {
        return (StatusCode::FORBIDDEN, Json(json!({ "error": "Unauthorized" }))).into_response();
    }
    let from = match (query.resume, app.settings.shared_streams) {
        (true, _) => From::Sync,
        (false, true) => From::Now,
        (false, false) => From::Beginning,
    };
    sse(Body::from_stream(job.subscribe(from)))
}

/// `GET /api/agents/chat/active`.
pub(crate) async fn active(State(app): State<Arc<App>>, caller: Caller) -> Json<Value> {
    let jobs = app.jobs();
    let mine = jobs.values().filter(|job| job.user == caller.0.id && !job.has_ended());
    Json(json!({ "activeJobIds": mine.map(|job| job.id.clone()).collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Abort {
    #[serde(alias = "conversationId", alias = "abortKey")]
    stream_id: String,
}

/// `POST /api/agents/chat/abort`.
pub(crate) async fn abort(State(app): State<Arc<App>>, caller: Caller, Json(wish): Json<Abort>) -> Response {
    let job = app.jobs().get(&wish.stream_id).filter(|job| job.user == caller.0.id && !job.has_ended()).cloned();
    let Some(job) = job else {
        let body = json!({ "error": "Job not found", "streamId": wish.stream_id });
        return (StatusCode::NOT_FOUND, Json(body)).into_response();
    };
    job.abort.send_replace(true);
    Json(json!({ "success": true, "aborted": wish.stream_id })).into_response()
}
