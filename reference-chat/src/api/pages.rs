//! What the web client loads besides the chat itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Caller, message};
use crate::app::App;
use crate::store::StoreError;

/// `GET /api/config`.
pub(crate) async fn config() -> Json<Value> {
    Json(json!({
        "appTitle": "Reference chat", "emailLoginEnabled": true, "registrationEnabled": true,
        "socialLoginEnabled": false, "emailEnabled": false, "passwordResetEnabled": false,
        "serverDomain": "http://localhost:3080", "interface": {},
    }))
}

/// `GET /api/user`.
pub(crate) async fn user(caller: Caller) -> Json<Value> {
    Json(caller.0.shown())
}

/// `GET /api/user/terms`.
pub(crate) async fn terms(_: Caller) -> Json<Value> {
    Json(json!({ "termsAccepted": true }))
}

/// `GET /api/endpoints`.
pub(crate) async fn endpoints(State(app): State<Arc<App>>, _: Caller) -> Json<Value> {
    Json(json!({
        "agents": { "disableBuilder": false, "order": 0 },
        app.settings.endpoint.clone(): { "type": "custom", "userProvide": false, "userProvideURL": false, "order": 1 },
    }))
}

/// `GET /api/models`: those of the model's own list, asked each time.
pub(crate) async fn models(State(app): State<Arc<App>>, _: Caller) -> Response {
    let list = async { app.ask(Method::GET, "models").send().await?.error_for_status()?.json::<Value>().await };
    let Ok(list) = list.await else {
        return message(StatusCode::INTERNAL_SERVER_ERROR, "the model does not list its models");
    };
    let names: Vec<&Value> = list["data"].as_array().into_iter().flatten().map(|model| &model["id"]).collect();
    Json(json!({ "agents": [], app.settings.endpoint.clone(): names })).into_response()
}

/// `GET /api/roles/USER`.
pub(crate) async fn role(_: Caller, Path(role): Path<String>) -> Json<Value> {
    Json(json!({ "name": role, "permissions": {} }))
}

/// `GET /api/convos`.
pub(crate) async fn convos(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Value>, StoreError> {
    Ok(Json(json!({ "conversations": app.archive.page(&caller.0.id).await?, "nextCursor": null })))
}

/// `GET /api/convos/ID`.
pub(crate) async fn convo(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, StoreError> {
    let found = app.archive.find(&id, &caller.0.id).await?;
    Ok(found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |found| Json(found).into_response()))
}

/// `GET /api/convos/gen_title/ID`: titles are off.
pub(crate) async fn title(_: Caller) -> Response {
    message(StatusCode::NOT_FOUND, "Title not found or method not implemented for the conversation's endpoint")
}

/// `GET /api/messages/ID`.
pub(crate) async fn messages(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, StoreError> {
    let kept = app.archive.messages(&id, &caller.0.id).await?;
    let messages: Vec<Value> = kept
        .iter()
        .map(|message| {
            let mut content = vec![json!({ "type": "text", "text": message.text })];
            content.extend(message.error.as_ref().map(|error| json!({ "type": "error", "error": error })));
            let (text, content) =
                if message.by_user { (message.text.as_str(), json!(null)) } else { ("", json!(content)) };
            json!({
                "messageId": message.id, "parentMessageId": message.parent, "conversationId": id,
                "user": caller.0.id, "isCreatedByUser": message.by_user, "text": text, "content": content,
                "error": message.error.is_some(),
            })
        })
        .collect();
    Ok(Json(Value::Array(messages)))
}

/// `GET /api/files`.
pub(crate) async fn files(_: Caller) -> Json<Value> {
    Json(json!([]))
}

/// `GET /api/search/enable`.
pub(crate) async fn search(_: Caller) -> Json<bool> {
    Json(false)
}
