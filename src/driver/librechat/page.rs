//! Reading what the deployment shows, and what is found there: endpoints and models.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value};

use super::LibreChat;
use crate::driver::Live;
use crate::driver::exchange::{Call, Exchange, Failure, uri, usable};
use crate::net::HttpConnection;
use crate::record::{Outcome, Turn};

/// The longest that an answer may be.
const ANSWER: usize = 8 << 20;

/// An endpoint and a model of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// The custom endpoint's name.
    pub endpoint: String,
    /// The model's name.
    pub model: String,
}

impl LibreChat {
    /// Gets one answer whole, on the kept connection or a new one that is kept then; any status but 200 is a failure.
    pub(super) async fn get(
        &self,
        kept: &mut Option<HttpConnection>,
        headers: &HeaderMap,
        path: &str,
        exchange: &mut Exchange<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let call = Call { method: Method::GET, uri: uri(&self.path(path))?, headers, body: Bytes::new() };
        let (mut connection, response) = exchange.call(&self.endpoint, kept.take(), &call).await?;
        if response.status() != StatusCode::OK {
            let mut failure = self.refused(connection, response, exchange).await;
            failure.detail = format!("GET {path}: {}", failure.detail);
            *kept = failure.connection.take().map(|connection| *connection);
            return Err(failure);
        }
        let body = exchange.read_body(&mut connection, ANSWER, true).await?;
        *kept = usable(connection);
        Ok(body)
    }

    /// The custom endpoints and their models, as user number `user` sees them, in the
    /// deployment's order.
    ///
    /// # Errors
    /// The outcome and what was said.
    pub async fn offers(&self, user: u32) -> Result<Vec<Offer>, (Outcome, String)> {
        let now = crate::clock::monotonic();
        let mut visit = Turn::new(now, now);
        let mut session = self.session(user);
        let mut exchange = Exchange::new(&self.limits, &mut visit, Live::nobody());
        let mut answers = async || -> Result<(Vec<u8>, Vec<u8>), Failure> {
            let (kept, headers) = (&mut session.connection, &session.headers);
            let endpoints = self.get(kept, headers, "/api/endpoints", &mut exchange).await?;
            let models = self.get(kept, headers, "/api/models", &mut exchange).await?;
            Ok((endpoints, models))
        };
        let answers = answers().await;
        let secrets = self.secrets_of(&session);
        let (endpoints, models) = answers.map_err(|failure| (failure.outcome, failure.told(&secrets)))?;
        // Some versions send JSON as text/html, and a path that is not there is a page: the body tells.
        let table = |what: &str, body: &[u8]| -> Result<Map<String, Value>, (Outcome, String)> {
            serde_json::from_slice(body).map_err(|_| (Outcome::Protocol, format!("/api/{what} is no table")))
        };
        Ok(custom(&table("endpoints", &endpoints)?, &table("models", &models)?))
    }
}

/// The custom ones of the endpoints, with their models.
fn custom(endpoints: &Map<String, Value>, models: &Map<String, Value>) -> Vec<Offer> {
    let mut custom: Vec<(&String, u64)> = endpoints
        .iter()
        .filter(|(_, endpoint)| endpoint["type"] == "custom")
        .map(|(name, endpoint)| (name, endpoint["order"].as_u64().unwrap_or(u64::MAX)))
        .collect();
    custom.sort_by_key(|(_, order)| *order);
    let of = |name: &String| models.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    custom
        .into_iter()
        .flat_map(|(name, _)| of(name).map(|model| Offer { endpoint: name.clone(), model: model.to_owned() }))
        .collect()
}

/// A name as one segment of a path.
pub(super) fn encoded(segment: &str) -> String {
    url::form_urlencoded::byte_serialize(segment.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_custom_endpoints_are_offered_in_their_order() {
        let endpoints = json!({
            "openAI": { "userProvide": false, "order": 0 }, "none": null, "off": false,
            "Zed": { "type": "custom", "order": 2 }, "Our mock": { "type": "custom", "order": 1 },
        });
        let models = json!({ "openAI": ["gpt"], "Zed": ["z"], "Our mock": ["fast", "slow"], "other": null });
        let offers = custom(endpoints.as_object().unwrap(), models.as_object().unwrap());
        let named: Vec<String> = offers.iter().map(|offer| format!("{}/{}", offer.endpoint, offer.model)).collect();
        assert_eq!(named, ["Our mock/fast", "Our mock/slow", "Zed/z"]);
        assert_eq!(encoded("Our mock/1"), "Our%20mock%2F1");
    }
}
