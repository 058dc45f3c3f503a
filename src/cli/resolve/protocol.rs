//! A protocol that is described: from what is written to what its driver follows.

mod parts;
mod socket;

use std::collections::BTreeSet;

use serde_json::Value;

use self::parts::Reading;
use super::Problems;
use crate::account::Credentials;
use crate::cli::overlay::Wish;
use crate::scenario::file::{Framing, Profile, RequestSection, SiteSection, SseSection, TargetSection};
use crate::scenario::{API_KEY, PLACES, ProtocolPlan, RequestPlan, Resume, Site, SsePlan};

/// A protocol, and what a client does besides turns.
pub(super) struct Described {
    pub(super) protocol: ProtocolPlan,
    pub(super) site: Site,
}

/// The protocol that a profile follows; what is written for other profiles is told. `None` for profiles that are known.
pub(super) fn described(wish: &Wish, profile: Profile, problems: &mut Problems<'_>) -> Option<Described> {
    let target = &wish.file.target;
    if !unheard(target, profile, problems) {
        return None;
    }
    let sse = target.sse.as_ref().map(SseSection::whole);
    let site = target.site.clone().unwrap_or_default();
    let known = known(target, sse.as_ref(), &site);
    for name in target.values_env.keys() {
        if let Err(message) = parts::name(name) {
            problems.add(&format!("target.values_env.{name}"), message);
        }
    }
    let mut reading = Reading { known, problems };
    let protocol = match profile {
        Profile::Sse => ProtocolPlan::Sse(Box::new(reading.sse(sse.as_ref()?))),
        Profile::Websocket => ProtocolPlan::WebSocket(Box::new(reading.websocket(target.websocket.as_ref()?))),
        Profile::Socketio => ProtocolPlan::SocketIo(Box::new(reading.socketio(target.socketio.as_ref()?))),
        Profile::Openai | Profile::Librechat => return None,
    };
    let site = reading.site(&site);
    Some(Described { protocol, site })
}

/// Tells what is written for another profile, and what is missing for this one. True where the profile has its section.
fn unheard(target: &TargetSection, profile: Profile, problems: &mut Problems<'_>) -> bool {
    let sections = [
        (Profile::Sse, "sse", target.sse.is_some()),
        (Profile::Websocket, "websocket", target.websocket.is_some()),
        (Profile::Socketio, "socketio", target.socketio.is_some()),
    ];
    let mut has_own = false;
    for (of, name, given) in sections {
        match (of == profile, given) {
            (true, true) => has_own = true,
            (true, false) => problems.add("target.profile", missing(name)),
            (false, true) => problems.add(&format!("target.{name}"), format!("is for the profile {name}")),
            (false, false) => {}
        }
    }
    if matches!(profile, Profile::Openai | Profile::Librechat) {
        for (path, given) in
            [("target.site", target.site.is_some()), ("target.values_env", !target.values_env.is_empty())]
        {
            if given {
                problems.add(path, "is for the profiles sse, websocket and socketio");
            }
        }
    }
    has_own
}

/// What to write for a profile that describes a protocol.
fn missing(profile: &str) -> String {
    let (wanted, example) = match profile {
        "sse" => ("a request, and what the messages of its reply mean; or a preset", "openai-responses"),
        "websocket" => ("the message of a turn, and what the messages of its reply mean", "websocket-generic"),
        _ => ("the event of a turn with its arguments, and what the events of its reply mean", "socketio-chat"),
    };
    format!("wants [target.{profile}] in a scenario: {wanted}; scenarios/{example}.toml is one to begin with")
}

/// The names that texts may have in their places.
fn known<'s>(target: &'s TargetSection, sse: Option<&'s SseSection>, site: &'s SiteSection) -> Vec<&'s str> {
    let (websocket, socketio) = (target.websocket.as_ref(), target.socketio.as_ref());
    let turn = sse.into_iter().flat_map(|sse| [&sse.request, &sse.stream, &sse.cancel]).flatten();
    let requests = turn.chain(&site.login).chain(&site.page).chain(&site.history).chain(&site.leave);
    let replies = sse.and_then(|sse| sse.reply.as_ref()).into_iter();
    let replies = replies.chain(websocket.map(|section| &section.reply)).chain(socketio.map(|section| &section.reply));
    let captures = requests.map(|request| &request.capture).chain(replies.map(|reply| &reply.capture));
    let captures = captures.chain(websocket.map(|section| &section.capture));
    let names: BTreeSet<&str> =
        captures.flat_map(|capture| capture.keys()).chain(target.values_env.keys()).map(String::as_str).collect();
    PLACES.into_iter().chain([API_KEY]).chain(names).collect()
}

