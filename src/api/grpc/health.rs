//! `grpc.health.v1.Health`: the truth about the server, about each of its services, and about each model by its name.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::call::Caller;
use crate::api::routes::grpc::MANAGEMENT;
use crate::catalog::Catalog;
use crate::error::{Error, Kind};

/// How often a watched service is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The health service of one listener.
pub(super) struct HealthService {
    services: Vec<&'static str>,
}

/// What health is read from.
#[derive(Clone)]
struct View {
    catalog: Catalog,
    services: Vec<&'static str>,
}

type Watching = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

impl HealthService {
    /// The health of models and of `services`.
    pub(super) const fn new(services: Vec<&'static str>) -> Self {
        Self { services }
    }

    fn view(&self, caller: &Caller) -> View {
        View {
            catalog: caller.catalog().clone(),
            services: self.services.clone(),
        }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Watching;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().service;
        let status = self.view(&caller).status(&name, caller.stop());
        let status = status.ok_or_else(|| caller.fail(&unknown(&name)))?;
        Ok(Response::new(response(status)))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = Caller::of(&request)?;
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Watch {
            view: self.view(&caller),
            name: request.into_inner().service,
            stop: caller.stop().clone(),
            has_ended: false,
            caller,
            looks,
            last: None,
        };
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::next))))
    }
}

impl View {
    /// What is known of `name`: empty for the whole listener, a service of it, a model, or `MODEL/VERSION`.
    fn status(&self, name: &str, stop: &CancellationToken) -> Option<ServingStatus> {
        let is_serving = if name == MANAGEMENT && self.services.contains(&name) {
            true
        } else if name.is_empty() || self.services.contains(&name) {
            self.catalog.is_ready()
        } else {
            self.is_model_ready(name)?
        };
        let is_stopping = stop.is_cancelled() || self.catalog.is_stopping();
        Some(if is_serving && !is_stopping {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        })
    }

    /// Whether a version takes requests; `None` if there is none of that name.
    fn is_model_ready(&self, name: &str) -> Option<bool> {
        let (model, version) = match name.split_once('/') {
            None => (name, None),
            Some((model, version)) => (model, Some(version)),
        };
        self.catalog.is_version_ready(model, version).ok()
    }
}

/// One client that watches for changes.
struct Watch {
    view: View,
    name: String,
    stop: CancellationToken,
    caller: Caller,
    /// Its client may watch no more.
    has_ended: bool,
    looks: Interval,
    last: Option<ServingStatus>,
}

impl Watch {
    /// The next change. When the server stops, that is the last one.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        if self.has_ended {
            return None;
        }
        loop {
            tokio::select! {
                _ = self.looks.tick() => {}
                () = self.stop.cancelled() => {}
            }
            if let Err(error) = self.caller.check_access() {
                self.has_ended = true;
                return Some((Err(self.caller.fail(&error)), self));
            }
            let status = self.view.status(&self.name, &self.stop);
            let status = status.unwrap_or(ServingStatus::ServiceUnknown);
            if self.last.replace(status) != Some(status) {
                return Some((Ok(response(status)), self));
            }
            if self.stop.is_cancelled() {
                return None;
            }
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

fn unknown(name: &str) -> Error {
    let message = format!("No service and no model has the name {name:?}");
    Error::new(Kind::ModelNotFound, message)
}
