//! What all requests share.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::task::JoinSet;

use crate::accounts::Accounts;
use crate::archive::Archive;
use crate::job::Job;
use crate::limits::{BAN, Gate, Limiter, Standing, Violation, Who};
use crate::metrics::Metrics;
use crate::plant::Planted;
use crate::settings::Settings;
use crate::store::{StoreError, Stores};
use crate::work::Workers;

/// A running deployment.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) workers: Workers,
    pub(crate) client: reqwest::Client,
    pub(crate) planted: Planted,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stores: Stores,
    pub(crate) accounts: Accounts,
    pub(crate) archive: Archive,
    gate: Mutex<Gate>,
    jobs: Mutex<HashMap<String, Arc<Job>>>,
    /// Turns of each user from their admission to their end.
    open: Mutex<HashMap<String, u32>>,
    /// What goes on without a request.
    tasks: Mutex<JoinSet<()>>,
}

/// One open turn of a user, as long as it lives.
pub(crate) struct Open {
    app: Arc<App>,
    user: String,
    /// Counted in Redis, and not yet taken from there.
    shared: bool,
}

/// Why a turn is not opened.
pub(crate) enum Full {
    /// The user has so many already.
    Open(u32),
    /// It cannot be known.
    Store(StoreError),
}

impl Open {
    /// Opens one more, unless the user has `most` already; then it says how many are open.
    pub(crate) async fn admit(app: &Arc<App>, user: &str, most: Option<u32>) -> Result<Self, Full> {
        let Some(redis) = &app.stores.redis else { return Self::admit_here(app, user, most).map_err(Full::Open) };
        let open = redis.enter(user).await.map_err(Full::Store)?;
        let mut mine = Self { app: Arc::clone(app), user: user.to_owned(), shared: true };
        if most.is_some_and(|most| open > most) {
            mine.leave().await;
            return Err(Full::Open(open - 1));
        }
        Ok(mine)
    }

    fn admit_here(app: &Arc<App>, user: &str, most: Option<u32>) -> Result<Self, u32> {
        let mut open = app.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = open.entry(user.to_owned()).or_default();
        if most.is_some_and(|most| *mine >= most) {
            return Err(*mine);
        }
        *mine += 1;
        Ok(Self { app: Arc::clone(app), user: user.to_owned(), shared: false })
    }

    /// Takes it from Redis, if it is counted there, before whoever waits is told of the end. Where
    /// Redis refuses, the count's own end does it.
    pub(crate) async fn leave(&mut self) {
        if std::mem::take(&mut self.shared)
            && let Some(redis) = &self.app.stores.redis
        {
            let _ = redis.leave(&self.user).await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(redis) = &self.app.stores.redis {
            // A request that was refused or given up; outside a runtime the deployment is ending.
            if self.shared
                && let Ok(runtime) = tokio::runtime::Handle::try_current()
            {
                let (redis, user) = (Arc::clone(redis), std::mem::take(&mut self.user));
                runtime.spawn(async move { redis.leave(&user).await });
            }
            return;
        }
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
    pub(crate) fn new(
        settings: Settings,
        workers: Workers,
        client: reqwest::Client,
        stores: Stores,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            accounts: Accounts::new(&settings.jwt_secret, settings.token_life, &stores),
            archive: Archive::new(stores.mongo.as_ref()),
            gate: Mutex::new(Gate::new(settings.limits)),
            jobs: Mutex::default(),
            open: Mutex::default(),
            tasks: Mutex::default(),
            planted: Planted::new(&settings.plants),
            settings,
            workers,
            client,
            stores,
            metrics,
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn jobs(&self) -> MutexGuard<'_, HashMap<String, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one hit, where the limiter is on.
    pub(crate) async fn hit(&self, limiter: Limiter, who: &Who) -> Result<Option<Standing>, StoreError> {
        match (&self.stores.redis, self.settings.limits.of(limiter)) {
            (Some(redis), Some(limit)) => redis.hit(limiter, who, limit).await.map(Some),
            _ => Ok(self.gate().hit(limiter, who.clone(), Instant::now())),
        }
    }

    /// Notes a violation; enough of them ban everybody concerned. Gives the score so far. Scores
    /// are those of this process; bans are everybody's where there is a database.
    pub(crate) async fn violate(&self, concerned: &[Who], violation: Violation) -> Result<u32, StoreError> {
        let now = Instant::now();
        let (score, banned) = {
            let mut gate = self.gate();
            let score = gate.violate(concerned, violation, now);
            (score, concerned.iter().any(|who| gate.is_banned(who, now)))
        };
        if banned && let Some(mongo) = &self.stores.mongo {
            for who in concerned {
                mongo.ban(who, BAN).await?;
            }
        }
        Ok(score)
    }

    /// Whether any of them is banned. All are asked for, as LibreChat does.
    pub(crate) async fn is_banned(&self, concerned: &[Who]) -> Result<bool, StoreError> {
        let Some(mongo) = &self.stores.mongo else {
            let (gate, now) = (self.gate(), Instant::now());
            return Ok(concerned.iter().any(|who| gate.is_banned(who, now)));
        };
        let mut banned = false;
        for who in concerned {
            banned |= mongo.is_banned(who).await?;
        }
        Ok(banned)
    }

    /// Has something go on without a request, until the deployment ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends what goes on without a request, so that nothing is stored any more.
    pub(crate) async fn end_tasks(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
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
