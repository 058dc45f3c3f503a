//! How connections are made: from the resolved scenario to the settings of TLS and sockets, and to what the result
//! says of them.

use super::resolve::Secrets;
use crate::net::{Pin, Proxy, Route, TlsSettings};
use crate::result::Reached;
use crate::scenario::{Connecting, Pinned, Scenario};

/// Whom to trust, and who we are.
pub(super) fn tls_settings(scenario: &Scenario) -> TlsSettings {
    let Connecting { client_cert, client_key, .. } = scenario.connecting.clone();
    TlsSettings { ca_file: scenario.ca_file.clone(), insecure: scenario.insecure, client_cert, client_key }
}

/// The way to the target.
pub(super) fn route(scenario: &Scenario, secrets: &Secrets) -> Route {
    let Connecting { sni, resolve, proxy, source_addresses, .. } = scenario.connecting.clone();
    let pin = |Pinned { host, port, address }| Pin { host, port, address };
    let proxy = proxy.map(|url| Proxy {
        host: url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port_or_known_default().unwrap_or(80),
        credentials: secrets.proxy_auth.clone(),
    });
    Route { sni, pins: resolve.into_iter().map(pin).collect(), proxy, source_addresses }
}

/// What the result says of the way, where there is anything to say.
pub(super) fn reached(scenario: &Scenario) -> Option<Reached> {
    let Connecting { sni, client_cert, resolve, proxy, source_addresses, .. } = &scenario.connecting;
    let reached = Reached {
        sni: sni.clone(),
        client_cert: client_cert.is_some(),
        resolved: resolve.iter().map(ToString::to_string).collect(),
        proxy: proxy.as_ref().map(|url| url[url::Position::BeforeHost..url::Position::AfterPort].to_owned()),
        source_addresses: source_addresses.iter().map(ToString::to_string).collect(),
    };
    (!scenario.connecting.is_plain()).then_some(reached)
}
