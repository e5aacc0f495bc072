//! The audit log: one line for each call that manages, over REST and gRPC: who made it, for whose models, what it was, and how it ended.
//!
//! What becomes of a line is not known here. No key is in one, nor a credential of a URL: a key is named by its label and the beginning of
//! its digest.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRequestParts as _;
use hyper::http::request::Parts;
use parking_lot::Mutex;
use serde_json::Value;

use super::Response;
use super::authority::Principal;
use super::extract::{PathParams, RequestContext};
use super::routes::Permission;
use crate::error::{Error, Kind, shortened};
use crate::model::TenantName;

/// Characters of a value that a line has.
const SHOWN: usize = 1024;
/// What the paths of archives begin with.
const ARCHIVES: &str = "/lantern/v1/archives/";
/// The status of a call whose client left.
const CANCELLED: u16 = 499;

/// Takes the lines of calls that manage. Called for every such call: must not block.
#[derive(Clone)]
pub struct AuditLog(Arc<Take>);

type Take = dyn Fn(AuditLine) + Send + Sync;

/// One call: names and values, in order. Values hold foreign text.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditLine(pub Vec<(&'static str, Value)>);

/// What a call is about, which is found out while it is answered. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    tenant: Option<TenantName>,
    /// The tenant that a header names, as it is there.
    named_tenant: Option<String>,
    model: Option<String>,
    version: Option<String>,
    url: Option<String>,
    archive: Option<String>,
    digest: Option<String>,
    failure: Option<Kind>,
}

/// A call that was begun. Its line is written when it ends, or when it is dropped because its client left.
pub(super) struct AuditedCall {
    log: AuditLog,
    principal: Principal,
    call: String,
    context: RequestContext,
    since: Instant,
    notes: Notes,
    has_ended: bool,
}

impl AuditLog {
    /// A log that hands lines to `take`.
    pub fn new(take: impl Fn(AuditLine) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }
}

/// Whether calls that need `permission` are in the log.
pub(super) const fn is_audited(permission: Permission) -> bool {
    match permission {
        Permission::Manage | Permission::Register | Permission::Rotate | Permission::Logs => true,
        Permission::Nothing | Permission::Predict | Permission::Either | Permission::Observe => {
            false
        }
    }
}

impl Notes {
    /// The model that is meant, and the version if one is named.
    pub(super) fn model(&self, model: &str, version: Option<&str>) {
        let mut noted = self.0.lock();
        // Somebody may have put a URL there.
        let is_url = model.contains("://");
        let model = if is_url {
            without_credentials(model)
        } else {
            model.to_owned()
        };
        noted.model = Some(shown(&model));
        noted.version = version.map(shown).or(noted.version.take());
    }

    /// Where an archive is.
    pub(super) fn url(&self, url: &str) {
        self.0.lock().url = Some(shown(&without_credentials(url)));
    }

    /// The SHA-256 of the archive that is meant.
    pub(super) fn digest(&self, digest: &str) {
        self.0.lock().digest = Some(shown(digest));
    }

    /// Whose models it is about.
    pub(super) fn tenant(&self, tenant: Option<&TenantName>) {
        if let Some(tenant) = tenant {
            self.0.lock().tenant = Some(tenant.clone());
        }
    }

    /// The tenant that a header names, who may be another or none.
    pub(super) fn named_tenant(&self, name: Option<&[u8]>) {
        let name = name.map(String::from_utf8_lossy);
        self.0.lock().named_tenant = name.map(|name| shown(&name));
    }

    /// It failed so.
    pub(super) fn failed(&self, kind: Kind) {
        self.0.lock().failure = Some(kind);
    }

    /// What the path of a request to `route` names.
    pub(super) async fn path(&self, route: &str, head: &mut Parts) {
        let Ok(path) = PathParams::from_request_parts(head, &()).await else {
            return;
        };
        if path.model.is_empty() {
            return;
        }
        if route.starts_with(ARCHIVES) {
            self.0.lock().archive = Some(shown(&path.model));
        } else {
            self.model(&path.model, path.version.as_deref());
        }
    }
}

impl AuditedCall {
    /// A call that arrived.
    pub(super) fn begin(
        log: AuditLog,
        principal: Principal,
        call: String,
        context: RequestContext,
    ) -> Self {
        let notes = Notes::default();
        if let Principal::Tenant { tenant, .. } = &principal {
            notes.tenant(Some(tenant));
        }
        Self {
            log,
            principal,
            call,
            since: context.arrival,
            context,
            notes,
            has_ended: false,
        }
    }

    /// Where it is noted what the call is about.
    pub(super) const fn notes(&self) -> &Notes {
        &self.notes
    }

    /// It was answered over REST.
    pub(super) fn answered(self, response: &Response) {
        if let Some(error) = response.extensions().get::<Error>() {
            self.notes.failed(error.kind());
        }
        self.ended(response.status().as_u16());
    }

    /// It ended with this status of HTTP.
    pub(super) fn ended(mut self, status: u16) {
        self.has_ended = true;
        self.write(status);
    }

