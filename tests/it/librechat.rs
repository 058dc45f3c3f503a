//! The librechat driver against the reference deployment, turn by turn: wire versions, follow-ups,
//! limits, bans, tokens, failing models, resume, cancel.

use std::time::Duration;

use capacity_check::account::Credentials;
use capacity_check::driver::{Driver, Prompt};
use capacity_check::record::{Outcome, Turn};
use capacity_check::scenario::{After, Disturb, Disturbance};
use capacity_check::secret::Secret;
use mock_llm::journal::TurnOutcome;
use reference_chat::{Limit, Limits};
use serde_json::Value;

use crate::support::chat::{Harm, Proxy, Reference, SECRET, chat, hello, librechat, minted, say};
use crate::support::{Mock, exchange, limits, raw_exchange, runtime, until};

const CALM: &str = "[models.m]\nttft = \"20ms\"\ngap = \"5ms\"\ntokens = 12";

fn one(driver: &Driver) -> Turn {
    runtime().block_on(async { say(driver, &mut driver.session(0), hello()).await })
}

fn minute(max: u32) -> Option<Limit> {
    Some(Limit { max, per: Duration::from_secs(60) })
}

#[test]
fn both_wire_versions_give_every_token_and_go_on() {
    for one_step in [false, true] {
        let mock = Mock::start(CALM);
        let reference = Reference::start(&mock, |settings| settings.one_step = one_step);
        let driver = chat(&reference.base);
        runtime().block_on(async {
            let mut session = driver.session(0);
            for number in 0..3 {
                let prompt = Prompt { text: format!("turn {number}"), opens: number == 0, ..hello() };
                let turn = say(&driver, &mut session, prompt).await;
                assert_eq!((turn.outcome, turn.tokens, turn.late), (Outcome::Completed, 12, 0), "{}", turn.detail);
                assert!(turn.sent.is_some() && turn.first_token.is_some());
                assert!(turn.first_token.unwrap().latest - turn.sent.unwrap() >= 20_000_000, "the mock's own 20 ms");
            }
        });
        // The model was asked once a turn.
        let prompts: Vec<u64> = mock.turns().iter().map(|turn| turn.tokens).collect();
        assert_eq!(prompts, [12, 12, 12]);
        let (_, convos) = signed(&reference.base, 1, "GET", "/api/convos", "");
        let convos: Value = serde_json::from_str(&convos).unwrap();
        assert_eq!(convos["conversations"].as_array().unwrap().len(), 1, "one conversation");
        let id = convos["conversations"][0]["conversationId"].as_str().unwrap();
        let (_, messages) = signed(&reference.base, 1, "GET", &format!("/api/messages/{id}"), "");
        let messages: Value = serde_json::from_str(&messages).unwrap();
        let messages = messages.as_array().unwrap();
        assert_eq!(messages.len(), 6);
        for pair in messages.windows(2) {
            assert_eq!(pair[1]["parentMessageId"], pair[0]["messageId"], "each message has the one before as parent");
        }
    }
}

/// A request with a minted token and a browser's name.
pub(crate) fn signed(base: &str, user: u32, method: &str, path: &str, body: &str) -> (u16, String) {
    signed_until(base, user, u64::MAX, method, path, body)
}

/// The same with the token's end, in seconds since 1970.
fn signed_until(base: &str, user: u32, exp: u64, method: &str, path: &str, body: &str) -> (u16, String) {
    let claims = reference_chat::jwt::Claims {
        id: format!("{user:024x}"),
        username: format!("user{user}"),
        provider: "local".to_owned(),
        email: format!("user{user}@x.test"),
        iat: 0,
        exp,
    };
    let token = reference_chat::jwt::sign(&claims, SECRET);
    let kind = format!(
        "application/json\r\nAuthorization: Bearer {token}\r\nUser-Agent: {}",
        capacity_check::driver::librechat::BROWSER
    );
    exchange(base, method, path, &kind, body)
}

#[test]
fn limits_have_their_outcome() {
    let mock = Mock::start(CALM);
    let by_address = Limits { message_ip: minute(2), ..Limits::default() };
    let by_user = Limits { message_user: minute(2), ..Limits::default() };
    for wanted in [by_address, by_user] {
        let reference = Reference::start(&mock, |settings| settings.limits = wanted);
        let driver = chat(&reference.base);
        let outcomes: Vec<Outcome> = (0..3).map(|_| one(&driver).outcome).collect();
        assert_eq!(outcomes, [Outcome::Completed, Outcome::Completed, Outcome::RateLimited]);
        assert!(one(&driver).detail.contains("message_limit"));
    }
    let concurrent = Limits { concurrent: Some(1), ..Limits::default() };
    let reference = Reference::start(&mock, |settings| settings.limits = concurrent);
    let driver = chat(&reference.base);
    runtime().block_on(async {
        let (mut first, mut second) = (driver.session(0), driver.session(0));
        let late = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            say(&driver, &mut second, hello()).await
        };
        let (first, second) = tokio::join!(say(&driver, &mut first, hello()), late);
        assert_eq!((first.outcome, second.outcome), (Outcome::Completed, Outcome::RateLimited), "{}", second.detail);
    });
}

