//! TLS on a listener: handshakes, with limits on their time and number, and an answer for clients that do not speak TLS.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::certificate::{Certificates, provider};
use super::clients::{ClientAuthorities, Verifier};
use super::stream::Io;
use crate::refusals::{Limit, Refusals};

/// Type of the record that each TLS connection begins with.
const HANDSHAKE_RECORD: u8 = 22;
/// How much of a request without TLS is read, and for how long, so that its client receives the answer.
const DISCARDED: u64 = 1 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Limits on handshakes.
#[derive(Debug, Clone)]
pub struct HandshakeLimits {
    /// How long one may take, counted from the connection.
    pub timeout: Duration,
    /// Most at the same time on one listener; others wait. Each takes up to a millisecond of processor time and some 20 KiB.
    pub at_once: usize,
    /// Counts those that take too long.
    pub refusals: Refusals,
    /// Those under way.
    pub under_way: Arc<AtomicUsize>,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            at_once: 256,
            refusals: Refusals::default(),
            under_way: Arc::default(),
        }
    }
}

/// One handshake, counted until it is dropped.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// TLS of one listener. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    identity: Arc<Certificates>,
    clients: Option<Arc<ClientAuthorities>>,
    protocols: Vec<Vec<u8>>,
    refusal: Bytes,
    limits: HandshakeLimits,
    at_once: Semaphore,
    acceptor: ArcSwap<Acceptor>,
}

/// What performs handshakes, and what checks clients there.
struct Acceptor {
    clients: Option<Verifier>,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// TLS with the certificate of `identity`, and with `protocols` for ALPN, of which the first is preferred. With
    /// `clients`, only clients whose certificate is by one of them complete a handshake. Clients that do not begin
    /// with a TLS record get the bytes of `refusal`, and the connection is closed. Handshakes are within `limits`. Fails only if rustls has no cryptography
    /// for its versions.
    pub fn new(
        identity: Arc<Certificates>,
        clients: Option<Arc<ClientAuthorities>>,
        protocols: &[&[u8]],
        refusal: Bytes,
        limits: HandshakeLimits,
    ) -> Result<Self, rustls::Error> {
        let protocols: Vec<_> = protocols.iter().map(|name| name.to_vec()).collect();
        let verifier = clients.as_ref().map(|clients| clients.verifier());
        let acceptor = Acceptor::new(&identity, verifier, &protocols)?;
        Ok(Self(Arc::new(Shared {
            identity,
            clients,
            protocols,
            refusal,
            at_once: Semaphore::new(limits.at_once),
            limits,
            acceptor: ArcSwap::from_pointee(acceptor),
        })))
    }

    /// Performs the handshake; `None` if it fails or takes too long.
    pub(super) async fn establish(&self, stream: TcpStream) -> Option<Io> {
        let HandshakeLimits {
            timeout, refusals, ..
        } = &self.0.limits;
        match tokio::time::timeout(*timeout, self.shake_hands(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!("TLS handshake failed: {error}");
                None
            }
            Err(_) => {
                let what = format_args!("a TLS handshake that took longer than {timeout:?}");
                refusals.count(Limit::HandshakeTime, what);
                None
            }
        }
    }

    async fn shake_hands(&self, mut stream: TcpStream) -> io::Result<Option<Io>> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(None);
        }
        // The permit is taken after the first byte, so that clients that send nothing hold none.
        let Ok(_permit) = self.0.at_once.acquire().await else {
            return Ok(None);
        };
        let _counted = UnderWay::new(&self.0.limits.under_way);
        if first[0] != HANDSHAKE_RECORD && first[0].is_ascii_alphabetic() {
            self.refuse(&mut stream).await?;
            return Ok(None);
        }
        let stream = self.0.acceptor()?.accept(stream).await?;
        Ok(Some(Io::Tls(Box::new(stream))))
    }

    /// Answers that this listener speaks TLS. The rest of the request is read: otherwise closing the connection would reset
    /// it before the client has read the answer.
    async fn refuse(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&self.0.refusal).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(DISCARDED);
        let mut nowhere = tokio::io::sink();
        let discarded = tokio::io::copy(&mut rest, &mut nowhere);
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, discarded).await;
        Ok(())
    }
}

impl Shared {
    /// What performs the next handshake. It is another one after the authorities of clients have changed, and knows no
    /// session of before: a session that is resumed is not asked for a certificate.
    fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let verifier = self.clients.as_ref().map(|clients| clients.verifier());
        let known = self.acceptor.load();
        if are_same(known.clients.as_ref(), verifier.as_ref()) {
            return Ok(known.acceptor.clone());
        }
        let made = Acceptor::new(&self.identity, verifier, &self.protocols);
        let made = made.map_err(io::Error::other)?;
        let acceptor = made.acceptor.clone();
        self.acceptor.store(Arc::new(made));
        Ok(acceptor)
    }
}

fn are_same(one: Option<&Verifier>, other: Option<&Verifier>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

impl Acceptor {
    fn new(
        identity: &Arc<Certificates>,
        clients: Option<Verifier>,
        protocols: &[Vec<u8>],
    ) -> Result<Self, rustls::Error> {
        let versions = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?;
        let checked = match &clients {
            Some(verifier) => versions.with_client_cert_verifier(Arc::clone(verifier)),
            None => versions.with_no_client_auth(),
        };
        let mut cfg = checked.with_cert_resolver(Arc::clone(identity) as Arc<_>);
        cfg.alpn_protocols = protocols.to_vec();
        Ok(Self {
            clients,
            acceptor: TlsAcceptor::from(Arc::new(cfg)),
        })
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tls").finish_non_exhaustive()
    }
}
