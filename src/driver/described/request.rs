//! Requests that a scenario describes: their places filled, sent, and what their answers bring.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use cookie::Cookie;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use url::Url;

use super::values::{Scope, Values};
use crate::account::Credentials;
use crate::driver::Limits;
use crate::driver::exchange::{Call, Exchange, Failure, HeaderError, add_headers, uri, usable};
use crate::driver::librechat::BROWSER;
use crate::net::{Endpoint, HttpConnection, Progress};
use crate::record::Outcome;
use crate::scenario::{API_KEY, RequestPlan, Site, Source};
use crate::secret::Secret;

/// The most bytes of an answer of which something is wanted.
const ANSWER: usize = 1 << 20;
/// The content type of a form's fields, which are written as in a query (URL standard, 5).
const FORM: &str = "application/x-www-form-urlencoded";
/// What a value in a path may have as it is: the unreserved characters (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A deployment that a scenario describes: where it is, what every request to it carries, who its users are.
pub(in crate::driver) struct Deployment {
    pub(in crate::driver) endpoint: Arc<Endpoint>,
    pub(in crate::driver) limits: Limits,
    /// The path of the base, without a slash at its end.
    pub(in crate::driver) prefix: String,
    headers: HeaderMap,
    /// Sent where nothing else is said about who is asking.
    bearer: Option<HeaderValue>,
    pub(super) site: Box<Site>,
    pub(super) common: Arc<BTreeMap<String, Value>>,
    pub(super) accounts: Vec<Credentials>,
    /// What must not be shown, though the target repeat it, besides what a user holds.
    pub(super) secrets: Vec<Secret>,
}

/// The values may be secrets.
impl fmt::Debug for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployment").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A request with values in its places.
pub(in crate::driver) struct Filled<'p> {
    plan: &'p RequestPlan,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// What an answer brought of what was wanted.
pub(in crate::driver) struct Brought(Vec<(String, Option<Value>)>);

impl Deployment {
    /// One at `base`, with what is the same for everybody (`model`, `api_key` where there is a bearer key, and what
    /// `values_env` names), one account a user where there are accounts, and further headers.
    ///
    /// # Errors
    /// When a header cannot be sent.
    pub(in crate::driver) fn new(
        endpoint: Endpoint,
        base: &Url,
        common: Arc<BTreeMap<String, Value>>,
        accounts: Vec<Credentials>,
        extra: &[(String, Secret)],
        limits: Limits,
    ) -> Result<Self, HeaderError> {
        let mut headers = HeaderMap::new();
        let fixed = [
            ("host", &base[url::Position::BeforeHost..url::Position::AfterPort]),
            ("accept", "application/json, text/event-stream, */*"),
            ("accept-encoding", "identity"),
            ("user-agent", concat!("capacity-check/", env!("CARGO_PKG_VERSION"))),
        ];
        let extra_texts = extra.iter().map(|(name, value)| (name.as_str(), value.expose()));
        let mut keyed = HeaderMap::new();
        if let Some(key) = common.get(API_KEY).and_then(Value::as_str) {
            add_headers(&mut keyed, [("authorization", format!("Bearer {key}").as_str())])?;
        }
        add_headers(&mut headers, fixed.into_iter().chain(extra_texts))?;
        // The model's name is the same for everybody, and no secret.
        let values = common.iter().filter(|(name, _)| *name != "model").filter_map(|(_, value)| value.as_str());
        let secrets = values.map(Secret::new).chain(extra.iter().map(|(_, value)| value.clone())).collect();
        Ok(Self {
            endpoint: Arc::new(endpoint),
            limits,
            prefix: base.path().trim_end_matches('/').to_owned(),
            headers,
            bearer: keyed.remove(header::AUTHORIZATION),
            site: Box::default(),
            common,
            accounts,
            secrets,
        })
    }

    /// The headers with which a browser opens a socket at `base`, with further ones and what says who is asking, unless
    /// the scenario has a place of its own for that (`names_key`).
    ///
    /// # Errors
    /// When a header cannot be sent.
    pub(in crate::driver) fn socket_headers(
        &self,
        base: &Url,
        extra: &[(String, Secret)],
        names_key: bool,
    ) -> Result<HeaderMap, HeaderError> {
        let mut headers = HeaderMap::new();
        let origin = base.origin().ascii_serialization();
        let fixed = [
            ("host", &base[url::Position::BeforeHost..url::Position::AfterPort]),
            ("origin", origin.as_str()),
            ("accept-language", "en-US,en;q=0.9"),
            ("cache-control", "no-cache"),
            ("pragma", "no-cache"),
            ("user-agent", BROWSER),
        ];
        let extra_texts = extra.iter().map(|(name, value)| (name.as_str(), value.expose()));
        add_headers(&mut headers, fixed.into_iter().chain(extra_texts))?;
        if let Some(bearer) = self.bearer.as_ref().filter(|_| !names_key) {
            headers.entry(header::AUTHORIZATION).or_insert_with(|| bearer.clone());
        }
        Ok(headers)
    }

