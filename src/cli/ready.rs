//! Everything that a run needs before its first tier: children, accounts, sign-in, endpoint and
//! model, one turn spoken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rustls::ClientConfig;
use serde_json::json;
use url::Url;

use super::child::{Embedded, Stores};
use super::console::Console;
use super::preflight::{PreflightError, Seen, check, first_model, preflight};
use super::resolve::Secrets;
use super::route::{reached, route, tls_settings};
use super::run::Failed;
use super::sign_in::{Pace, by_password, made_up, minted, register, sign_in};
use crate::account::Credentials;
use crate::driver::librechat::{LibreChat, Offer};
use crate::driver::openai::OpenAi;
use crate::driver::socketio::SocketIo;
use crate::driver::sse::Sse;
use crate::driver::websocket::WebSocketChat;
use crate::driver::{Driver, HeaderError, Limits};
use crate::net::{Alpn, Endpoint, Fetcher, Route, client_config, routed_client};
use crate::record::Steps;
use crate::result::TargetInfo;
use crate::scenario::{API_KEY, Accounts, ProtocolPlan, Scenario, Site, Target};
use crate::secret::{Secret, escaped};
use crate::trace::MockAdmin;

/// The embedded deployment's logins are measured on so many users; the others' tokens are minted.
const MEASURED_LOGINS: u32 = 20;
const QUICK_LOGINS: u32 = 8;
/// Endpoints and models that are tried, one turn each, for the one that reaches our mock.
const TRIED: usize = 8;

/// The logins of an embedded run.
pub(super) fn measured_logins(quick: bool) -> u32 {
    if quick { QUICK_LOGINS } else { MEASURED_LOGINS }
}

/// What a run needs besides its scenario.
pub(super) struct Ready {
    /// The run's name in markers.
    pub(super) run: String,
    pub(super) driver: Driver,
    pub(super) target: TargetInfo,
    pub(super) seen: Seen,
    /// The mock that was seen behind the target.
    pub(super) admin: Option<MockAdmin>,
    /// What users did on the way in.
    pub(super) steps: Steps,
    /// Accounts that were made for this run in somebody's deployment.
    pub(super) made: Option<Made>,
    pub(super) embedded: Option<Embedded>,
}

/// Accounts that were made for a run. However it goes on, it ends with saying that they stay.
pub(super) struct Made {
    pub(super) mark: String,
    pub(super) count: u32,
    console: Console,
}

impl Drop for Made {
    fn drop(&mut self) {
        let Self { mark, count, console } = self;
        if *count == 0 {
            return;
        }
        console.say(&format!(
            "{count} accounts cc-{mark}-N@capacity-check.test, and what they said, stay in the deployment; \
             `capacity-check accounts remove --mark {mark} --mongo-uri URI` deletes them."
        ));
    }
}

/// What every kind of target needs on the way.
struct Way<'a> {
    scenario: &'a mut Scenario,
    secrets: &'a Secrets,
    console: Console,
    tls: Arc<ClientConfig>,
    route: Route,
    run: String,
    steps: Steps,
}

/// Starts what is embedded, lets users in, finds the model and speaks one turn.
///
/// # Errors
/// What stands in the way.
pub(super) async fn get_ready(scenario: &mut Scenario, secrets: &Secrets, console: Console) -> Result<Ready, Failed> {
    let tls = client_config(&tls_settings(scenario)).map_err(|error| Failed::Usage(error.to_string()))?;
    let route = route(scenario, secrets);
    let target = scenario.target.clone();
    let way = Way { scenario, secrets, console, tls, route, run: run_name(), steps: Steps::default() };
    match target {
        Target::OpenAi { base, mock_admin } => way.openai(base, mock_admin).await,
        Target::LibreChat { base, mock_admin, endpoint, accounts } => {
            way.librechat(base, mock_admin, endpoint, &accounts).await
        }
        Target::Described { base, mock_admin, protocol, site, accounts: _ } => {
            way.described(base, mock_admin, protocol, *site).await
        }
        Target::Embedded { mock, reference } => {
            let secret = Secret::new(uuid::Uuid::new_v4().to_string());
            let (mongo, redis) = (&secrets.stores.reference_mongo, &secrets.stores.reference_redis);
            let stores = Stores { run: &way.run, mongo: mongo.as_ref(), redis: redis.as_ref() };
            let embedded = Embedded::start(&mock, &reference, &secret, &stores)
                .map_err(|error| Failed::Preflight(format!("cannot start {error}")))?;
            way.embedded(embedded, secret).await
        }
    }
}

