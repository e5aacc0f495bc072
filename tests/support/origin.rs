//! A server that archives are fetched from. It answers each request with bytes that a test gives, and keeps the heads of
//! the requests.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Makes the answer from the number and the head of a request. After it the connection is closed.
type Script = dyn Fn(&str, usize) -> Vec<u8> + Send + Sync;

/// A server on a free port of the loopback interface.
pub struct Origin {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    is_open: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Origin {
    /// A server that answers as `script` says.
    pub async fn start(script: impl Fn(&str, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::listen(script, None).await
    }

    async fn listen(
        script: impl Fn(&str, usize) -> Vec<u8> + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (is_open, opened) = watch::channel(true);
        let script: Arc<Script> = Arc::new(script);
        let task = tokio::spawn(serve(listener, tls, script, Arc::clone(&heads), opened));
        Self {
            address,
            heads,
            is_open,
            task,
        }
    }

    /// A server that holds every answer until it is released.
    #[allow(dead_code, reason = "not every test that shares this file holds one")]
    pub fn hold(self) -> Self {
        self.is_open.send_replace(false);
        self
    }

    /// Sends the answers that were held.
    #[allow(dead_code, reason = "not every test that shares this file holds one")]
    pub fn release(&self) {
        self.is_open.send_replace(true);
    }

    /// The same server over TLS. Returns its certificate for `localhost`, in PEM.
    pub async fn start_tls(
        script: impl Fn(&str, usize) -> Vec<u8> + Send + Sync + 'static,
    ) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], made.signing_key.into())
            .unwrap();
        let origin = Self::listen(script, Some(TlsAcceptor::from(Arc::new(config)))).await;
        (origin, made.cert.pem())
    }

    /// Serves one body under any path, with an `ETag` and in parts if asked for.
    pub async fn serving(body: Vec<u8>) -> Self {
        Self::start(move |head, _| whole_or_rest(head, &body, "\"v1\"")).await
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path over TLS.
    pub fn secure_url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Heads of the requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    script: Arc<Script>,
    heads: Arc<Mutex<Vec<String>>>,
    opened: watch::Receiver<bool>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, script, heads) = (tls.clone(), Arc::clone(&script), Arc::clone(&heads));
        let opened = opened.clone();
        tokio::spawn(async move {
            match tls {
                None => answer(stream, script, heads, opened).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        answer(stream, script, heads, opened).await;
                    }
                }
            }
        });
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Arc<Script>,
    heads: Arc<Mutex<Vec<String>>>,
    mut opened: watch::Receiver<bool>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let index = {
        let mut heads = heads.lock();
        heads.push(head.clone());
        heads.len() - 1
    };
    // Once the test has dropped the origin, no answer is needed.
    let _ = opened.wait_for(|is_open| *is_open).await;
    let _ = stream.write_all(&script(&head, index)).await;
    let _ = stream.shutdown().await;
}

/// A header's value in a request's head.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let prefix = format!("{name}: ");
    head.lines().find_map(|line| {
        let start = line.get(..prefix.len())?;
        start
            .eq_ignore_ascii_case(&prefix)
            .then(|| &line[prefix.len()..])
    })
}

/// An answer with a status line, headers and a body.
pub fn reply(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    [format!("{head}\r\n").as_bytes(), body].concat()
}

/// What a file server answers: all of it, or the rest if the request asks for that and means the same bytes.
pub fn whole_or_rest(head: &str, body: &[u8], etag: &str) -> Vec<u8> {
    let range = header(head, "range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    let same = header(head, "if-range")
        .or(header(head, "if-match"))
        .is_none_or(|asked| asked == etag);
    let tag = format!("etag: {etag}");
    if let Some(start) = range.filter(|_| same) {
        let range = format!(
            "content-range: bytes {start}-{}/{}",
            body.len() - 1,
            body.len()
        );
        let length = format!("content-length: {}", body.len() - start);
        reply(
            "206 Partial Content",
            &[&tag, &range, &length, LAST_MODIFIED],
            &body[start..],
        )
    } else {
        let length = format!("content-length: {}", body.len());
        reply("200 OK", &[&tag, &length, LAST_MODIFIED], body)
    }
}

const LAST_MODIFIED: &str = "last-modified: Fri, 20 Nov 2026 15:24:39 GMT";