#[test]
fn logins_and_registrations_are_limited_by_address() {
    let mock = Mock::start(CALM);
    let limited = Limits { login: minute(1), register: minute(1), ..Limits::default() };
    let reference = Reference::start(&mock, |settings| settings.limits = limited);
    let (email, password) = ("a@x.test", Secret::new("a long password"));
    let login = Credentials::Password { email: email.to_owned(), password: password.clone() };
    let chat = librechat(&reference.base, vec![login.clone(), login], &[], limits());
    runtime().block_on(async {
        let mut visits = Vec::new();
        for number in 0..4 {
            let mut visit = Turn::new(0, capacity_check::clock::monotonic());
            match number {
                0 | 1 => chat.register(email, &password, &mut visit).await,
                _ => chat.sign_in(number - 2, &mut visit).await,
            }
            visits.push((visit.outcome, visit.detail));
        }
        let outcomes: Vec<Outcome> = visits.iter().map(|(outcome, _)| *outcome).collect();
        let wanted = [Outcome::Completed, Outcome::RateLimited, Outcome::Completed, Outcome::RateLimited];
        assert_eq!(outcomes, wanted, "{visits:?}");
        assert!(visits[3].1.contains("Too many login attempts"), "{visits:?}");
    });
}

#[test]
fn a_name_that_is_no_browser_s_is_banned_and_stays_so() {
    let mock = Mock::start(CALM);
    let reference = Reference::start(&mock, |settings| settings.limits.ban_at = Some(20));
    let curl = librechat(&reference.base, vec![minted(1)], &[("user-agent", "curl/8.0")], limits());
    let turn = one(&Driver::LibreChat(curl));
    assert_eq!((turn.outcome, turn.detail.as_str()), (Outcome::Banned, "Illegal request"));
    let browser = one(&chat(&reference.base));
    assert_eq!(browser.outcome, Outcome::Banned, "{}", browser.detail);
    assert!(browser.detail.contains("ban"), "{}", browser.detail);
    let login = Credentials::Password { email: "a@x.test".to_owned(), password: Secret::new("password") };
    let chat = librechat(&reference.base, vec![login], &[], limits());
    let mut visit = Turn::new(0, capacity_check::clock::monotonic());
    runtime().block_on(chat.sign_in(0, &mut visit));
    assert_eq!(visit.outcome, Outcome::Banned, "{}", visit.detail);
    assert!(mock.turns().is_empty(), "nobody reached the model");
}

#[test]
fn tokens_are_renewed_before_they_end_and_refused_ones_once() {
    let mock = Mock::start(CALM);
    // A token is used for half its life; one login is all that is allowed, so each renewal has to
    // go by the cookie that the one before has rotated.
    let reference = Reference::start(&mock, |settings| {
        settings.token_life = Duration::from_secs(2);
        settings.limits.login = minute(1);
    });
    let (email, password) = ("a@x.test", Secret::new("a long password"));
    let login = Credentials::Password { email: email.to_owned(), password: password.clone() };
    let driver = librechat(&reference.base, vec![login], &[], limits());
    runtime().block_on(async {
        let mut visit = Turn::new(0, capacity_check::clock::monotonic());
        driver.register(email, &password, &mut visit).await;
        driver.sign_in(0, &mut visit).await;
        assert_eq!(visit.outcome, Outcome::Completed, "{}", visit.detail);
        let driver = Driver::LibreChat(driver);
        let mut session = driver.session(0);
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let turn = say(&driver, &mut session, hello()).await;
            assert_eq!(turn.outcome, Outcome::Completed, "{}", turn.detail);
        }
    });
    // Signed with another secret: one renewal, then it is said.
    let stranger = Reference::start(&mock, |settings| settings.jwt_secret = "another".to_owned());
    let turn = one(&chat(&stranger.base));
    assert_eq!((turn.outcome, turn.detail.as_str()), (Outcome::Unauthorized, "401 Unauthorized: Unauthorized"));
    // An expired token is refused by the deployment, and a pre-issued one cannot be renewed.
    assert_eq!(signed_until(&reference.base, 1, 2, "GET", "/api/user", ""), (401, "Unauthorized".to_owned()));
    let old = reference_chat::jwt::sign(
        &reference_chat::jwt::Claims {
            id: "1".to_owned(),
            username: String::new(),
            provider: String::new(),
            email: String::new(),
            iat: 1,
            exp: 2,
        },
        SECRET,
    );
    let driver = librechat(&reference.base, vec![Credentials::Bearer(Secret::new(old))], &[], limits());
    runtime().block_on(async {
        let mut visit = Turn::new(0, capacity_check::clock::monotonic());
        driver.sign_in(0, &mut visit).await;
        let driver = Driver::LibreChat(driver);
        let turn = say(&driver, &mut driver.session(0), hello()).await;
        assert_eq!(turn.outcome, Outcome::Unauthorized, "{}", turn.detail);
    });
}

