//! TLS beneath the stream: its own part of the time, its own failure, bounds instead of exact stamps.

use std::io::Write;
use std::sync::Arc;

use capacity_check::driver::Limits;
use capacity_check::metric::Metric;
use capacity_check::net::TlsSettings;
use capacity_check::record::Outcome;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{Mock, load, one_turn, run, runtime};

/// A TLS terminator before a plain server, and the certificate to trust.
struct Terminator {
    base: String,
    ca: tempfile::NamedTempFile,
}

/// Starts a terminator for 127.0.0.1; it lives as long as the process.
fn terminate(plain: &str) -> Terminator {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(certified.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let plain = plain.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, plain) = (acceptor.clone(), plain.clone());
                tokio::task::spawn_local(async move {
                    let mut outer = acceptor.accept(stream).await.ok()?;
                    let mut inner = TcpStream::connect(plain).await.ok()?;
                    tokio::io::copy_bidirectional(&mut outer, &mut inner).await.ok()
                });
            }
        });
    });
    Terminator { base, ca }
}

#[test]
fn a_certificate_counts_only_where_it_is_trusted() {
    let mock = Mock::start("[models.m]\nttft = \"10ms\"\ngap = \"2ms\"\ntokens = 9");
    let front = terminate(&mock.api);
    let speak = |tls: &TlsSettings| runtime().block_on(one_turn(&front.base, "m", Limits::default(), tls));
    let unknown = speak(&TlsSettings::default());
    assert_eq!(unknown.outcome, Outcome::Tls);
    assert!(unknown.detail.contains("UnknownIssuer") || unknown.detail.contains("certificate"), "{}", unknown.detail);
    let trusted = speak(&TlsSettings { ca_file: Some(front.ca.path().to_owned()), ..TlsSettings::default() });
    assert_eq!((trusted.outcome, trusted.tokens), (Outcome::Completed, 9), "{}", trusted.detail);
    assert!(trusted.connect.is_some() && trusted.tls.is_some());
    // Beneath TLS the end of a line cannot be seen, so a stamp is never more than a bound.
    let first = trusted.first_token.unwrap();
    assert!(first.earliest < first.latest);
    assert_eq!(speak(&TlsSettings { insecure: true, ..TlsSettings::default() }).outcome, Outcome::Completed);
}

#[test]
fn a_whole_run_over_tls() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"10ms\"\ngap = \"2ms\"\ntokens = 9");
    let front = terminate(&mock.api);
    let load =
        ["--tiers", "4", "--think", "100ms", "--ramp", "0.2s", "--steady", "2s", "--steady-max", "2s", "--quick"];
    let target = ["--target", &front.base, "--mock-admin", &mock.admin, "--no-progress"];
    let ca = front.ca.path().to_str().unwrap();
    let ran = run(&[&load[..], &target, &["--ca-file", ca]].concat());
    assert_eq!(ran.code, 0, "{ran}");
    let result = ran.result();
    assert_eq!(result.totals.errors, 0);
    assert_eq!(result.totals.started, mock.turns().len() as u64);
    assert!(!result.target.insecure);
    assert!(!result.tiers[0].metrics.contains_key(&Metric::Tls) || result.tiers[0].metrics[&Metric::Tls].count <= 4);

    let refused = run(&[&load[..], &target].concat());
    assert_eq!(refused.code, 4, "{refused}");
    assert!(refused.stderr.contains("--ca-file"), "{refused}");

    let insecure = run(&[&load[..], &target, &["--insecure"]].concat());
    assert_eq!(insecure.code, 0, "{insecure}");
    assert!(insecure.result().target.insecure);
    assert!(insecure.stdout.contains("--insecure"), "{insecure}");
}