    fn write(&self, status: u16) {
        let noted = std::mem::take(&mut *self.notes.0.lock());
        let mut line = self.principal.fields();
        let text = |text: Option<String>| text.map(Value::from);
        let of_call = [
            ("tenant", text(noted.tenant.map(|name| name.to_string()))),
            ("named_tenant", text(noted.named_tenant)),
            ("call", Some(self.call.as_str().into())),
            ("model", text(noted.model)),
            ("version", text(noted.version)),
            ("url", text(noted.url)),
            ("archive", text(noted.archive)),
            ("digest", text(noted.digest)),
            ("status", Some(status.into())),
            (
                "error",
                noted.failure.map(|kind| format!("{kind:?}").into()),
            ),
            ("request_id", Some(self.context.id.as_str().into())),
            (
                "client_request_id",
                self.context.client_id.as_deref().map(Value::from),
            ),
            ("client", Some(self.context.peer.to_string().into())),
            ("ms", Some(milliseconds(self.since).into())),
        ];
        let of_call = of_call.into_iter();
        line.extend(of_call.filter_map(|(name, value)| Some((name, value?))));
        (self.log.0)(AuditLine(line));
    }
}

impl Drop for AuditedCall {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let (kind, status) = if std::thread::panicking() {
            (Kind::Internal, Kind::Internal.wire().status)
        } else {
            (Kind::Cancelled, CANCELLED)
        };
        self.notes.failed(kind);
        self.write(status);
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn shown(text: &str) -> String {
    shortened(text, SHOWN)
}

/// A URL without what may let somebody in: a user and a password before the host, and whatever is in its query.
fn without_credentials(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let url = &url[..end];
    let scheme = url.find(':');
    let scheme = scheme.filter(|at| is_scheme(url[..*at].trim_start()));
    let (scheme, rest) = url.split_at(scheme.map_or(0, |at| at + 1));
    let slashes = rest.len() - rest.trim_start_matches(['/', '\\']).len();
    let (slashes, rest) = rest.split_at(slashes);
    if scheme.is_empty() && slashes.is_empty() {
        return url.to_owned();
    }
    let host = rest.find(['/', '\\']).unwrap_or(rest.len());
    let user = rest[..host].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}{slashes}{}", &rest[user..])
}

fn is_scheme(text: &str) -> bool {
    let is_of_one = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_one)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::listen::Peer;

    fn line(end: impl FnOnce(AuditedCall)) -> AuditLine {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&lines);
        let log = AuditLog::new(move |line| taken.lock().push(line));
        let context = RequestContext::new(Peer::Tcp("127.0.0.1:9".parse().unwrap()));
        let call = "PUT /models/{model}".to_owned();
        end(AuditedCall::begin(
            log,
            Principal::Operator("management"),
            call,
            context,
        ));
        let mut lines = lines.lock();
        assert_eq!(lines.len(), 1);
        lines.remove(0)
    }

    fn value<'a>(line: &'a AuditLine, name: &str) -> Option<&'a Value> {
        let found = line.0.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| value)
    }

    #[test]
    fn a_call_leaves_one_line_however_it_ends() {
        let done = line(|call| {
            call.notes().model("m", Some("1.0"));
            call.ended(200);
        });
        let names: Vec<_> = done.0.iter().map(|(name, _)| *name).collect();
        let expected = [
            "principal",
            "key",
            "call",
            "model",
            "version",
            "status",
            "request_id",
            "client",
            "ms",
        ];
        assert_eq!(names, expected);
        let failed = line(|call| {
            call.notes().failed(Kind::ModelNotFound);
            call.ended(404);
        });
        assert_eq!(value(&failed, "error").unwrap(), "ModelNotFound");
        let left = line(drop);
        assert_eq!(value(&left, "status").unwrap(), 499);
        assert_eq!(value(&left, "error").unwrap(), "Cancelled");
    }

    #[test]
    fn urls_show_no_credentials() {
        for (url, expected) in [
            ("linear.mar", "linear.mar"),
            ("a@b.mar", "a@b.mar"),
            ("https://host/a@b.mar", "https://host/a@b.mar"),
            ("https://user:secret@host/a.mar", "https://host/a.mar"),
            ("https://user:sec@ret@host/a.mar", "https://host/a.mar"),
            ("https:/user:secret@host/a.mar", "https:/host/a.mar"),
            ("https:\\\\user:secret@host\\a.mar", "https:\\\\host\\a.mar"),
            ("https:user:secret@host", "https:host"),
            (
                "https://host/a.mar?X-Amz-Signature=secret",
                "https://host/a.mar",
            ),
            ("https://host/a.mar#secret", "https://host/a.mar"),
            ("s3://bucket/key.mar", "s3://bucket/key.mar"),
            ("//user:secret@host/a.mar", "//host/a.mar"),
            (" https://user:secret@host/a.mar", " https://host/a.mar"),
            ("user@host/a.mar", "user@host/a.mar"),
        ] {
            assert_eq!(without_credentials(url), expected, "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_value_of_its_own(text in "(?s).{0,64}") {
            prop_assume!(!text.contains("://"));
            let line = line(|call| {
                call.notes().model(&text, Some(&text));
                call.notes().url(&text);
                call.ended(200);
            });
            let names = line.0.iter().map(|(name, _)| *name);
            prop_assert_eq!(names.filter(|name| *name == "principal").count(), 1);
            prop_assert_eq!(value(&line, "model").unwrap(), text.as_str());
        }
    }
}
