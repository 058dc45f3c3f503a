//! What all requests share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::accounts::Accounts;
use crate::chats::Chats;
use crate::job::Job;
use crate::limits::Gate;
use crate::plant::Planted;
use crate::settings::Settings;
use crate::work::Workers;

/// A running deployment.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) workers: Workers,
    pub(crate) client: reqwest::Client,
    pub(crate) planted: Planted,
    accounts: Mutex<Accounts>,
    chats: Mutex<Chats>,
    gate: Mutex<Gate>,
    jobs: Mutex<HashMap<String, Arc<Job>>>,
    /// Turns of each user from their admission to their end.
    open: Mutex<HashMap<String, u32>>,
}

/// One open turn of a user, as long as it lives.
pub(crate) struct Open {
    app: Arc<App>,
    user: String,
}

impl Open {
    /// Opens one more, unless the user has `most` already; then it says how many are open.
    pub(crate) fn admit(app: &Arc<App>, user: &str, most: Option<u32>) -> Result<Self, u32> {
        let mut open = app.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = open.entry(user.to_owned()).or_default();
        if most.is_some_and(|most| *mine >= most) {
            return Err(*mine);
        }
        *mine += 1;
        Ok(Self { app: Arc::clone(app), user: user.to_owned() })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.app.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = open.get_mut(&self.user) {
            *mine -= 1;
            if *mine == 0 {
                open.remove(&self.user);
            }
        }
    }
}

impl App {
    pub(crate) fn new(settings: Settings, workers: Workers, client: reqwest::Client) -> Self {
        Self {
            accounts: Mutex::new(Accounts::new(&settings.jwt_secret, settings.token_life)),
            gate: Mutex::new(Gate::new(settings.limits)),
            chats: Mutex::default(),
            jobs: Mutex::default(),
            open: Mutex::default(),
            planted: Planted::new(&settings.plants),
            settings,
            workers,
            client,
        }
    }

    pub(crate) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn chats(&self) -> MutexGuard<'_, Chats> {
        self.chats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn jobs(&self) -> MutexGuard<'_, HashMap<String, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A URL of the model's API.
    pub(crate) fn upstream(&self, path: &str) -> String {
        format!("{}/{path}", self.settings.upstream.as_str().trim_end_matches('/'))
    }

    /// A request to the model's API, with its key.
    pub(crate) fn ask(&self, method: http::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, self.upstream(path));
        match &self.settings.upstream_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}
