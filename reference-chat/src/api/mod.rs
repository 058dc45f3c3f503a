//! The HTTP routes, by what they are for.

mod auth;
mod chat;
mod pages;

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use crate::accounts::{Refusal, User};
use crate::app::App;
use crate::limits::{Standing, Who};
use crate::store::StoreError;

/// The largest request body that is read.
const REQUEST_LIMIT: usize = 1 << 20;

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let ok = || async { "OK" };
    let for_browsers = Router::new()
        .route("/api/files", get(pages::files))
        .route("/api/agents/chat/active", get(chat::active))
        .route("/api/agents/chat/abort", post(chat::abort))
        .route("/api/agents/chat/status/{id}", get(chat::status))
        .route("/api/agents/chat/stream/{id}", get(chat::stream))
        .route("/api/agents/chat/{endpoint}", post(chat::start))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(&app), chat::browsers_only));
    Router::new()
        .route("/reference/plants", get(plants))
        .route("/metrics", get(metrics))
        .route("/health", get(ok))
        .route("/livez", get(ok))
        .route("/readyz", get(ok))
        .route("/api/auth/register", post(auth::register))
        .route("/api/auth/login", post(auth::login))
        .route("/api/auth/refresh", post(auth::refresh))
        .route("/api/config", get(pages::config))
        .route("/api/user", get(pages::user))
        .route("/api/user/terms", get(pages::terms))
        .route("/api/endpoints", get(pages::endpoints))
        .route("/api/models", get(pages::models))
        .route("/api/roles/{role}", get(pages::role))
        .route("/api/convos", get(pages::convos))
        .route("/api/convos/{id}", get(pages::convo))
        .route("/api/convos/gen_title/{id}", get(pages::title))
        .route("/api/messages/{id}", get(pages::messages))
        .route("/api/search/enable", get(pages::search))
        .merge(for_browsers)
        .fallback(page)
        .layer(axum::extract::DefaultBodyLimit::max(REQUEST_LIMIT))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), counted))
        .with_state(app)
}

/// Counts what is answered.
async fn counted(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    app.metrics.answered(method.as_str(), &path, response.status().as_u16());
    response
}

/// `GET /metrics`, for whoever knows the secret.
async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer "));
    if app.settings.metrics_secret.as_deref().is_some_and(|secret| token != Some(secret)) {
        return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.text()).into_response()
}

/// How many tokens each plant has harmed: nothing that LibreChat has.
async fn plants(State(app): State<Arc<App>>) -> Json<serde_json::Value> {
    Json(app.planted.told())
}

/// Whatever is no route is the web client's page, with status 200.
async fn page() -> Response {
    let html = "<!DOCTYPE html><html lang=\"en\"><head><title>Reference chat</title></head><body></body></html>";
    ([(header::CONTENT_TYPE, "text/html; charset=UTF-8")], html).into_response()
}

/// The address that a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        parts.extensions.get().copied().ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Whoever sent a good bearer token.
pub(crate) struct Caller(pub(crate) User);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err(message(StatusCode::UNAUTHORIZED, "No auth token"));
        };
        match app.accounts.bearer(token).await {
            Ok(user) => Ok(Self(user)),
            Err(Refusal::Store(error)) => Err(error.into_response()),
            Err(_) => Err((StatusCode::UNAUTHORIZED, "Unauthorized").into_response()),
        }
    }
}

impl Caller {
    /// Whom a violation of this caller is about.
    fn concerned(&self, peer: Peer) -> [Who; 2] {
        [Who::User(self.0.id.clone()), Who::Address(peer.0)]
    }
}

/// `{"message": ..}` with a status.
fn message(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "message": text }))).into_response()
}

/// A store refused: status 500, as LibreChat answers what it did not expect.
impl IntoResponse for StoreError {
    fn into_response(self) -> Response {
        let body = json!({ "error": "Internal server error", "message": self.to_string() });
        (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
    }
}

/// Adds `X-RateLimit-*` and, where the limit is reached, `Retry-After`.
fn add_standing(headers: &mut HeaderMap, standing: Option<Standing>) {
    let Some(standing) = standing else { return };
    let reset = crate::jwt::unix_seconds() + standing.reset.as_secs();
    let after = standing.reset.as_secs().max(1);
    for (name, value) in [
        ("x-ratelimit-limit", u64::from(standing.max)),
        ("x-ratelimit-remaining", u64::from(standing.remaining)),
        ("x-ratelimit-reset", reset),
        ("retry-after", after),
    ] {
        if name != "retry-after" || !standing.admitted {
            headers.insert(name, HeaderValue::from(value));
        }
    }
}
