//! Archives over HTTP and HTTPS.
//!
//! No proxy, no cookies, no content coding, and redirects only to where `allowed_urls` leads as well.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{self, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use url::Url;

use super::address::CheckedLookup;
use super::{Failure, FetchConfig, Opened, Resume};
use crate::config::{AllowedUrls, Place};

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// For a connection to be there.
const CONNECT: Duration = Duration::from_secs(10);
/// For a server to begin its answer.
const HEAD: Duration = Duration::from_mins(1);

/// Opens URLs.
pub struct Http {
    allowed: AllowedUrls,
    lookup: Arc<CheckedLookup>,
    /// Made when first needed: certificates are read then, and a machine may have none.
    tls: OnceLock<Result<Client, String>>,
    plain: OnceLock<Result<Client, String>>,
}

impl Http {
    /// Nothing is connected to yet.
    pub fn new(cfg: &FetchConfig) -> Self {
        Self {
            allowed: cfg.allowed.clone(),
            lookup: Arc::new(CheckedLookup::new(
                Arc::clone(&cfg.lookup),
                cfg.private_hosts.clone(),
            )),
            tls: OnceLock::new(),
            plain: OnceLock::new(),
        }
    }

    /// Asks for what lies at `url`, or for the rest of it.
    pub async fn open(&self, url: &Url, resume: Option<&Resume>) -> Result<Opened, Failure> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let response = self.send(&url, resume).await?;
            match redirect(&url, &response)? {
                Some(next) if self.may_follow(&next) => url = next,
                Some(next) => {
                    let detail = format!("redirected to {}", next.host_str().unwrap_or_default());
                    return Err(Failure::Refused(
                        "it leads to where nothing is fetched from".to_owned(),
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
        is_http && Place::of(next).is_ok_and(|place| self.allowed.permit(&place))
    }

    async fn send(&self, url: &Url, resume: Option<&Resume>) -> Result<Response, Failure> {
        let client = self.client(url).map_err(|detail| {
            Failure::Refused(
                "this server has no certificates to check others by".to_owned(),
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

    fn client(&self, url: &Url) -> Result<Client, String> {
        let made = match url.scheme() {
            "https" => self.tls.get_or_init(|| self.make(true)),
            _ => self.plain.get_or_init(|| self.make(false)),
        };
        made.clone()
    }

    fn make(&self, tls: bool) -> Result<Client, String> {
        let builder = base(tls).dns_resolver(Arc::clone(&self.lookup));
        builder.build().map_err(|error| chain(&error))
    }
}

/// A client that goes nowhere by itself.
pub fn base(tls: bool) -> reqwest::ClientBuilder {
    // Whoever was first decides; there is one provider in this program.
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
        .ok_or_else(|| Failure::refused("it is redirected to nowhere"))
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
                    "the server sent another part than it was asked for",
                ));
            }
        },
        // What is here is all there is, or of something else: both are settled by starting anew.
        (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
            return Err(Failure::refused("the server has less of it than before"));
        }
        _ if status.is_server_error() => {
            let detail = format!("status {status}");
            return Err(Failure::Broken("the server that has it fails", detail));
        }
        _ => {
            return Err(Failure::refused(format!(
                "the server that has it answered {}",
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

/// A strong `ETag`, else the date of the last change. Weak ones name no bytes.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let etag = text(header::ETAG).filter(|etag| etag.starts_with('"'));
    etag.or_else(|| text(header::LAST_MODIFIED))
        .map(str::to_owned)
}

/// First byte and, if it is said, the length of the whole.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()))
}
