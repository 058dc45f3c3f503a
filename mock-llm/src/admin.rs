//! The admin listener: metrics, journal, behaviour, clock.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::behaviour::Behaviour;
use crate::journal::PAGE_LIMIT;
use crate::metrics::lock;
use crate::section::Problem;
use crate::state::State;

/// What admin requests need.
pub(crate) struct Admin {
    pub(crate) state: Arc<State>,
    /// The bearer token that must be shown, if any.
    pub(crate) token: Option<String>,
}

impl Admin {
    /// Answers one request.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let shown = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        if let Some(token) = &self.token
            && shown != Some(format!("Bearer {token}").as_bytes())
        {
            return answer(StatusCode::UNAUTHORIZED, &json!({ "error": "the admin listener wants its bearer token" }));
        }
        match (request.method().clone(), request.uri().path()) {
            (Method::GET, "/metrics") => {
                let mut response = Response::new(Full::from(self.state.metrics.text()));
                let kind = HeaderValue::from_static("text/plain; version=0.0.4");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            (Method::GET, "/admin/turns") => self.turns(request.uri().query().unwrap_or_default()),
            (Method::GET, "/admin/behaviour") => answer(StatusCode::OK, &self.state.live().behaviour.to_value()),
            (Method::PUT, "/admin/behaviour") => self.put_behaviour(request).await,
            (Method::GET, "/admin/clock") => answer(StatusCode::OK, &json!(self.state.clock.now())),
            (Method::GET, "/health") => answer(StatusCode::OK, &json!({ "status": "ok", "service": "mock-llm" })),
            (method, path) => answer(
                StatusCode::NOT_FOUND,
                &json!({ "error": format!("no {method} {path}; there are GET /metrics, /admin/turns, /admin/behaviour, \
                    /admin/clock, /health and PUT /admin/behaviour") }),
            ),
        }
    }

    /// `?after=SEQ&limit=N`, both optional.
    fn turns(&self, query: &str) -> Response<Full<Bytes>> {
        let (mut after, mut limit) = (0, PAGE_LIMIT as u64);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "after" => &mut after,
                "limit" => &mut limit,
                _ => {
                    return answer(StatusCode::BAD_REQUEST, &json!({ "error": format!("unknown parameter `{name}`") }));
                }
            };
            let Ok(number) = value.parse() else {
                return answer(StatusCode::BAD_REQUEST, &json!({ "error": format!("`{name}` wants a whole number") }));
            };
            *place = number;
        }
        let page = lock(&self.state.journal).page(after, limit as usize);
        answer(StatusCode::OK, &json!(page))
    }

    async fn put_behaviour(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let toml = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"toml"));
        let body = match Limited::new(request.into_body(), 1 << 20).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return refuse(&[Problem { key: "(body)".to_owned(), message: error.to_string() }]),
        };
        let read = if toml {
            Behaviour::from_toml(&String::from_utf8_lossy(&body))
        } else {
            serde_json::from_slice::<Value>(&body)
                .map_err(|error| vec![Problem { key: "(syntax)".to_owned(), message: error.to_string() }])
                .and_then(Behaviour::from_value)
        };
        match read {
            Ok(behaviour) => {
                let value = behaviour.to_value();
                self.state.replace(behaviour);
                answer(StatusCode::OK, &value)
            }
            Err(problems) => refuse(&problems),
        }
    }
}

fn refuse(problems: &[Problem]) -> Response<Full<Bytes>> {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    answer(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "problems": problems }))
}

fn answer(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
