//! TLS of the server's listeners: one certificate for all, from files or made at the start.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use super::ServerError;
use crate::api::{self, Listener};
use crate::listen::{Address, Certificates, Tls};

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate in PEM, with those that vouch for it after it.
    pub certificate: PathBuf,
    /// Its key in PEM.
    pub key: PathBuf,
}

/// The certificate of `listeners`; `None` if none of them speaks TLS.
pub(super) fn certificates(
    listeners: &[(Listener, Address)],
    files: Option<&TlsFiles>,
) -> Result<Option<Arc<Certificates>>, ServerError> {
    let mut addresses = listeners.iter().map(|(_, address)| address);
    if !addresses.any(Address::is_tls) {
        return Ok(None);
    }
    let certificates = match files {
        Some(files) => Certificates::read(&files.certificate, &files.key)?,
        None => makeshift(listeners)?,
    };
    Ok(Some(Arc::new(certificates)))
}

/// What is spoken on `listener` within TLS.
pub(super) fn tls(
    listener: Listener,
    certificates: &Arc<Certificates>,
) -> Result<Tls, rustls::Error> {
    let (protocols, refusal) = api::within_tls(listener);
    Tls::new(Arc::clone(certificates), protocols, refusal)
}

/// A certificate for an operator who asked for TLS and named none.
fn makeshift(listeners: &[(Listener, Address)]) -> Result<Certificates, ServerError> {
    tracing::warn!(
        "NO CERTIFICATE: certificate_file and private_key_file are not set, so clients cannot tell this server from an \
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
