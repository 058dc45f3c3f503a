//! The TLS client configuration that all streams share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Whom to trust, and who we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// A PEM file of further certificate authorities, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Trust anybody. Said in the result.
    pub insecure: bool,
    /// A PEM file of our certificate, with those that lead to its authority behind it; for servers that ask.
    pub client_cert: Option<PathBuf>,
    /// A PEM file of its private key, where that is another one.
    pub client_key: Option<PathBuf>,
}

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of `--ca-file` cannot be used.
    #[error("cannot use the certificate authorities in {path}: {reason}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file of `--client-cert` cannot be used.
    #[error("cannot use the client certificate in {path}: {reason}")]
    ClientCert {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The client certificate's key cannot be used.
    #[error("cannot use the client certificate's key in {path}: {reason}")]
    ClientKey {
        /// The file.
        path: PathBuf,
        /// Why. Nothing of the key stands in it.
        reason: String,
    },
    /// The cryptography provider refuses the protocol versions.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// The certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).map_err(told)?.collect::<Result<Vec<_>, _>>().map_err(told)?;
    if found.is_empty() { Err("it holds no PEM certificate".to_owned()) } else { Ok(found) }
}

/// The first private key of a PEM file: PKCS #8, PKCS #1 or SEC1.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => "it holds no PEM private key that is not locked by a password".to_owned(),
        other => told(other),
    })
}

/// What is wrong with a PEM file. More of it might repeat a line of a key.
fn told(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        _ => "it is no PEM that can be read".to_owned(),
    }
}

/// Who we are: a certificate with its chain, and its key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads the client certificate and its key, where there is one.
fn identity(settings: &TlsSettings) -> Result<Option<Identity>, TlsError> {
    let Some(path) = &settings.client_cert else { return Ok(None) };
    let chain = certificates(path).map_err(|reason| TlsError::ClientCert { path: path.clone(), reason })?;
    let path = settings.client_key.as_ref().unwrap_or(path);
    let key = private_key(path).map_err(|reason| TlsError::ClientKey { path: path.clone(), reason })?;
    Ok(Some((chain, key)))
}

/// One configuration for all connections. It offers HTTP/1.1 by itself; an [`super::Endpoint`] says what it offers.
///
/// # Errors
/// When the file of certificate authorities, or the client certificate or its key, cannot be used.
pub fn client_config(settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if settings.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnybody(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        // A system without roots is usable for plain targets; a TLS target then fails by name.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &settings.ca_file {
            let failed = |reason: String| TlsError::CaFile { path: path.clone(), reason };
            for certificate in certificates(path).map_err(failed)? {
                roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
        }
        builder.with_root_certificates(roots)
    };
    let mut config = match identity(settings)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            let path = settings.client_key.as_ref().or(settings.client_cert.as_ref()).cloned().unwrap_or_default();
            TlsError::ClientKey { path, reason: error.to_string() }
        })?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The verifier of `--insecure`: any certificate will do, signatures are still checked.
#[derive(Debug)]
struct TrustAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
