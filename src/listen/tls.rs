//! TLS on a listener: handshakes with a bound on their time and number, and an answer for clients that speak none.

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

/// From the connection until its handshake is done, waiting included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at the same time on one listener. Each costs up to a millisecond of processor and some 20 KiB.
const AT_ONCE: usize = 256;
/// Each TLS connection begins with a record of this type.
const HANDSHAKE_RECORD: u8 = 22;
/// How much of a request that is no TLS is read, and for how long, so that its client sees the answer.
const DISCARDED: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(1);

/// TLS of one listener. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    at_once: Arc<Semaphore>,
    refusal: Bytes,
}

impl Tls {
    /// Proves who the server is by `certificates` and agrees on one of `protocols` (ALPN), of which the first is
    /// preferred. Clients that begin with text get `refusal` as it is, and the connection's end. Fails
    /// only if the library has no cryptography for its versions.
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

    /// The stream within TLS; `None` if the client does not get that far.
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
        // A client that is silent holds no permit: it has sent nothing that would have to be worked on.
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

    /// Says that this listener speaks TLS. What the client still sends is read, or a reset would overtake the answer.
    async fn refuse(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&self.refusal).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(DISCARDED);
        let mut nowhere = tokio::io::sink();
        let discarded = tokio::io::copy(&mut rest, &mut nowhere);
        let _ = tokio::time::timeout(PATIENCE, discarded).await;
        Ok(())
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tls").finish_non_exhaustive()
    }
}