impl Way<'_> {
    async fn openai(self, base: Url, admin: Option<Url>) -> Result<Ready, Failed> {
        let key = self.secrets.key.as_ref();
        let model = match &self.scenario.model {
            Some(model) => model.clone(),
            None => {
                let fetcher = Fetcher::new(self.endpoint(&base)?, &base);
                first_model(&fetcher, &base, self.secrets, key).await?
            }
        };
        let endpoint = self.endpoint(&base)?;
        let driver = OpenAi::new(endpoint, &base, &model, key, &self.secrets.headers, self.limits());
        let driver = Driver::OpenAi(driver.map_err(|error| Failed::Usage(error.to_string()))?);
        let admin = admin.map(|admin| self.admin(admin, self.secrets.admin_token.clone())).transpose()?;
        let url = format!("{}/chat/completions", base.as_str().trim_end_matches('/'));
        let seen = preflight(&driver, &url, &model, &self.run, admin.as_ref(), self.scenario.real_model).await?;
        Ok(self.done(driver, &base, None, model, seen, admin))
    }

    async fn described(
        self,
        base: Url,
        admin: Option<Url>,
        protocol: ProtocolPlan,
        site: Site,
    ) -> Result<Ready, Failed> {
        let admin = admin.map(|admin| self.admin(admin, self.secrets.admin_token.clone())).transpose()?;
        let model = match (&self.scenario.model, &admin) {
            (Some(model), _) => model.clone(),
            (None, Some(admin)) => {
                let served = admin.models().await.map_err(PreflightError::from)?;
                let first = served.into_iter().next();
                first.ok_or_else(|| Failed::Preflight("the mock LLM serves no model".to_owned()))?
            }
            // No text asks for one: the deployment chooses.
            (None, None) => "-".to_owned(),
        };
        let mut common = BTreeMap::from([("model".to_owned(), json!(model))]);
        common.extend(self.secrets.values.iter().map(|(name, value)| (name.clone(), json!(value.expose()))));
        common.extend(self.secrets.key.iter().map(|key| (API_KEY.to_owned(), json!(key.expose()))));
        let common = Arc::new(common);
        let mut accounts = self.secrets.accounts.clone();
        accounts.truncate(self.scenario.peak() as usize);
        let (endpoint, headers, limits) = (self.endpoint(&base)?, &self.secrets.headers, self.limits());
        let refused = |error: HeaderError| Failed::Usage(error.to_string());
        let (driver, path) = match protocol {
            ProtocolPlan::Sse(plan) => {
                let path = plan.request.path.source().to_owned();
                let sse = Sse::new(endpoint, &base, *plan, common, accounts, headers, limits).map_err(refused)?;
                (Driver::Sse(sse.with_site(site)), path)
            }
            ProtocolPlan::WebSocket(plan) => {
                let path = plan.path.source().to_owned();
                let chat = WebSocketChat::new(endpoint, &base, plan, common, accounts, headers, limits);
                (Driver::WebSocket(chat.map_err(refused)?.with_site(site)), path)
            }
            ProtocolPlan::SocketIo(plan) => {
                let path = plan.path.clone();
                let chat = SocketIo::new(endpoint, &base, plan, common, accounts, headers, limits);
                (Driver::SocketIo(chat.map_err(refused)?.with_site(site)), path)
            }
        };
        let url = format!("{}{path}", base.as_str().trim_end_matches('/'));
        let seen = preflight(&driver, &url, &model, &self.run, admin.as_ref(), self.scenario.real_model).await?;
        Ok(self.done(driver, &base, None, model, seen, admin))
    }

    async fn librechat(
        mut self,
        base: Url,
        admin: Option<Url>,
        endpoint: Option<String>,
        accounts: &Accounts,
    ) -> Result<Ready, Failed> {
        let (peak, pace) = (self.scenario.peak(), Pace(self.scenario.login_rate));
        let mut made = None;
        let users = match accounts {
            Accounts::List { .. } => self.secrets.accounts[..peak as usize].to_vec(),
            Accounts::Registration => {
                let accounts = made_up(&self.run, peak);
                let chat = self.chat(&base, Vec::new(), None)?;
                self.console.say(&format!("Making {peak} accounts: {:.0} s.", pace.length(peak).as_secs_f64()));
                let made = made.insert(Made { mark: self.run.clone(), count: 0, console: self.console });
                register(&chat, &accounts, pace, &mut self.steps, &mut made.count).await?;
                by_password(&accounts)
            }
        };
        let chat = self.chat(&base, users.clone(), self.secrets.jwt_secret.clone())?;
        let asking = users.iter().filter(|user| user.asks()).count() as u32;
        if asking > 0 {
            let length = pace.length(asking).as_secs_f64();
            self.console.say(&format!("Letting {asking} users in, {} a second: {length:.0} s.", pace.0));
        }
        sign_in(&chat, &users, pace, &mut self.steps).await?;
        let admin = admin.map(|admin| self.admin(admin, self.secrets.admin_token.clone())).transpose()?;
        let (driver, offer, seen) = self.choose(chat, &base, endpoint.as_deref(), admin.as_ref()).await?;
        let mut ready = self.done(driver, &base, Some(offer.endpoint), offer.model, seen, admin);
        ready.made = made;
        Ok(ready)
    }

    async fn embedded(mut self, embedded: Embedded, secret: Secret) -> Result<Ready, Failed> {
        let (peak, base) = (self.scenario.peak(), embedded.chat.clone());
        let count = measured_logins(self.scenario.quick);
        let logins = made_up(&format!("login{}", self.run), count);
        let measured = by_password(&logins);
        let chat = self.chat(&base, measured.clone(), None)?;
        // All at once: only the logins are measured.
        register(&chat, &logins, Pace(f64::INFINITY), &mut Steps::default(), &mut 0).await?;
        sign_in(&chat, &measured, Pace(self.scenario.login_rate), &mut self.steps).await?;
        let users = minted(&self.run, peak);
        let chat = self.chat(&base, users.clone(), Some(secret))?;
        sign_in(&chat, &users, Pace(f64::INFINITY), &mut self.steps).await?;
        let admin = self.admin(embedded.mock.admin.clone(), None)?;
        let (driver, offer, seen) = self.choose(chat, &base, None, Some(&admin)).await?;
        let mut ready = self.done(driver, &base, Some(offer.endpoint), offer.model, seen, Some(admin));
        ready.embedded = Some(embedded);
        Ok(ready)
    }

    /// The endpoint and model: those that were named, or the first that reach our mock. A model
    /// that the mock does not serve is not tried: somebody might pay for the turn.
    async fn choose(
        &self,
        chat: LibreChat,
        base: &Url,
        endpoint: Option<&str>,
        admin: Option<&MockAdmin>,
    ) -> Result<(Driver, Offer, Seen), Failed> {
        let offers = chat.offers(0).await;
        let mut driver = Driver::LibreChat(chat);
        let offers = offers.map_err(|(outcome, detail)| PreflightError::Offers {
            base: base.as_str().trim_end_matches('/').to_owned(),
            outcome,
            detail,
            check: check(&driver, outcome),
        })?;
        let model = self.scenario.model.as_deref();
        let named = offers.iter().filter(|offer| {
            endpoint.is_none_or(|name| name == offer.endpoint) && model.is_none_or(|name| name == offer.model)
        });
        let served = match admin {
            Some(admin) if !self.scenario.real_model => Some(admin.models().await.map_err(PreflightError::from)?),
            _ => None,
        };
        let fitting: Vec<Offer> =
            named.filter(|offer| served.as_ref().is_none_or(|served| served.contains(&offer.model))).cloned().collect();
        let mut last = None;
        for offer in fitting.into_iter().take(TRIED) {
            if let Driver::LibreChat(chat) = &mut driver {
                chat.choose(offer.clone());
            }
            let url = format!("{}/api/agents/chat/{}", base.as_str().trim_end_matches('/'), offer.endpoint);
            let real = self.scenario.real_model;
            match preflight(&driver, &url, &offer.model, &self.run, admin, real).await {
                Ok(seen) => return Ok((driver, offer, seen)),
                Err(error @ PreflightError::RealModel { .. }) if admin.is_some() => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.unwrap_or_else(|| nothing_fits(&offers, endpoint, model, served.as_deref())).into())
    }

    fn done(
        self,
        driver: Driver,
        base: &Url,
        endpoint: Option<String>,
        model: String,
        seen: Seen,
        admin: Option<MockAdmin>,
    ) -> Ready {
        let admin = admin.filter(|_| seen.mock);
        self.scenario.model = Some(model.clone());
        let target = TargetInfo {
            kind: self.scenario.target.kind().to_owned(),
            url: base.to_string(),
            endpoint,
            model,
            mock: seen.mock,
            insecure: self.scenario.insecure,
            reached: reached(self.scenario),
        };
        Ready { run: self.run, driver, target, seen, admin, steps: self.steps, made: None, embedded: None }
    }

    fn chat(&self, base: &Url, users: Vec<Credentials>, secret: Option<Secret>) -> Result<LibreChat, Failed> {
        let endpoint = self.endpoint(base)?;
        LibreChat::new(endpoint, base, users, secret, &self.secrets.headers, self.limits())
            .map_err(|error| Failed::Usage(error.to_string()))
    }

    fn endpoint(&self, base: &Url) -> Result<Endpoint, Failed> {
        let (route, timeout) = (self.route.clone(), self.limits().connect);
        let endpoint = Endpoint::routed(base, &self.tls, route, timeout);
        let offer = if self.scenario.http1 { Alpn::Http1 } else { Alpn::Http2 };
        endpoint.map(|endpoint| endpoint.offering(offer)).map_err(|error| Failed::Usage(error.to_string()))
    }

    fn admin(&self, admin: Url, token: Option<Secret>) -> Result<MockAdmin, Failed> {
        let client = routed_client(&self.tls, &self.route, &admin).context("cannot set up the HTTP client")?;
        Ok(MockAdmin::new(client, admin, token))
    }

    fn limits(&self) -> Limits {
        let timeouts = &self.scenario.timeouts;
        Limits { connect: timeouts.connect, stall: timeouts.stall, turn: timeouts.turn, ..Limits::default() }
    }
}

/// Why none of the offers can be asked.
fn nothing_fits(
    offers: &[Offer],
    endpoint: Option<&str>,
    model: Option<&str>,
    served: Option<&[String]>,
) -> PreflightError {
    let list: Vec<String> = offers.iter().map(|offer| format!("{} / {}", offer.endpoint, offer.model)).collect();
    let mut wanted = Vec::new();
    wanted.extend(endpoint.map(|name| format!("--endpoint {name}")));
    wanted.extend(model.map(|name| format!("--model {name}")));
    let why = match (wanted.is_empty(), served) {
        (false, _) => format!("none has {}", wanted.join(" and ")),
        (true, Some(served)) => format!("none has a model that the mock serves ({})", served.join(", ")),
        (true, None) => "there is none".to_owned(),
    };
    PreflightError::NoOffer {
        why: escaped(&why, 300),
        offered: escaped(&if list.is_empty() { "none".to_owned() } else { list.join(", ") }, 500),
        next: "`capacity-check mock-llm --print-librechat-yaml` prints one for librechat.yaml; after a change the \
               deployment must be restarted",
    }
}

/// Names a run in its markers and accounts: small letters and digits, and another one for each run.
fn run_name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}p{:x}", since.as_millis(), std::process::id())
}