    /// Puts values into the places of a request.
    ///
    /// # Errors
    /// When a value makes it none.
    pub(in crate::driver) fn fill<'p>(&self, plan: &'p RequestPlan, values: &Values) -> Result<Filled<'p>, Failure> {
        let encoded: BTreeMap<&str, Value> = plan
            .path
            .names()
            .into_iter()
            .filter_map(|name| Some((name, json!(utf8_percent_encode(&plain(values.get(name)?), ENCODED).to_string()))))
            .collect();
        let path = plan.path.fill(&|name: &str| encoded.get(name));
        let mut headers = self.headers.clone();
        if let Some(bearer) = &self.bearer
            && !headers.contains_key(header::AUTHORIZATION)
            && !plan.names().any(|name| name == API_KEY)
        {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
        for (name, text) in &plan.headers {
            let value = values.fill(text);
            if value.is_empty() {
                headers.remove(name);
            } else {
                set(&mut headers, name, value.as_bytes())?;
            }
        }
        let kind = headers.get(header::CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()));
        let is_form = kind.is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with(FORM));
        let filled = |body| if is_form { values.fill_path(body) } else { values.fill(body) };
        let body = plan.body.as_ref().map(filled);
        if body.is_some() && !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let uri = uri(&format!("{}{path}", self.prefix))?;
        Ok(Filled { plan, uri, headers, body: body.map_or_else(Bytes::new, Bytes::from) })
    }

    /// Sends a request and takes the head of its answer; a status other than 2xx is a failure.
    pub(in crate::driver) async fn call(
        &self,
        kept: Option<HttpConnection>,
        request: &Filled<'_>,
        exchange: &mut Exchange<'_>,
    ) -> Result<(HttpConnection, Response<()>), Failure> {
        let Filled { plan, uri, headers, body } = request;
        let call = Call { method: plan.method.clone(), uri: uri.clone(), headers, body: body.clone() };
        let (mut connection, response) = exchange.call(&self.endpoint, kept, &call).await?;
        let status = response.status();
        if status.is_success() {
            return Ok((connection, response));
        }
        let text = exchange.read_error(&mut connection).await?;
        // The path as it is written: what stands in its places may be a secret.
        let detail = format!("{} {}: {status}: {text}", plan.method, plan.path.source());
        let connection = usable(connection).map(Box::new);
        Err(Failure { outcome: Outcome::of_status(status.as_u16()), detail, connection })
    }

    /// Sends a request and reads its answer to the end; gives the connection, where it can be used again, and what
    /// the answer brought.
    pub(in crate::driver) async fn ask(
        &self,
        kept: Option<HttpConnection>,
        request: &Filled<'_>,
        exchange: &mut Exchange<'_>,
    ) -> Result<(Option<HttpConnection>, Brought), Failure> {
        let (mut connection, response) = self.call(kept, request, exchange).await?;
        let wanted = !request.plan.capture.is_empty();
        let body = whole(&mut connection, wanted, exchange).await?;
        let brought = Brought::new(request.plan, response.headers(), &body);
        Ok((usable(connection), brought))
    }
}

impl Filled<'_> {
    /// Sends a header besides.
    ///
    /// # Errors
    /// When it has no such value.
    pub(in crate::driver) fn set(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), Failure> {
        set(&mut self.headers, name, value)
    }
}

impl Brought {
    fn new(plan: &RequestPlan, headers: &HeaderMap, body: &[u8]) -> Self {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let value = |source: &Source| match source {
            Source::Pointer(pointer) => json.as_ref()?.pointer(pointer).cloned(),
            Source::Header(name) if *name == header::SET_COOKIE => cookies(headers),
            Source::Header(name) => Some(json!(String::from_utf8_lossy(headers.get(name)?.as_bytes()))),
        };
        Self(plan.capture.iter().map(|(name, source)| (name.clone(), value(source))).collect())
    }

