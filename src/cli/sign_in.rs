//! Before the first tier: accounts are made where that was asked for, and everybody is let in, paced.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::preflight::PreflightError;
use crate::account::{Credentials, local_part, marked_email};
use crate::clock::{self, Nanos, SECOND};
use crate::driver::librechat::LibreChat;
use crate::record::{Outcome, Step, Steps, Turn};
use crate::secret::{Secret, escaped};

/// Accounts for a test: marked, with one random password.
pub(super) fn made_up(mark: &str, count: u32) -> Vec<(String, Secret)> {
    let password = Secret::new(uuid::Uuid::new_v4().to_string());
    (0..count).map(|number| (marked_email(mark, number), password.clone())).collect()
}

/// Accounts whose tokens are minted, for a deployment that takes them from the token.
pub(super) fn minted(mark: &str, count: u32) -> Vec<Credentials> {
    (0..count)
        .map(|number| {
            let email = marked_email(mark, number);
            Credentials::Minted { id: format!("{number:024x}"), username: local_part(&email).to_owned(), email }
        })
        .collect()
}

/// As logins by password.
pub(super) fn by_password(accounts: &[(String, Secret)]) -> Vec<Credentials> {
    let login = |(email, password): &(String, Secret)| Credentials::Password {
        email: email.clone(),
        password: password.clone(),
    };
    accounts.iter().map(login).collect()
}

/// How users are let in: so many a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace(pub(super) f64);

impl Pace {
    /// A pace that somebody asked for.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub(super) fn parse(rate: f64) -> Result<Self, String> {
        if rate > 0.0 && rate <= 1_000.0 {
            Ok(Self(rate))
        } else {
            Err("should be above 0 and at most 1000 a second".to_owned())
        }
    }

    fn at(self, number: u32) -> Nanos {
        (f64::from(number) / self.0 * SECOND as f64) as Nanos
    }

    /// How long `count` of them take.
    pub(super) fn length(self, count: u32) -> Duration {
        Duration::from_nanos(self.at(count).max(0) as u64)
    }
}

/// What is done for one user.
enum Visit<'a> {
    Register(&'a str, &'a Secret),
    SignIn(u32),
}

/// Makes accounts by registration; `made` is told how many there are.
///
/// # Errors
/// The first that failed; nobody else is tried then.
pub(super) async fn register(
    chat: &LibreChat,
    accounts: &[(String, Secret)],
    pace: Pace,
    steps: &mut Steps,
    made: &mut u32,
) -> Result<(), PreflightError> {
    let visits = accounts.iter().map(|(email, password)| (email.clone(), Visit::Register(email, password)));
    paced(chat, visits.collect(), pace, Step::Registration, steps, made).await
}

/// Lets users in, by their credentials. Tokens that are held or minted need no request: they are
/// no logins and have no pace.
///
/// # Errors
/// The first that failed; nobody else is tried then.
pub(super) async fn sign_in(
    chat: &LibreChat,
    users: &[Credentials],
    pace: Pace,
    steps: &mut Steps,
) -> Result<(), PreflightError> {
    let mut visits = Vec::new();
    for (number, credentials) in users.iter().enumerate() {
        let number = number as u32;
        if credentials.asks() {
            visits.push((credentials.name().to_owned(), Visit::SignIn(number)));
            continue;
        }
        let now = clock::monotonic();
        let mut visit = Turn::new(now, now);
        chat.sign_in(number, &mut visit).await;
        passed(Step::Login, credentials.name(), &visit, number)?;
    }
    paced(chat, visits, pace, Step::Login, steps, &mut 0).await
}

/// Begins each visit at its moment, whether those before are done or not; its latency counts from there.
async fn paced(
    chat: &LibreChat,
    visits: Vec<(String, Visit<'_>)>,
    pace: Pace,
    step: Step,
    steps: &mut Steps,
    done: &mut u32,
) -> Result<(), PreflightError> {
    let began = clock::monotonic();
    let mut open: FuturesUnordered<_> = visits
        .into_iter()
        .enumerate()
        .map(async |(number, (name, visit))| {
            let intended = began + pace.at(number as u32);
            tokio::time::sleep_until(clock::instant(intended).into()).await;
            let mut turn = Turn::new(intended, clock::monotonic());
            match visit {
                Visit::Register(email, password) => chat.register(email, password, &mut turn).await,
                Visit::SignIn(user) => chat.sign_in(user, &mut turn).await,
            }
            (name, turn)
        })
        .collect();
    while let Some((name, turn)) = open.next().await {
        steps.record(step, turn.outcome, turn.ended - turn.intended, &turn.detail);
        passed(step, &name, &turn, *done)?;
        *done += 1;
    }
    Ok(())
}

/// One visit as a result: every user is wanted.
fn passed(step: Step, name: &str, visit: &Turn, before: u32) -> Result<(), PreflightError> {
    if visit.outcome == Outcome::Completed {
        return Ok(());
    }
    Err(PreflightError::SignIn {
        what: if step == Step::Registration { "registration" } else { "login" },
        name: escaped(name, 100),
        before,
        outcome: visit.outcome,
        detail: visit.detail.clone(),
        check: check(step, visit.outcome),
    })
}

/// What to check when somebody was not let in.
fn check(step: Step, outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::RateLimited if step == Step::Registration => {
            "REGISTER_MAX of the deployment (5 in 60 minutes by default): for a test set REGISTER_MAX=1000000 and restart it"
        }
        Outcome::RateLimited => {
            "LOGIN_MAX of the deployment (7 in 5 minutes by default): for a test set LOGIN_MAX=1000000 and restart it, \
             or mint the tokens: a list id,email,username and the deployment's JWT_SECRET in the environment"
        }
        Outcome::Banned => super::preflight::BANNED,
        Outcome::HttpClient(422) => {
            "the account's address is not verified: set emailVerified, or ALLOW_UNVERIFIED_EMAIL_LOGIN=true"
        }
        Outcome::HttpClient(_) | Outcome::Unauthorized => {
            "the account in the list: its address, its password, no second factor"
        }
        Outcome::HttpServer(_) => "the deployment's own log",
        Outcome::Protocol => "is this LibreChat's address? A web page instead of JSON means a wrong path or port",
        _ => "is the server running, the address right, and its certificate trusted (--ca-file, --insecure)?",
    }
}
