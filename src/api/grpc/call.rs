//! What the server knows of a call before a service sees it: id, arrival, deadline; and how a failure becomes a status.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use hyper::http::Extensions;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status;
use crate::api::access::Ids;
use crate::api::audit::Notes;
use crate::api::extract::RequestContext;
use crate::api::log_failure;
use crate::api::manage::Operations;
use crate::budget::{Account, Charge, UNCOUNTED};
use crate::catalog::Catalog;
use crate::error::{Error, Kind};
use crate::tenants::Access;

/// One call. Services find it in the request's extensions.
#[derive(Clone)]
pub(super) struct Caller {
    state: Arc<CallState>,
    deadline: Option<Instant>,
    catalog: Catalog,
    /// What the key of a tenant opened for it.
    access: Option<Access>,
    /// What is found out of it for the audit log.
    notes: Option<Notes>,
}

struct CallState {
    context: RequestContext,
    stop: CancellationToken,
    /// The HTTP status of the failure that was answered; 0 while there is none. It tells the metrics whose fault it was.
    failure: AtomicU16,
    /// Of messages that were read and not answered. Tiny ones are not among them.
    kept: Mutex<Vec<Charge>>,
}

impl Caller {
    /// A call to the models of `catalog` that ends with `stop` if it has no end of its own.
    pub(super) fn new(context: RequestContext, catalog: Catalog, stop: CancellationToken) -> Self {
        Self {
            state: Arc::new(CallState {
                context,
                stop,
                failure: AtomicU16::new(0),
                kept: Mutex::default(),
            }),
            deadline: None,
            catalog,
            access: None,
            notes: None,
        }
    }

    /// The same call with a deadline of the client's.
    pub(super) fn until(self, deadline: Option<Instant>) -> Self {
        Self { deadline, ..self }
    }

    /// The same call to the models that `access` is to.
    pub(super) fn with_access(self, access: Access) -> Self {
        if let Some(notes) = &self.notes {
            notes.tenant(access.tenant.name());
        }
        Self {
            catalog: access.catalog.clone(),
            access: Some(access),
            ..self
        }
    }

    /// The same call, of which `notes` are taken.
    pub(super) fn noting(self, notes: Notes) -> Self {
        Self {
            notes: Some(notes),
            ..self
        }
    }

    /// The operations of the call.
    pub(super) fn operations(&self, enable_model_api: bool) -> Operations {
        let operations = Operations::new(self.catalog.clone(), enable_model_api);
        match &self.notes {
            Some(notes) => operations.noting(notes.clone()),
            None => operations,
        }
    }

    /// What the server knows of the request.
    pub(super) fn context(&self) -> &RequestContext {
        &self.state.context
    }

    /// Whether the call may still be made: a stream is asked again for each of its messages.
    pub(super) fn check_access(&self) -> Result<(), Error> {
        self.access.as_ref().map_or(Ok(()), Access::check)
    }

    /// The models that are there for whoever makes the call.
    pub(super) const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The call of a request that came through the router.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        Self::within(request.extensions())
    }

    /// The call that `extensions` are of.
    pub(super) fn within(extensions: &Extensions) -> Result<Self, Status> {
        let caller = extensions.get::<Self>();
        caller
            .cloned()
            .ok_or_else(|| Status::internal("The call has no caller"))
    }

    /// The `x-request-id` of the response.
    pub(super) fn id(&self) -> &str {
        &self.state.context.id
    }

    /// Its ids, for the access log.
    pub(super) fn ids(&self) -> Ids {
        self.state.context.clone().into()
    }

    /// When the call arrived.
    pub(super) fn arrival(&self) -> Instant {
        self.state.context.arrival
    }

    /// The earlier one of the server's deadline and the client's, if it has one.
    pub(super) fn deadline(&self, servers: Instant) -> Instant {
        self.deadline
            .map_or(servers, |clients| clients.min(servers))
    }

    /// Whose bytes in flight the call is among.
    pub(super) fn account(&self) -> &Account {
        &self.state.context.account
    }

    /// Keeps the charge of a message until it is answered.
    pub(super) fn keep(&self, charge: Charge) {
        if charge.bytes() > UNCOUNTED {
            self.state.kept.lock().push(charge);
        }
    }

    /// Takes the charges that were kept, for somebody who knows when the messages are answered.
    pub(super) fn take_kept(&self) -> Vec<Charge> {
        std::mem::take(&mut *self.state.kept.lock())
    }

    /// The client's deadline.
    pub(super) const fn own_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Cancelled when the server stops.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.state.stop
    }

    /// The status of a call that may not be made.
    pub(super) fn refuse(&self, error: &Error) -> Status {
        self.record(error);
        status::of_refusal(error)
    }

    /// The status that the wire table gives a failure.
    pub(super) fn fail(&self, error: &Error) -> Status {
        self.record(error);
        status::of(error)
    }

    /// The status that TorchServe gives a failed prediction.
    pub(super) fn fail_prediction(&self, error: &Error) -> Status {
        self.record(error);
        status::of_prediction(error)
    }

    /// The status that Open Inference Protocol gives a failure.
    pub(super) fn fail_open_inference(&self, error: &Error) -> Status {
        self.record(error);
        status::of_open_inference(error)
    }

    /// Logs a failure and keeps whose fault it was.
    pub(super) fn record(&self, error: &Error) {
        log_failure(error, self.id());
        self.note_failure(error.kind());
        self.record_status(error.kind().wire().status);
    }

    /// Notes for the audit log what became of the call.
    pub(super) fn note_failure(&self, kind: Kind) {
        if let Some(notes) = &self.notes {
            notes.failed(kind);
        }
    }

    /// Keeps the HTTP status that a failure has over REST.
    pub(super) fn record_status(&self, status: u16) {
        self.state.failure.store(status, Ordering::Relaxed);
    }

    /// Whether a failure was answered.
    pub(super) fn has_failed(&self) -> bool {
        self.failure().is_some()
    }

    /// The HTTP status of the failure that was answered.
    pub(super) fn failure(&self) -> Option<u16> {
        Some(self.state.failure.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }
}
