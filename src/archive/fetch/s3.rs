//! Archives in S3-compatible stores. The operator's `AWS_*` variables give the store's address and the credentials.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore as _, RetryConfig};

use super::http::{base, chain};
use super::proxy::Proxies;
use super::remote::Remote;
use super::{Failure, Opened, Resume};

/// How long `object_store` may retry one request.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
const RETRIES: usize = 2;

/// Opens `s3://` URLs.
pub struct S3 {
    variables: BTreeMap<String, String>,
    proxies: Proxies,
}

/// Makes the HTTP client for `object_store`: no redirects, and no limit on the time of a whole answer. The operator's variables
/// name the store, so that its addresses are not checked.
#[derive(Debug)]
struct Connector(Proxies);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let base = |tls| base(tls).https_only(false).proxy(self.proxy());
        // A machine without certificates can still reach a store that does not use TLS.
        let client = base(true).build().or_else(|_| base(false).build());
        let client = client.map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: error.into(),
        })?;
        Ok(HttpClient::new(client))
    }
}

impl Connector {
    fn proxy(&self) -> reqwest::Proxy {
        let proxies = self.0.clone();
        reqwest::Proxy::custom(move |url| proxies.of(url).cloned())
    }
}

impl S3 {
    /// Connects to nothing yet.
    pub const fn new(variables: BTreeMap<String, String>, proxies: Proxies) -> Self {
        Self { variables, proxies }
    }

    /// Requests an object, or the rest of it.
    pub async fn open(&self, remote: &Remote, resume: Option<&Resume>) -> Result<Opened, Failure> {
        let bucket = remote.url.host_str().unwrap_or_default();
        if !is_bucket(bucket) {
            return Err(Failure::refused("it names no bucket"));
        }
        let key = Path::parse(remote.source.segments.join("/"));
        let key = key.map_err(|error| {
            Failure::Refused("its key is not a valid path".to_owned(), chain(&error))
        })?;
        let store = self.store(bucket)?;
        let options = match resume {
            Some(resume) => GetOptions {
                range: Some(GetRange::Offset(resume.offset)),
                if_match: Some(resume.validator.clone()),
                ..GetOptions::default()
            },
            None => GetOptions::default(),
        };
        let found = match store.get_opts(&key, options).await {
            // The object has changed since: start again.
            Err(object_store::Error::Precondition { .. }) => {
                store.get_opts(&key, GetOptions::default()).await
            }
            found => found,
        };
        let found = found.map_err(|error| failure(&error))?;
        Ok(Opened {
            offset: found.range.start,
            total: Some(found.meta.size),
            validator: found.meta.e_tag.clone(),
            body: found
                .into_stream()
                .map(|chunk| chunk.map_err(|error| chain(&error)))
                .boxed(),
        })
    }

    fn store(&self, bucket: &str) -> Result<AmazonS3, Failure> {
        let retry = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: RETRY_TIMEOUT,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .with_http_connector(Connector(self.proxies.clone()));
        for (name, value) in &self.variables {
            let key = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>();
            if let Ok(key) = key
                && !matches!(key, AmazonS3ConfigKey::Bucket)
            {
                builder = builder.with_config(key, value);
            }
        }
        builder.build().map_err(|error| {
            Failure::Refused(
                "this server's access to S3 is not set up".to_owned(),
                chain(&error),
            )
        })
    }
}

fn failure(error: &object_store::Error) -> Failure {
    use object_store::Error as Found;
    let detail = chain(error);
    match error {
        Found::NotFound { .. } => Failure::Refused("there is no such object".to_owned(), detail),
        Found::PermissionDenied { .. } | Found::Unauthenticated { .. } => {
            Failure::Refused("the store denies access".to_owned(), detail)
        }
        _ => Failure::Broken("the store failed", detail),
    }
}

/// S3's rule for names of buckets. It also ensures that the name cannot change the host when it becomes part of one.
fn is_bucket(name: &str) -> bool {
    let is_end = |byte: Option<u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    (3..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && is_end(name.bytes().next())
        && is_end(name.bytes().last())
        && !name.contains("..")
}
