//! Accounts: register, login, refresh.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cookie::{Cookie, SameSite};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::{Peer, add_standing, message};
use crate::accounts::{Refusal, Tokens};
use crate::app::App;
use crate::limits::{Limiter, Who};
use crate::store::StoreError;

const BANNED: &str =
    "Your account has been temporarily banned due to violations of our service. Please try again later.";

#[derive(Deserialize)]
pub(crate) struct Registration {
    name: String,
    #[serde(default)]
    username: Option<String>,
    email: String,
    password: String,
    confirm_password: String,
}

#[derive(Deserialize)]
pub(crate) struct Login {
    email: String,
    password: String,
}

/// `POST /api/auth/register`.
pub(crate) async fn register(
    State(app): State<Arc<App>>,
    peer: Peer,
    Json(wish): Json<Registration>,
) -> Result<Response, StoreError> {
    let too_many = "Too many accounts created, please try again after 60 minutes";
    if let Some(refused) = limited(&app, Limiter::Register, peer, too_many).await? {
        return Ok(refused);
    }
    if wish.name.chars().count() < 3 || wish.password.chars().count() < 8 || wish.password != wish.confirm_password {
        return Ok(message(StatusCode::BAD_REQUEST, "name of 3 characters or more, password of 8 or more, twice"));
    }
    let worker = app.workers.next();
    worker.pass(app.settings.costs.login).await;
    let username = wish.username.unwrap_or_default();
    app.accounts.register(&wish.name, &username, &wish.email, &wish.password).await?;
    Ok(message(StatusCode::OK, "Please check your email to verify your email address."))
}

/// `POST /api/auth/login`.
pub(crate) async fn login(
    State(app): State<Arc<App>>,
    peer: Peer,
    Json(who): Json<Login>,
) -> Result<Response, StoreError> {
    if app.is_banned(&[Who::Address(peer.0)]).await? {
        return Ok(message(StatusCode::FORBIDDEN, BANNED));
    }
    let too_many = "Too many login attempts, please try again after 5 minutes.";
    if let Some(refused) = limited(&app, Limiter::Login, peer, too_many).await? {
        return Ok(refused);
    }
    let worker = app.workers.next();
    worker.pass(app.settings.costs.login).await;
    match app.accounts.login(&who.email, &who.password).await {
        Ok(tokens) => {
            let banned = app.is_banned(&[Who::User(tokens.user.id.clone())]).await?;
            Ok(if banned { message(StatusCode::FORBIDDEN, BANNED) } else { welcome(&tokens) })
        }
        Err(Refusal::Store(error)) => Err(error),
        Err(Refusal::UnknownEmail) => Ok(message(StatusCode::NOT_FOUND, "Email does not exist.")),
        Err(_) => Ok(message(StatusCode::NOT_FOUND, "Incorrect password.")),
    }
}

/// `POST /api/auth/refresh`: by cookie alone.
pub(crate) async fn refresh(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let token = cookies
        .flat_map(Cookie::split_parse)
        .filter_map(Result::ok)
        .find(|cookie| cookie.name() == "refreshToken")
        .map(|cookie| cookie.value().to_owned());
    let Some(token) = token else { return "Refresh token not provided".into_response() };
    match app.accounts.refresh(&token).await {
        Ok(tokens) => welcome(&tokens),
        Err(Refusal::Store(error)) => error.into_response(),
        Err(Refusal::Rotated) => {
            (StatusCode::UNAUTHORIZED, "Refresh token expired or not found for this user").into_response()
        }
        Err(_) => (StatusCode::FORBIDDEN, "Invalid refresh token").into_response(),
    }
}

/// The bearer token in the body, the refresh token in a cookie.
fn welcome(tokens: &Tokens) -> Response {
    let mut response = Json(json!({ "token": tokens.bearer, "user": tokens.user.shown() })).into_response();
    for (name, value) in [("refreshToken", tokens.refresh.as_str()), ("token_provider", "librechat")] {
        let cookie = Cookie::build((name, value))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Strict)
            .max_age(cookie::time::Duration::days(7));
        if let Ok(value) = HeaderValue::from_str(&cookie.to_string()) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
    response
}

/// The refusal of a limiter by address, if it refuses.
async fn limited(app: &App, limiter: Limiter, peer: Peer, text: &str) -> Result<Option<Response>, StoreError> {
    let standing = app.hit(limiter, &Who::Address(peer.0)).await?;
    Ok(standing.filter(|standing| !standing.admitted).map(|standing| {
        let mut refused = message(StatusCode::TOO_MANY_REQUESTS, text);
        add_standing(refused.headers_mut(), Some(standing));
        refused
    }))
}