impl Reading<'_, '_> {
    fn sse(&mut self, section: &SseSection) -> SsePlan {
        let path = "target.sse";
        let request = match &section.request {
            Some(request) => self.request(&format!("{path}.request"), request),
            None => {
                self.add("target.sse.request", "is missing: the request of a turn");
                self.no_request()
            }
        };
        let mut optional = |name: &str, section: &Option<RequestSection>| {
            section.as_ref().map(|section| self.request(&format!("{path}.{name}"), section))
        };
        let (stream, cancel) = (optional("stream", &section.stream), optional("cancel", &section.cancel));
        let reply = self.reply(&format!("{path}.reply"), &section.reply.clone().unwrap_or_default(), true);
        let turn: Vec<&str> = request.names().chain(stream.iter().flat_map(|stream| stream.names())).collect();
        if section.request.is_some() {
            self.reaches(&turn, &format!("{path}.request.body"));
        }
        let by_get = stream.as_ref().unwrap_or(&request).method == http::Method::GET;
        let resume = match section.resume {
            Some(true) if stream.is_none() && !by_get => {
                let message = "the request would say it once more: a stream is taken up again where a GET opens it";
                self.add("target.sse.resume", message);
                Resume::Never
            }
            Some(true) => Resume::Always,
            None if by_get && section.framing != Some(Framing::Lines) => Resume::WithId,
            Some(false) | None => Resume::Never,
        };
        SsePlan {
            preset: section.preset.map(|preset| preset.name().to_owned()),
            request,
            stream,
            cancel,
            framing: section.framing.unwrap_or_default(),
            reply,
            resume,
        }
    }

    fn site(&mut self, section: &SiteSection) -> Site {
        let path = "target.site";
        let login = section.login.as_ref().map(|login| self.request(&format!("{path}.login"), login));
        let mut list = |name: &str, requests: &[RequestSection]| -> Vec<RequestPlan> {
            let each = requests.iter().enumerate();
            each.map(|(index, request)| self.request(&format!("{path}.{name}[{index}]"), request)).collect()
        };
        let (page, history) = (list("page", &section.page), list("history", &section.history));
        let leave = section.leave.as_ref().map(|leave| self.request(&format!("{path}.leave"), leave));
        Site { login, page, history, leave }
    }
}

impl Described {
    /// The names in its texts.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        let site = self.site.requests().flat_map(|request| request.names());
        self.protocol.texts().into_iter().flat_map(|text| text.names()).chain(site).collect()
    }

    /// Tells what its texts want that nobody gives: accounts, a model.
    pub(super) fn wants(&self, wish: &Wish, problems: &mut Problems<'_>) {
        let (file, names) = (&wish.file, self.names());
        let of_accounts: Vec<&str> =
            ["user.password", "user.token", "user.cookie"].into_iter().filter(|name| names.contains(name)).collect();
        match (&file.accounts.file, of_accounts.first()) {
            (None, Some(name)) => {
                let message = format!("{{{{{name}}}}} stands in a text: name a list of accounts with --accounts FILE");
                problems.add("accounts.file", message);
            }
            (Some(_), None) if !names.contains("user.email") => {
                problems.add("accounts.file", "no text has a place for it, such as {{user.email}}");
            }
            _ => {}
        }
        if names.contains("model") && file.target.model.is_none() && file.target.mock_admin.is_none() {
            problems.add("target.model", "{{model}} stands in a text, and without --mock-admin nobody knows one");
        }
    }
}

/// What texts want of accounts that these do not have, as a sentence.
pub(super) fn lacking(plan: &ProtocolPlan, site: &Site, accounts: &[Credentials]) -> Option<String> {
    let texts = plan.texts().into_iter().chain(site.requests().flat_map(|request| request.texts()));
    let names: BTreeSet<&str> = texts.flat_map(|text| text.names()).collect();
    let has = |account: &Credentials, name: &str| match account {
        Credentials::Password { .. } => matches!(name, "user.email" | "user.password"),
        Credentials::Minted { .. } => name == "user.email",
        Credentials::Bearer(_) => name == "user.token",
        Credentials::Cookies(_) => name == "user.cookie",
    };
    let mut wanted = names.into_iter().filter(|name| name.starts_with("user.") && *name != "user.number");
    let lacks = wanted.find(|name| accounts.iter().any(|account| !has(account, name)))?;
    Some(format!("its columns do not give {{{{{lacks}}}}}, which stands in a text"))
}

/// A value of somebody's own for each place that the path is tried with.
fn sample() -> Value {
    Value::String("x".to_owned())
}

#[cfg(test)]
mod tests;