#[test]
fn a_rotated_cookie_is_refused() {
    let mock = Mock::start(CALM);
    let reference = Reference::start(&mock, |_| {});
    let json = "application/json";
    let account =
        r#"{"name":"Ann","email":"a@x.test","password":"a long password","confirm_password":"a long password"}"#;
    assert_eq!(exchange(&reference.base, "POST", "/api/auth/register", json, account).0, 200);
    let login = r#"{"email":"a@x.test","password":"a long password"}"#;
    let (head, _) = raw_exchange(&reference.base, "POST", "/api/auth/login", json, login);
    let cookie = head.split("refreshToken=").nth(1).and_then(|rest| rest.split(';').next()).expect("a cookie");
    let with = |cookie: &str| {
        let kind = format!("{json}\r\nCookie: refreshToken={cookie}");
        exchange(&reference.base, "POST", "/api/auth/refresh", &kind, "{}")
    };
    assert_eq!(with(cookie).0, 200);
    assert_eq!(with(cookie).0, 401, "the old one is of no more use");
    assert_eq!(with("garbage").0, 403);
    let (status, text) = exchange(&reference.base, "POST", "/api/auth/refresh", json, "{}");
    assert_eq!((status, text.as_str()), (200, "Refresh token not provided"));
    // Two users with one cookie, as when a list has it twice: only the first gets in.
    let (head, _) = raw_exchange(&reference.base, "POST", "/api/auth/login", json, login);
    let cookie = head.split("refreshToken=").nth(1).and_then(|rest| rest.split(';').next()).expect("a cookie");
    let shared = Credentials::Cookies(Secret::new(format!("refreshToken={cookie}; token_provider=librechat")));
    let chat = librechat(&reference.base, vec![shared.clone(), shared], &[], limits());
    let outcomes: Vec<Outcome> = runtime().block_on(async {
        let mut outcomes = Vec::new();
        for user in 0..2 {
            let mut visit = Turn::new(0, capacity_check::clock::monotonic());
            chat.sign_in(user, &mut visit).await;
            outcomes.push(visit.outcome);
        }
        outcomes
    });
    assert_eq!(outcomes, [Outcome::Completed, Outcome::Unauthorized]);
}

#[test]
fn a_failing_model_is_an_error_event_and_a_hung_one_a_stall() {
    let mock = Mock::start(&format!("{CALM}\nfaults = {{ http_500 = 1.0 }}"));
    let reference = Reference::start(&mock, |_| {});
    let driver = chat(&reference.base);
    for (fault, outcome) in [
        ("http_500", Outcome::ErrorEvent),
        ("reset", Outcome::ErrorEvent),
        ("error_event", Outcome::ErrorEvent),
        ("malformed_json", Outcome::ErrorEvent),
        ("stall", Outcome::Stalled),
        // The end of the connection ends the usual clients' streams as well.
        ("no_done", Outcome::Completed),
    ] {
        mock.behave(&format!("{CALM}\nfaults = {{ {fault} = 1.0 }}"));
        let turn = one(&driver);
        assert_eq!(turn.outcome, outcome, "{fault}: {}", turn.detail);
        let tokens = mock.turns().last().map_or(0, |turn| turn.tokens);
        // After a reset or an event that is no JSON what was still on its way is lost.
        if ["http_500", "error_event", "no_done"].contains(&fault) {
            assert_eq!(turn.tokens, tokens, "{fault}: what had come is counted");
        }
    }
}

