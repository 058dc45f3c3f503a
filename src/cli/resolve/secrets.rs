//! What is sent but never shown: keys, header values, accounts. From the environment or files.

use super::Problems;
use super::probe::{StoreSecrets, store_secrets};
use crate::account::{Credentials, read_list};
use crate::cli::overlay::Wish;
use crate::net::PROXY_AUTH_VARIABLE;
use crate::scenario::file::ScenarioFile;
use crate::secret::{Secret, redacted};

/// The variable of the bearer key where none is named.
const DEFAULT_KEY_VARIABLE: &str = "CAPACITY_CHECK_API_KEY";

/// What is sent but never shown.
#[derive(Debug, Default)]
pub(in crate::cli) struct Secrets {
    /// The bearer key.
    pub(in crate::cli) key: Option<Secret>,
    /// Headers by name.
    pub(in crate::cli) headers: Vec<(String, Secret)>,
    /// Values for the places of a described protocol, by name.
    pub(in crate::cli) values: Vec<(String, Secret)>,
    /// The token of the mock's admin listener.
    pub(in crate::cli) admin_token: Option<Secret>,
    /// `user:password` for the proxy.
    pub(in crate::cli) proxy_auth: Option<Secret>,
    /// Signs the bearer tokens of users whose tokens are minted.
    pub(in crate::cli) jwt_secret: Option<Secret>,
    /// The users, where a list names them.
    pub(in crate::cli) accounts: Vec<Credentials>,
    /// What lets the probes in.
    pub(in crate::cli) stores: StoreSecrets,
}

impl Secrets {
    /// A foreign text without these.
    pub(in crate::cli) fn redacted(&self, text: &str) -> String {
        let named = self.headers.iter().chain(&self.values).map(|(_, value)| value);
        let alone = [&self.key, &self.admin_token, &self.proxy_auth, &self.jwt_secret];
        let all: Vec<Secret> = alone.into_iter().flatten().chain(named).cloned().collect();
        redacted(text, &all)
    }
}

pub(super) fn variable(name: &str) -> Option<Secret> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).map(Secret::new)
}

/// A variable that is not there. Somebody may have written the secret itself in the place of its
/// variable's name: what is no name is not repeated.
pub(super) fn missing(name: &str) -> String {
    let is_name = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    if is_name {
        format!("the environment has no {name}")
    } else {
        "should be the name of an environment variable, such as CHAT_KEY".to_owned()
    }
}

/// Whether HTTP allows a header, and it is not one that says where the request ends.
fn is_header(name: &str, value: &str) -> bool {
    let ours = [http::header::CONTENT_LENGTH, http::header::TRANSFER_ENCODING];
    http::HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| !ours.contains(&name))
        && http::HeaderValue::from_str(value).is_ok()
}

pub(super) fn secrets(wish: &Wish, problems: &mut Problems<'_>) -> Secrets {
    let mut headers = Vec::new();
    for (name, source) in &wish.file.target.headers_env {
        let path = format!("target.headers_env.{name}");
        match variable(source) {
            Some(value) if is_header(name, value.expose()) => headers.push((name.clone(), value)),
            Some(_) => problems.add(&path, format!("`{name}` has a name or value that cannot be sent")),
            None => problems.add(&path, missing(source)),
        }
    }
    for text in &wish.headers {
        // The value may be a secret: a problem repeats only the name.
        match text.split_once(':').map(|(name, value)| (name.trim(), value.trim())) {
            Some((name, value)) if is_header(name, value) => headers.push((name.to_owned(), Secret::new(value))),
            Some((name, _)) => {
                problems.add("--header", format!("`{name}` has a name or value that cannot be sent"));
            }
            None => problems.add("--header", "write it like 'Name: value'"),
        }
    }
    let mut values = Vec::new();
    for (name, source) in &wish.file.target.values_env {
        match variable(source) {
            Some(value) => values.push((name.clone(), value)),
            None => problems.add(&format!("target.values_env.{name}"), missing(source)),
        }
    }
    let named = wish.file.target.api_key_env.as_deref();
    let key = variable(named.unwrap_or(DEFAULT_KEY_VARIABLE));
    if let (None, Some(name)) = (&key, named) {
        problems.add("target.api_key_env", missing(name));
    }
    // What is meant for other proxies is not sent.
    let proxy_auth = wish.file.target.proxy.as_ref().and_then(|_| variable(PROXY_AUTH_VARIABLE));
    if proxy_auth.as_ref().is_some_and(|auth| !auth.expose().contains(':')) {
        problems.add("target.proxy", format!("{PROXY_AUTH_VARIABLE} in the environment should be user:password"));
    }
    Secrets {
        key,
        headers,
        values,
        admin_token: variable("MOCK_LLM_ADMIN_TOKEN"),
        proxy_auth,
        jwt_secret: variable(reference_chat::cli::SECRET_VARIABLE),
        accounts: Vec::new(),
        stores: store_secrets(wish, problems),
    }
}

/// The names of the headers that are sent besides the protocol's.
pub(super) fn header_names(wish: &Wish) -> Vec<String> {
    let typed = wish.headers.iter().filter_map(|text| Some(text.split_once(':')?.0.trim().to_owned()));
    wish.file.target.headers_env.keys().cloned().chain(typed).collect()
}

/// The users of a deployment with logins: one account each, for LibreChat keeps people to two turns at once. `mints`
/// tells whether tokens are minted.
pub(super) fn accounts(file: &ScenarioFile, peak: u32, mints: bool, problems: &mut Problems<'_>) -> Vec<Credentials> {
    let Some(path) = &file.accounts.file else { return Vec::new() };
    let list = read_list(path, mints).map_err(|error| error.to_string());
    let Some(list) = problems.take("accounts.file", list) else { return Vec::new() };
    if list.len() < peak as usize {
        let (has, path) = (list.len(), path.display());
        problems.add("accounts.file", format!("{path} has {has} accounts, but {peak} users want one each"));
    }
    list
}

/// Tells accounts that want tokens minted without the secret for it.
pub(super) fn unminted(accounts: &[Credentials], problems: &mut Problems<'_>) {
    if accounts.iter().any(|one| matches!(one, Credentials::Minted { .. })) {
        problems.add("accounts.file", "id,email,username want the deployment's JWT_SECRET in the environment");
    }
}
