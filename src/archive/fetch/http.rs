//! Archives over HTTP and HTTPS.
//!
//! No cookies and no content coding is used, and only redirects to URLs that `allowed_urls` allows are followed. What goes
//! through a proxy has clients of its own, which connect to that proxy and to nothing else.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use futures_util::StreamExt as _;
use reqwest::header::{self, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use url::Url;

use super::super::urls::{AllowedUrls, SourceUrl};
use super::address::CheckedLookup;
use super::proxy::Proxies;
use super::{Failure, FetchConfig, Opened, Resume};

/// Most redirects that are followed.
const REDIRECTS: usize = 5;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a server may take to begin its answer.
const HEAD: Duration = Duration::from_mins(1);

/// Opens `http://` and `https://` URLs.
pub struct Http {
    allowed: AllowedUrls,
    lookup: Arc<CheckedLookup>,
    proxies: Proxies,
    /// Clients by what they are for. One is made when first needed, since making one for TLS reads the machine's certificates
    /// and fails if there are none.
    clients: DashMap<Purpose, Result<Client, String>>,
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Purpose {
    tls: bool,
    through_proxy: bool,
}

impl Http {
    /// Connects to nothing yet.
    pub fn new(cfg: &FetchConfig) -> Self {
        Self {
            allowed: cfg.allowed.clone(),
            lookup: Arc::new(CheckedLookup::new(
                Arc::clone(&cfg.lookup),
                cfg.private_hosts.clone(),
            )),
            proxies: cfg.proxies.clone(),
            clients: DashMap::new(),
        }
    }

    /// Requests the file at `url`, or the rest of it.
    pub async fn open(&self, url: &Url, resume: Option<&Resume>) -> Result<Opened, Failure> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let response = self.send(&url, resume).await?;
            match redirect(&url, &response)? {
                Some(next) if self.may_follow(&next) => url = next,
                Some(next) => {
                    let detail = format!("redirected to {}", next.host_str().unwrap_or_default());
                    return Err(Failure::Refused(
                        "it redirects to a URL that is not allowed".to_owned(),
                        detail,
                    ));
                }
                None => return opened(response, resume),
            }
        }
        Err(Failure::refused(format!(
            "it is redirected more than {REDIRECTS} times"
        )))
    }

    fn may_follow(&self, next: &Url) -> bool {
        let is_http = matches!(next.scheme(), "http" | "https");
        is_http && SourceUrl::of(next).is_ok_and(|source| self.allowed.permit(&source))
    }

    async fn send(&self, url: &Url, resume: Option<&Resume>) -> Result<Response, Failure> {
        let proxy = self.proxies.of(url);
        if proxy.is_some() {
            self.check_name(url).await?;
        }
        let client = self.client(url, proxy).map_err(|detail| {
            Failure::Refused(
                "this server has no root certificates to verify others with".to_owned(),
                detail,
            )
        })?;
        let mut request = client
            .get(url.clone())
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(resume) = resume {
            request = request
                .header(header::RANGE, format!("bytes={}-", resume.offset))
                .header(header::IF_RANGE, &resume.validator);
        }
        match tokio::time::timeout(HEAD, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Failure::Broken(
                "it cannot be reached",
                chain(&error.without_url()),
            )),
            Err(_) => Err(Failure::Broken(
                "it does not answer",
                format!("nothing for {HEAD:?}"),
            )),
        }
    }

    /// A proxy looks names up by itself. A name that is known here, and leads to where it may not, is not asked for; one that is
    /// not known here is the proxy's business.
    async fn check_name(&self, url: &Url) -> Result<(), Failure> {
        let Some(name) = url.domain() else {
            return Ok(());
        };
        self.lookup
            .check(name)
            .await
            .map_err(|detail| Failure::Broken("it cannot be reached", detail))
    }

    fn client(&self, url: &Url, proxy: Option<&Url>) -> Result<Client, String> {
        let purpose = Purpose {
            tls: url.scheme() == "https",
            through_proxy: proxy.is_some(),
        };
        // Each scheme has one proxy.
        let made = self.clients.entry(purpose);
        made.or_insert_with(|| self.make(purpose.tls, proxy))
            .clone()
    }

    fn make(&self, tls: bool, proxy: Option<&Url>) -> Result<Client, String> {
        let client = match proxy {
            Some(proxy) => {
                let needs_tls = tls || proxy.scheme() == "https";
                let proxy = reqwest::Proxy::all(proxy.clone());
                proxy.and_then(|proxy| base(needs_tls).https_only(tls).proxy(proxy).build())
            }
            None => base(tls).dns_resolver(Arc::clone(&self.lookup)).build(),
        };
        client.map_err(|error| chain(&error))
    }
}

/// A client that follows no redirect and uses no proxy unless it is given one.
pub fn base(tls: bool) -> reqwest::ClientBuilder {
    // Fails if a provider is installed already, which is the same one: this program has no other.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT)
        .user_agent(concat!("lantern/", env!("CARGO_PKG_VERSION")));
    if tls {
        builder.https_only(true)
    } else {
        builder.tls_certs_only([])
    }
}

/// An error and its causes, for the log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn redirect(url: &Url, response: &Response) -> Result<Option<Url>, Failure> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|value| value.to_str().ok());
    let next = location.and_then(|location| url.join(location).ok());
    next.map(Some)
        .ok_or_else(|| Failure::refused("it redirects without naming a URL"))
}

fn opened(response: Response, resume: Option<&Resume>) -> Result<Opened, Failure> {
    let status = response.status();
    let headers = response.headers();
    let (offset, total) = match (status, resume) {
        (StatusCode::OK, _) => (0, response.content_length()),
        (StatusCode::PARTIAL_CONTENT, Some(resume)) => match content_range(headers) {
            Some((start, total)) if start == resume.offset => (start, total),
            _ => {
                return Err(Failure::refused(
                    "its server sent another part than was requested",
                ));
            }
        },
        // The bytes that are here are all there are, or belong to another file: starting again settles both.
        (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
            return Err(Failure::refused(
                "its server has fewer bytes than it sent before",
            ));
        }
        _ if status.is_server_error() => {
            let detail = format!("status {status}");
            return Err(Failure::Broken("its server failed", detail));
        }
        _ => {
            return Err(Failure::refused(format!(
                "its server answered {}",
                status.as_u16()
            )));
        }
    };
    Ok(Opened {
        offset,
        total,
        validator: validator(headers),
        body: response
            .bytes_stream()
            .map(|chunk| chunk.map_err(|error| chain(&error.without_url())))
            .boxed(),
    })
}

/// A strong `ETag`, or else the date of the last change. A weak `ETag` does not identify bytes.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let etag = text(header::ETAG).filter(|etag| etag.starts_with('"'));
    etag.or_else(|| text(header::LAST_MODIFIED))
        .map(str::to_owned)
}

/// The first byte of the range and, if it is given, the length of the whole file.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()))
}