    /// Keeps it. What was not brought and is not known from before is a failure: later texts want it.
    pub(in crate::driver) fn keep(self, scope: Scope, plan: &RequestPlan, values: &mut Values) -> Result<(), Failure> {
        for (name, value) in self.0 {
            match value {
                Some(value) => values.keep(scope, &name, value),
                None if values.get(&name).is_some() => {}
                None => {
                    let detail = format!("the answer to {} {} brought no `{name}`", plan.method, plan.path.source());
                    return Err(Failure::new(Outcome::Protocol, detail));
                }
            }
        }
        Ok(())
    }
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: &[u8]) -> Result<(), Failure> {
    let Ok(mut value) = HeaderValue::from_bytes(value) else {
        return Err(Failure::new(Outcome::Protocol, format!("the header {name} cannot have the value that is known")));
    };
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// A value as a text.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The cookies that an answer sets, as a request sends them (RFC 6265, 5.4).
fn cookies(headers: &HeaderMap) -> Option<Value> {
    let texts = headers.get_all(header::SET_COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let set = texts.filter_map(|text| Cookie::parse(text).ok());
    let pairs: Vec<String> = set.map(|cookie| format!("{}={}", cookie.name(), cookie.value())).collect();
    (!pairs.is_empty()).then(|| json!(pairs.join("; ")))
}

/// Reads an answer to its end; keeps it where something of it is wanted.
async fn whole(connection: &mut HttpConnection, wanted: bool, exchange: &mut Exchange<'_>) -> Result<Vec<u8>, Failure> {
    let mut kept = Vec::new();
    loop {
        let (mut signed, mut length) = (0, 0);
        let piece = poll_fn(|cx| {
            connection.poll_body(cx, |data, stamp| {
                signed = stamp.returned;
                length += data.len();
                if wanted {
                    kept.extend_from_slice(data);
                }
                ControlFlow::Continue(())
            })
        });
        let progress = exchange.wait(piece).await?;
        exchange.watchdog.sign(signed);
        let left = exchange.body_left.checked_sub(length).filter(|_| kept.len() <= ANSWER);
        let too_large = || Failure::new(Outcome::Protocol, "the answer is larger than the limit");
        exchange.body_left = left.ok_or_else(too_large)?;
        if progress? == Progress::End {
            return Ok(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::net::{TlsSettings, client_config};
    use crate::scenario::Template;

    fn deployment(key: Option<&str>, extra: &[(&str, &str)]) -> Deployment {
        let base: Url = "http://127.0.0.1:9/v1/".parse().unwrap();
        let limits = Limits::default();
        let endpoint = Endpoint::new(&base, &client_config(&TlsSettings::default()).unwrap(), limits.connect).unwrap();
        let common = key.map(|key| (API_KEY.to_owned(), json!(key))).into_iter().collect();
        let extra: Vec<(String, Secret)> =
            extra.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        let made = Deployment::new(endpoint, &base, Arc::new(common), Vec::new(), &extra, limits);
        made.unwrap_or_else(|error| panic!("{error}"))
    }

    fn template(text: &str) -> Template {
        Template::parse(text, &["a", "b", API_KEY]).unwrap()
    }

    fn plan(path: &str, headers: &[(&str, &str)], body: Option<&str>) -> RequestPlan {
        let header = |(name, value): &(&str, &str)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), template(value));
        RequestPlan {
            method: Method::POST,
            path: template(path),
            headers: headers.iter().map(header).collect(),
            body: body.map(template),
            capture: Vec::new(),
        }
    }

    fn values(of: &Deployment, known: &[(&str, Value)]) -> Values {
        let mut values = Values::new(&of.common, 0, None, false);
        known.iter().for_each(|(name, value)| values.keep(Scope::Visit, name, value.clone()));
        values
    }

    fn shown(headers: &HeaderMap, name: &str) -> Option<String> {
        headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn values_in_a_path_stay_within_their_segment() {
        let of = deployment(None, &[]);
        let values = values(&of, &[("a", json!("x/y ?ü-._~")), ("b", json!(7))]);
        let plan = plan("/chat/{{a}}?n={{b}}", &[], None);
        let filled = of.fill(&plan, &values).ok().unwrap();
        assert_eq!(filled.uri, "/v1/chat/x%2Fy%20%3F%C3%BC-._~?n=7");
        assert!(filled.body.is_empty() && shown(&filled.headers, "content-type").is_none());
        assert_eq!(shown(&filled.headers, "host").as_deref(), Some("127.0.0.1:9"));
    }

    #[test]
    fn the_key_is_sent_once_and_empty_headers_are_not() {
        let of = deployment(Some("sk-1"), &[("x-tenant", "t")]);
        let known = values(&of, &[]);
        let plain = plan("/x", &[("x-other", "{{a}}")], Some("{\"a\": \"{{a}}\"}"));
        let filled = of.fill(&plain, &known).ok().unwrap();
        assert_eq!(shown(&filled.headers, "authorization").as_deref(), Some("Bearer sk-1"));
        assert_eq!(shown(&filled.headers, "content-type").as_deref(), Some("application/json"));
        assert_eq!(shown(&filled.headers, "x-tenant").as_deref(), Some("t"));
        assert!(shown(&filled.headers, "x-other").is_none());
        assert_eq!(&filled.body[..], b"{\"a\":null}");
        let own = plan("/x", &[("x-api-key", "{{api_key}}")], None);
        let filled = of.fill(&own, &known).ok().unwrap();
        assert_eq!(shown(&filled.headers, "x-api-key").as_deref(), Some("sk-1"));
        assert!(shown(&filled.headers, "authorization").is_none());
        let keyless = deployment(None, &[]);
        let filled = keyless.fill(&own, &values(&keyless, &[])).ok().unwrap();
        assert!(shown(&filled.headers, "x-api-key").is_none());
        // A value that would end its header is no value.
        let split = of.fill(&plain, &values(&of, &[("a", json!("x\r\ny: z"))])).err().unwrap();
        assert_eq!(split.outcome, Outcome::Protocol);
    }

    #[test]
    fn values_in_a_form_stay_within_their_field() {
        let of = deployment(None, &[]);
        let values = values(&of, &[("a", json!("x&b=y z")), ("b", json!(7))]);
        let form = [("content-type", "Application/x-www-form-urlencoded; charset=utf-8")];
        let fields = plan("/x", &form, Some("a={{a}}&n={{b}}"));
        assert_eq!(&of.fill(&fields, &values).ok().unwrap().body[..], b"a=x%26b%3Dy%20z&n=7");
        let text = plan("/x", &[("content-type", "text/plain")], Some("a={{a}}"));
        assert_eq!(&of.fill(&text, &values).ok().unwrap().body[..], b"a=x&b=y z");
    }

    #[test]
    fn a_socket_carries_the_key_unless_a_text_has_it() {
        let base: Url = "http://127.0.0.1:9/v1/".parse().unwrap();
        let of = deployment(Some("sk-1"), &[]);
        let sent = |names_key| {
            let headers = of.socket_headers(&base, &[], names_key).ok()?;
            Some(shown(&headers, "authorization"))
        };
        assert_eq!(sent(false), Some(Some("Bearer sk-1".to_owned())));
        assert_eq!(sent(true), Some(None));
    }

    #[test]
    fn answers_bring_what_is_named() {
        let mut plan = plan("/login", &[], None);
        let wanted = |name: &str, source| (name.to_owned(), source);
        plan.capture = vec![
            wanted("token", Source::Pointer("/data/token".to_owned())),
            wanted("session", Source::Header(header::SET_COOKIE)),
            wanted("place", Source::Header(header::LOCATION)),
        ];
        let mut headers = HeaderMap::new();
        headers.append(header::SET_COOKIE, HeaderValue::from_static("sid=1; Path=/; HttpOnly"));
        headers.append(header::SET_COOKIE, HeaderValue::from_static("csrf=2"));
        let of = deployment(None, &[]);
        let mut known = values(&of, &[]);
        let body = br#"{"data":{"token":"t"}}"#;
        let missing = Brought::new(&plan, &headers, body).keep(Scope::Visit, &plan, &mut known).err().unwrap();
        assert_eq!(missing.detail, "the answer to POST /login brought no `place`");
        headers.append(header::LOCATION, HeaderValue::from_static("/x"));
        assert!(Brought::new(&plan, &headers, body).keep(Scope::Visit, &plan, &mut known).is_ok());
        assert_eq!(known.get("session"), Some(&json!("sid=1; csrf=2")));
        assert_eq!((known.get("token"), known.get("place")), (Some(&json!("t")), Some(&json!("/x"))));
        // What was known before need not come again.
        assert!(Brought::new(&plan, &HeaderMap::new(), b"<html>").keep(Scope::Visit, &plan, &mut known).is_ok());
        assert_eq!(known.get("token"), Some(&json!("t")));
    }
}
