//! Certificates of clients: who vouches for them, read from a PEM file and again when that changes.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::certificate::{CertificateError, Named, Watched, certificates, provider};

const CLIENT_CA: &str = "lantern_client_ca";

/// Checks the certificate of a client.
pub(super) type Verifier = Arc<dyn ClientCertVerifier>;

/// The authorities that vouch for clients. A client without a certificate by one of them is refused in the handshake.
#[derive(Debug)]
pub struct ClientAuthorities {
    file: PathBuf,
    watched: Watched,
    current: ArcSwap<Verifier>,
}

impl ClientAuthorities {
    /// Reads every certificate of a PEM file; each is an authority.
    pub fn read(file: PathBuf) -> Result<Self, CertificateError> {
        let watched = Watched::new([file.clone()]);
        Ok(Self {
            current: ArcSwap::from_pointee(verifier(Named::new(CLIENT_CA, &file))?),
            watched,
            file,
        })
    }

    /// Reads the file again if it has changed since it was last read. Blocks. Returns whether there are new authorities.
    /// After a failure the old ones are used until the file changes again.
    pub fn refresh(&self) -> Result<bool, CertificateError> {
        if !self.watched.have_changed() {
            return Ok(false);
        }
        let verifier = verifier(Named::new(CLIENT_CA, &self.file))?;
        self.current.store(Arc::new(verifier));
        Ok(true)
    }

    /// What checks clients from now on.
    pub(super) fn verifier(&self) -> Verifier {
        Arc::clone(&self.current.load())
    }
}

fn verifier(file: Named<'_>) -> Result<Verifier, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = roots.add(certificate);
        added.map_err(|_| file.problem("must hold X.509 certificates alone"))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    verifier
        .map(|verifier| verifier as Verifier)
        .map_err(|error| file.problem(format!("must hold certificates of authorities ({error})")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use bytes::Bytes;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ClientConfig;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;
    use tokio_util::sync::CancellationToken;

    use super::super::certificate::{CertificateSource, Certificates};
    use super::super::{Address, HandshakeLimits, Peer, Socket, Stream, Tls, accept};
    use super::*;

    /// An authority, and the certificate and key of a client by it.
    struct Authority {
        pem: String,
        client: CertificateDer<'static>,
        key: Vec<u8>,
    }

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let own = KeyPair::generate().unwrap();
            let pem = params.self_signed(&own).unwrap().pem();
            let issuer = Issuer::new(params, own);
            let key = KeyPair::generate().unwrap();
            let client = CertificateParams::new(vec!["client".to_owned()]).unwrap();
            Self {
                pem,
                client: client.signed_by(&key, &issuer).unwrap().into(),
                key: key.serialize_der(),
            }
        }
    }

    /// Writes certificate and key of a server. Returns them, and what trusts them.
    fn server(directory: &Path) -> (CertificateSource, RootCertStore) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (directory.join("c.pem"), directory.join("k.pem"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.into()).unwrap();
        (CertificateSource::Pem { certificate, key }, roots)
    }

    /// A client of `authority`, which resumes its sessions.
    fn client(roots: &RootCertStore, authority: Option<&Authority>) -> TlsConnector {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone());
        let cfg = match authority {
            None => builder.with_no_client_auth(),
            Some(Authority { client, key, .. }) => {
                let key = PrivateKeyDer::Pkcs8(key.clone().into());
                builder
                    .with_client_auth_cert(vec![client.clone()], key)
                    .unwrap()
            }
        };
        TlsConnector::from(Arc::new(cfg))
    }

    async fn greet(mut stream: Stream, _: Peer) {
        stream.write_all(b"hello").await.unwrap();
    }

    /// Whether the server goes on after the handshake. In TLS 1.3 a client learns that it was refused when it reads.
    async fn is_greeted(address: std::net::SocketAddr, client: &TlsConnector) -> bool {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        match client.connect(name, stream).await {
            Ok(mut stream) => stream.read_exact(&mut [0; 5]).await.is_ok(),
            Err(_) => false,
        }
    }

    #[tokio::test]
    async fn only_clients_of_the_authorities_are_served_and_those_may_change() {
        let directory = tempfile::tempdir().unwrap();
        let (source, roots) = server(directory.path());
        let (known, stranger) = (Authority::new(), Authority::new());
        let file = directory.path().join("clients.pem");
        fs::write(&file, &known.pem).unwrap();
        let authorities = Arc::new(ClientAuthorities::read(file.clone()).unwrap());
        let certificates = Arc::new(Certificates::read(source).unwrap());
        let tls = Tls::new(
            certificates,
            Some(Arc::clone(&authorities)),
            &[],
            Bytes::new(),
            HandshakeLimits::default(),
        );
        let address = Address::Tcp {
            socket: "127.0.0.1:0".parse().unwrap(),
            tls: true,
        };
        let socket = Socket::bind(&address, Some(tls.unwrap()), 0o600).unwrap();
        let address = socket.address().socket().unwrap();
        let stop = CancellationToken::new();
        let accepting = tokio::spawn(accept(socket, stop.clone(), greet));
        let clients = [Some(&known), Some(&stranger), None].map(|one| client(&roots, one));
        for expected in [[true, false, false], [true, false, false]] {
            for (client, expected) in clients.iter().zip(expected) {
                assert_eq!(is_greeted(address, client).await, expected);
            }
        }
        assert_eq!(authorities.refresh(), Ok(false));
        fs::write(&file, "broken").unwrap();
        assert!(authorities.refresh().is_err());
        assert!(is_greeted(address, &clients[0]).await);
        fs::write(&file, &stranger.pem).unwrap();
        assert_eq!(authorities.refresh(), Ok(true));
        // The first would resume its session, in which nobody is asked for a certificate.
        for (client, expected) in clients.iter().zip([false, true, false]) {
            assert_eq!(is_greeted(address, client).await, expected);
        }
        stop.cancel();
        accepting.await.unwrap();
    }

    #[test]
    fn a_file_without_authorities_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("clients.pem");
        for (text, says) in [
            ("", "must hold PEM with at least one BEGIN CERTIFICATE"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "must hold X.509 certificates alone",
            ),
        ] {
            fs::write(&file, text).unwrap();
            let error = ClientAuthorities::read(file.clone()).unwrap_err();
            let expected = format!("lantern_client_ca {says}, got {}", file.display());
            assert_eq!(error.to_string(), expected);
        }
    }
}
