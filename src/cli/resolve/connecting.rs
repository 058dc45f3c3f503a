//! How connections to the target are made, and whether they may be.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustls::pki_types::ServerName;
use socket2::{Domain, Socket, Type};
use url::Url;

use super::target::consent;
use super::{For, Problems};
use crate::cli::overlay::Wish;
use crate::net::{TlsError, TlsSettings, client_config};
use crate::scenario::{Connecting, Pinned, Target, is_private_address, parse_proxy, parse_sources};

pub(super) fn connecting(
    wish: &Wish,
    what_for: For,
    target: Option<&Target>,
    problems: &mut Problems<'_>,
) -> Connecting {
    let section = &wish.file.target;
    if let Some(name) = &section.sni
        && ServerName::try_from(name.as_str()).is_err()
    {
        problems.add("target.sni", format!("`{name}` is no name that TLS can ask for"));
    }
    client_certificate(wish, what_for, problems);
    if target.and_then(Target::base).is_some_and(|base| base.scheme() == "http") {
        for (path, given) in
            [("target.sni", section.sni.is_some()), ("target.client_cert", section.client_cert.is_some())]
        {
            if given {
                problems.add(path, "is for TLS, but the target's URL begins with http://");
            }
        }
    }
    let proxy = section.proxy.as_deref().and_then(|text| problems.take("target.proxy", parse_proxy(text)));
    if let Some(proxy) = &proxy {
        problems.take("target.proxy", consent(proxy, &wish.file.authorized));
    }
    Connecting {
        sni: section.sni.clone(),
        client_cert: section.client_cert.clone(),
        client_key: section.client_key.clone(),
        resolve: pinned(wish, target, proxy.as_ref(), problems),
        proxy,
        source_addresses: sources(wish, what_for, problems),
    }
}

/// Whether the client certificate and its key can be used.
fn client_certificate(wish: &Wish, what_for: For, problems: &mut Problems<'_>) {
    let section = &wish.file.target;
    let (client_cert, client_key) = (section.client_cert.clone(), section.client_key.clone());
    if client_cert.is_none() {
        if client_key.is_some() {
            problems.add("target.client_key", "wants a --client-cert that it belongs to");
        }
        return;
    }
    if what_for != For::Running {
        return;
    }
    // Whom to trust is another question.
    let apart = client_key.is_some();
    let settings = TlsSettings { insecure: true, client_cert, client_key, ..TlsSettings::default() };
    if let Err(error) = client_config(&settings) {
        let of_key = apart && matches!(error, TlsError::ClientKey { .. });
        problems.add(if of_key { "target.client_key" } else { "target.client_cert" }, error.to_string());
    }
}

/// Addresses that are taken instead of asking the resolver: each for something that is asked, and none that is public
/// without somebody's word.
fn pinned(wish: &Wish, target: Option<&Target>, proxy: Option<&Url>, problems: &mut Problems<'_>) -> Vec<Pinned> {
    let (file, path) = (&wish.file, "target.resolve");
    let written = file.target.mock_admin.iter().chain(file.probe.prometheus.iter().map(|section| &section.url));
    let written = written.chain(file.probe.health.iter().filter_map(|section| section.url.as_ref()));
    let mut asked: Vec<Url> = written.filter_map(|text| text.parse().ok()).collect();
    asked.extend(target.and_then(Target::base).into_iter().chain(proxy).cloned());
    let mut found = Vec::new();
    for text in file.target.resolve.iter().flatten() {
        let Some(pinned) = problems.take(path, Pinned::parse(text)) else { continue };
        // Without a target, or with a broken one, that is told already.
        if target.and_then(Target::base).is_some() && !asked.iter().any(|url| pinned.concerns(url)) {
            let Pinned { host, port, .. } = &pinned;
            problems.add(path, format!("`{text}` is of no use, since nothing is asked at {host}:{port}"));
        }
        problems.take(path, consent_to_address(&pinned, &file.authorized));
        found.push(pinned);
    }
    found
}

/// Whether an address may be tested that somebody has put in the place of a host's own: the host's name alone, however
/// private it sounds, says nothing of it.
fn consent_to_address(pinned: &Pinned, named: &[String]) -> Result<(), String> {
    let Pinned { host, address, .. } = pinned;
    let address_text = address.to_string();
    let is_named = |text: &str| named.iter().any(|named| named.eq_ignore_ascii_case(text));
    if is_private_address(*address) || is_named(host) || is_named(&address_text) {
        return Ok(());
    }
    Err(format!(
        "{address} is a public address, and a load test of a host that is not yours is an attack; \
         if you may test it, say so with --i-am-authorized-to-test {host}"
    ))
}

/// The addresses that connections come from; before a run, whether this machine has them.
fn sources(wish: &Wish, what_for: For, problems: &mut Problems<'_>) -> Vec<IpAddr> {
    let (texts, path) = (wish.file.target.source_addresses.as_deref().unwrap_or_default(), "target.source_addresses");
    let sources = problems.take(path, parse_sources(texts)).unwrap_or_default();
    if what_for == For::Running {
        for source in &sources {
            if let Err(error) = try_source(*source) {
                problems.add(path, format!("connections cannot come from {source}: {error}"));
            }
        }
    }
    sources
}

fn try_source(source: IpAddr) -> io::Result<()> {
    let address = SocketAddr::new(source, 0);
    Socket::new(Domain::for_address(address), Type::STREAM, None)?.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_address_wants_somebody_s_word_whatever_the_host_is_called() {
        let consent = |text: &str, named: &[&str]| {
            let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
            consent_to_address(&Pinned::parse(text).unwrap(), &named)
        };
        assert!(consent("chat.internal:443:10.0.0.5", &[]).is_ok());
        assert!(consent("chat.example:443:[::1]", &[]).is_ok(), "of the host's own name the URL is asked");
        let told = consent("chat.internal:443:8.8.8.8", &["other.example"]).unwrap_err();
        assert!(told.contains("8.8.8.8") && told.contains("--i-am-authorized-to-test chat.internal"), "{told}");
        assert!(consent("chat.internal:443:[::ffff:8.8.8.8]", &[]).is_err());
        assert!(consent("chat.internal:443:8.8.8.8", &["Chat.Internal"]).is_ok());
        assert!(consent("chat.internal:443:8.8.8.8", &["8.8.8.8"]).is_ok());
    }

    #[test]
    fn a_source_is_an_address_of_this_machine() {
        assert!(try_source("127.0.0.2".parse().unwrap()).is_ok());
        // RFC 5737: an address of documentation is nobody's.
        assert!(try_source("192.0.2.1".parse().unwrap()).is_err());
    }
}
