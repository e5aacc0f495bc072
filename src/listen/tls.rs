//! TLS on a listener: handshakes, with limits on their time and number, and an answer for clients that do not speak TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::Stream;
use super::certificate::{Certificates, provider};

/// How long a handshake may take, counted from the connection.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most handshakes at the same time on one listener. Each takes up to a millisecond of processor time and some 20 KiB.
const AT_ONCE: usize = 256;
/// Type of the record that each TLS connection begins with.
const HANDSHAKE_RECORD: u8 = 22;
/// How much of a request without TLS is read, and for how long, so that its client receives the answer.
const DISCARDED: u64 = 1 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// TLS of one listener. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    at_once: Arc<Semaphore>,
    refusal: Bytes,
}

impl Tls {
    /// TLS with `certificates`, and with `protocols` for ALPN, of which the first is preferred. Clients that do not begin
    /// with a TLS record get the bytes of `refusal`, and the connection is closed. Fails only if rustls has no cryptography
    /// for its versions.
    pub fn new(
        certificates: Arc<Certificates>,
        protocols: &[&[u8]],
        refusal: Bytes,
    ) -> Result<Self, rustls::Error> {
        let versions = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?;
        let mut cfg = versions
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        cfg.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(cfg)),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            refusal,
        })
    }

    /// Performs the handshake; `None` if it fails or takes too long.
    pub(super) async fn establish(&self, stream: TcpStream) -> Option<Stream> {
        match tokio::time::timeout(TIMEOUT, self.shake_hands(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!("TLS handshake failed: {error}");
                None
            }
            Err(_) => {
                tracing::debug!("TLS handshake took longer than {TIMEOUT:?}");
                None
            }
        }
    }

    async fn shake_hands(&self, mut stream: TcpStream) -> io::Result<Option<Stream>> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(None);
        }
        // The permit is taken after the first byte, so that clients that send nothing hold none.
        let Ok(_permit) = self.at_once.acquire().await else {
            return Ok(None);
        };
        if first[0] != HANDSHAKE_RECORD && first[0].is_ascii_alphabetic() {
            self.refuse(&mut stream).await?;
            return Ok(None);
        }
        let stream = self.acceptor.accept(stream).await?;
        Ok(Some(Stream::Tls(Box::new(stream))))
    }

    /// Answers that this listener speaks TLS. The rest of the request is read: otherwise closing the connection would reset
    /// it before the client has read the answer.
    async fn refuse(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&self.refusal).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(DISCARDED);
        let mut nowhere = tokio::io::sink();
        let discarded = tokio::io::copy(&mut rest, &mut nowhere);
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, discarded).await;
        Ok(())
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tls").finish_non_exhaustive()
    }
}
