//! TLS of the server's listeners: one certificate for all, from files or made at the start.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use super::ServerError;
use crate::api::{self, Listener};
use crate::config::server::ServerConfig;
use crate::listen::{
    Address, CertificateError, CertificateSource, Certificates, ClientAuthorities, HandshakeLimits,
    Tls,
};

/// What TLS is spoken with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Where certificate and key are; without, a certificate is made.
    pub certificate: Option<CertificateSource>,
    /// Authorities of clients; with them, clients need a certificate.
    pub client_ca: Option<PathBuf>,
}

/// What the files of a configuration hold.
type Parts = (Option<Certificates>, Option<ClientAuthorities>);

impl TlsConfig {
    /// What `settings` ask for.
    pub fn new(settings: &ServerConfig) -> Self {
        Self {
            certificate: settings.certificate.clone(),
            client_ca: settings.values.lantern_client_ca.clone(),
        }
    }

    /// Reads the files as a start does, and keeps nothing. Blocks.
    pub fn check(self) -> Result<(), CertificateError> {
        self.read().map(drop)
    }

    fn read(self) -> Result<Parts, CertificateError> {
        let certificates = self.certificate.map(Certificates::read).transpose()?;
        let clients = self.client_ca.map(ClientAuthorities::read).transpose()?;
        Ok((certificates, clients))
    }
}

/// What the TLS of every listener has in common.
pub(super) struct TlsParts {
    pub(super) certificates: Arc<Certificates>,
    pub(super) clients: Option<Arc<ClientAuthorities>>,
}

/// What `listeners` speak TLS with; `None` if none of them does.
pub(super) fn parts(
    listeners: &[(Listener, Address)],
    cfg: TlsConfig,
) -> Result<Option<TlsParts>, ServerError> {
    let mut addresses = listeners.iter().map(|(_, address)| address);
    if !addresses.any(Address::is_tls) {
        return Ok(None);
    }
    let (certificates, clients) = cfg.read()?;
    let certificates = match certificates {
        Some(certificates) => certificates,
        None => makeshift(listeners)?,
    };
    Ok(Some(TlsParts {
        certificates: Arc::new(certificates),
        clients: clients.map(Arc::new),
    }))
}

/// What is spoken on `listener` within TLS, with handshakes within `limits`.
pub(super) fn tls(
    listener: Listener,
    parts: &TlsParts,
    limits: HandshakeLimits,
) -> Result<Tls, rustls::Error> {
    let (protocols, refusal) = api::within_tls(listener);
    let (certificates, clients) = (Arc::clone(&parts.certificates), parts.clients.clone());
    Tls::new(certificates, clients, protocols, refusal, limits)
}

/// A certificate for an operator who asked for TLS and named none.
fn makeshift(listeners: &[(Listener, Address)]) -> Result<Certificates, ServerError> {
    tracing::warn!(
        "NO CERTIFICATE: neither a certificate_file with its private_key_file nor a keystore is set, so clients cannot tell this server from an \
         impostor. One was made that nobody vouches for; it is another after each start."
    );
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let bound = listeners.iter().filter_map(|(_, address)| address.socket());
    let named = bound
        .map(|socket| socket.ip())
        .filter(|ip| !ip.is_unspecified());
    let hosts: BTreeSet<IpAddr> = loopback.into_iter().chain(named).collect();
    let hosts = hosts.iter().map(IpAddr::to_string);
    let hosts = ["localhost".to_owned()].into_iter().chain(hosts).collect();
    Ok(Certificates::self_signed(hosts)?)
}
