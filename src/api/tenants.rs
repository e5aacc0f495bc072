//! Endpoints that show tenants: to the operator all of them, to a tenant itself.

use std::sync::Arc;

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::extract::PathParams;
use super::{Api, ApiState, EndpointResult, reply};
use crate::error::{Error, Kind};
use crate::model::TenantName;
use crate::tenants::Tenant;

/// All tenants, by name.
pub(super) async fn list(api: ApiState) -> EndpointResult {
    let tenants = shown(&api).into_iter();
    let tenants: Vec<_> = tenants
        .map(|(name, tenant)| described(&name, &tenant))
        .collect();
    Ok(reply::json(StatusCode::OK, &json!({ "tenants": tenants })))
}

/// What one has used.
pub(super) async fn usage(api: ApiState, path: PathParams) -> EndpointResult {
    let mut tenants = shown(&api).into_iter();
    let found = tenants.find(|(name, _)| name.as_str() == path.model);
    let (name, tenant) =
        found.ok_or_else(|| Error::new(Kind::ModelNotFound, "Tenant not found"))?;
    let since = Timestamp::try_from(tenant.since()).unwrap_or_default();
    // Files of the system are read.
    let used = tokio::task::spawn_blocking(move || tenant.usage()).await;
    let used = used.map_err(|panic| {
        Error::new(Kind::Internal, "What the tenant used is not known").with_detail(panic)
    })?;
    let said = json!({"tenant": name.as_str(), "since": since.to_string(), "usage": used});
    Ok(reply::json(StatusCode::OK, &said))
}

/// The tenants that are there for whoever asks.
fn shown(api: &Api) -> Vec<(TenantName, Arc<Tenant>)> {
    if let Some(access) = &api.access {
        let own = access.tenant.name().cloned();
        return own
            .map(|name| (name, Arc::clone(&access.tenant)))
            .into_iter()
            .collect();
    }
    let tenants = api.services.tenants.as_ref();
    tenants.map(|tenants| tenants.all()).unwrap_or_default()
}

fn described(name: &TenantName, tenant: &Tenant) -> Value {
    let (owner, entries) = (tenant.owner(), tenant.catalog().entries());
    let workers: usize = entries.iter().map(|entry| entry.promised_workers()).sum();
    json!({
        "name": name.as_str(),
        "suspended": tenant.is_suspended(),
        "weight": owner.weight(),
        "quotas": owner.quotas(),
        "models": tenant.catalog().names().len(),
        "versions": entries.len(),
        "workers": workers,
        "requests_in_flight": owner.requests_in_flight(),
        "requests_queued": owner.requests_queued(),
    })
}