#[test]
fn a_late_subscriber_over_redis_misses_the_beginning_and_it_is_counted() {
    let mock = Mock::start("[models.m]\nttft = \"10ms\"\ngap = \"30ms\"\ntokens = 20");
    for shared in [false, true] {
        let reference = Reference::start(&mock, |settings| settings.shared_streams = shared);
        let late = Proxy::start(reference.address, Harm { hold: Duration::from_millis(300), ..Harm::default() });
        let turn = one(&chat(&late.base));
        assert_eq!(turn.outcome, Outcome::Completed, "{}", turn.detail);
        assert_eq!(turn.tokens + turn.late, 20);
        // In memory the first subscriber is given what came before it.
        assert_eq!(turn.late > 0, shared, "{} late", turn.late);
    }
}

#[test]
fn a_stream_that_breaks_off_is_taken_up_again() {
    let mock = Mock::start("[models.m]\nttft = \"10ms\"\ngap = \"40ms\"\ntokens = 60");
    let reference = Reference::start(&mock, |_| {});
    let twice = Proxy::start(reference.address, Harm { cut: Some((8, 2)), ..Harm::default() });
    let turn = one(&chat(&twice.base));
    assert_eq!((turn.outcome, turn.tokens, turn.resumes), (Outcome::Completed, 60, 2), "{}", turn.detail);
    let always = Proxy::start(reference.address, Harm { cut: Some((2, 99)), ..Harm::default() });
    let turn = one(&chat(&always.base));
    assert_eq!((turn.outcome, turn.resumes), (Outcome::Truncated, 3), "{}", turn.detail);
    // One step has nothing to resume.
    let reference = Reference::start(&mock, |settings| settings.one_step = true);
    let once = Proxy::start(reference.address, Harm { cut: Some((8, 1)), ..Harm::default() });
    let turn = one(&chat(&once.base));
    assert_eq!((turn.outcome, turn.resumes), (Outcome::Truncated, 0), "{}", turn.detail);
}

#[test]
fn a_cancelled_turn_ends_with_what_had_come() {
    for one_step in [false, true] {
        let mock = Mock::start("[models.m]\nttft = \"10ms\"\ngap = \"20ms\"\ntokens = 100");
        let reference = Reference::start(&mock, |settings| settings.one_step = one_step);
        let driver = chat(&reference.base);
        let prompt =
            Prompt { disturb: Some(Disturb { what: Disturbance::Cancel, after: After::Tokens(3) }), ..hello() };
        runtime().block_on(async {
            let mut session = driver.session(0);
            let turn = say(&driver, &mut session, prompt).await;
            assert_eq!(turn.outcome, Outcome::Aborted, "{}", turn.detail);
            assert!((3..50).contains(&turn.tokens), "{}", turn.tokens);
            assert_eq!(turn.late, 0);
        });
        until("the mock sees that the caller has gone", || !mock.turns().is_empty());
        let turns = mock.turns();
        assert!(turns[0].tokens < 100 && turns[0].outcome == TurnOutcome::CallerGone, "{turns:?}");
    }
}

#[test]
fn another_user_s_stream_and_one_that_is_over_are_refused() {
    let mock = Mock::start("[models.m]\nttft = \"300ms\"\ntokens = 3");
    let reference = Reference::start(&mock, |_| {});
    let body = r#"{"text":"hi","endpoint":"Mock","endpointType":"custom","model":"m"}"#;
    let (status, started) = signed(&reference.base, 1, "POST", "/api/agents/chat/Mock", body);
    assert_eq!(status, 200);
    let started: Value = serde_json::from_str(&started).unwrap();
    let stream = format!("/api/agents/chat/stream/{}", started["streamId"].as_str().unwrap());
    let active = signed(&reference.base, 1, "GET", "/api/agents/chat/active", "").1;
    assert!(active.contains(started["streamId"].as_str().unwrap()), "{active}");
    assert_eq!(signed(&reference.base, 2, "GET", &stream, "").0, 403);
    assert_eq!(signed(&reference.base, 1, "GET", &stream, "").0, 200);
    // Nobody goes on in another's conversation, and nobody cancels without a browser's name.
    let foreign = format!(
        r#"{{"text":"hi","endpoint":"Mock","endpointType":"custom","model":"m","conversationId":{}}}"#,
        started["conversationId"]
    );
    assert_eq!(signed(&reference.base, 2, "POST", "/api/agents/chat/Mock", &foreign).0, 403);
    until("the job is gone", || signed(&reference.base, 1, "GET", &stream, "").0 == 404);
    let no_such = signed(&reference.base, 1, "GET", "/api/agents/chat/stream/none", "");
    assert_eq!(no_such.0, 404);
    assert!(no_such.1.contains("Stream not found"));
}
