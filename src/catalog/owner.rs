//! Whose models a catalog holds, and how much of everything that owner may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use super::Models;
use super::entry::Entry;
use crate::config::tenants::Quotas;
use crate::error::{Error, Kind};
use crate::model::TenantName;

/// The operator, or a tenant.
#[derive(Debug, Default)]
pub struct Owner(Option<Tenant>);

#[derive(Debug)]
struct Tenant {
    name: TenantName,
    quotas: ArcSwap<Quotas>,
    /// Requests that were admitted and not answered.
    in_flight: AtomicUsize,
}

/// One request of an owner's, counted until it is dropped.
pub(super) struct Counted<'a>(Option<&'a Tenant>);

impl Owner {
    /// A tenant that may have so much.
    pub fn tenant_with(name: TenantName, quotas: Quotas) -> Self {
        Self(Some(Tenant {
            name,
            quotas: ArcSwap::from_pointee(quotas),
            in_flight: AtomicUsize::new(0),
        }))
    }

    /// The tenant's name; `None` if this is the operator.
    pub fn tenant(&self) -> Option<&TenantName> {
        self.0.as_ref().map(|tenant| &tenant.name)
    }

    /// From now on it may have so much. What it has stays.
    pub fn set_quotas(&self, quotas: Quotas) {
        if let Some(tenant) = &self.0 {
            tenant.quotas.store(Arc::new(quotas));
        }
    }

    /// What it may have.
    pub(super) fn quotas(&self) -> Quotas {
        let quotas = self.0.as_ref().map(|tenant| **tenant.quotas.load());
        quotas.unwrap_or_default()
    }

    /// Requests of its that were admitted and not answered.
    pub fn requests_in_flight(&self) -> usize {
        let tenant = self.0.as_ref();
        tenant.map_or(0, |tenant| tenant.in_flight.load(Ordering::Relaxed))
    }

    /// Lets one more of its requests in, if it may have so many.
    pub(super) fn enter(&self) -> Result<Counted<'_>, Error> {
        let Some(tenant) = &self.0 else {
            return Ok(Counted(None));
        };
        let counted = Counted(Some(tenant));
        let before = tenant.in_flight.fetch_add(1, Ordering::Relaxed);
        match tenant.quotas.load().requests_in_flight {
            Some(most) if before >= most => {
                let message =
                    format!("The tenant has {most} requests in flight, which is its quota");
                Err(Error::new(Kind::Throttled, message))
            }
            _ => Ok(counted),
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(tenant) = self.0 {
            tenant.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether there is room for one more version beside those in `models`.
pub(super) fn check_room(models: &Models, quotas: &Quotas, entry: &Entry) -> Result<(), Error> {
    let has_model = models.contains_key(entry.spec().name.as_str());
    check(
        "models",
        models.len(),
        usize::from(!has_model),
        quotas.models,
    )?;
    let versions = models.values().map(|model| model.versions.len()).sum();
    check("versions", versions, 1, quotas.versions)?;
    check_workers(models, quotas, entry, entry.promised_workers())
}

/// Whether there is room for so many workers of `entry` beside those of the other versions.
pub(super) fn check_workers(
    models: &Models,
    quotas: &Quotas,
    entry: &Entry,
    workers: usize,
) -> Result<(), Error> {
    let versions = models.values().flat_map(|model| &model.versions);
    let others = versions.filter(|other| !std::ptr::eq(&raw const ***other, entry));
    let others = others.map(|other| other.promised_workers()).sum();
    check("workers", others, workers, quotas.workers)
}

fn check(what: &str, has: usize, more: usize, quota: Option<usize>) -> Result<(), Error> {
    match quota {
        Some(quota) if more > 0 && has.saturating_add(more) > quota => {
            let message = format!(
                "The tenant's quota is {quota} {what}: it has {has}, and this asks for {more} more"
            );
            Err(Error::new(Kind::OverQuota, message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_beyond_the_quota_are_refused_and_none_is_lost_count_of() {
        let owner = Owner::tenant_with(
            TenantName::new("a").unwrap(),
            Quotas {
                requests_in_flight: Some(2),
                ..Quotas::default()
            },
        );
        let held = [owner.enter().unwrap(), owner.enter().unwrap()];
        let refused = owner.enter().map(drop).unwrap_err();
        assert_eq!(refused.kind(), Kind::Throttled);
        assert!(
            refused.message().contains("2 requests in flight"),
            "{refused}"
        );
        assert_eq!(owner.requests_in_flight(), 2);
        owner.set_quotas(Quotas::default());
        drop(owner.enter().unwrap());
        drop(held);
        assert_eq!(owner.requests_in_flight(), 0);
        assert!(Owner::default().enter().is_ok());
    }
}
