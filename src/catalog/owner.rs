//! Whose models a catalog holds, and how much of everything that owner may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::Models;
use super::entry::Entry;
use crate::config::tenants::Quotas;
use crate::error::{Error, Kind};
use crate::model::TenantName;
use crate::payload::Body;

mod bucket;

use bucket::{Bucket, Rate};

/// The operator, or a tenant.
#[derive(Debug, Default)]
pub struct Owner(Option<Tenant>);

#[derive(Debug)]
struct Tenant {
    name: TenantName,
    quotas: ArcSwap<Quotas>,
    /// What the buckets' time is counted from.
    since: Instant,
    requests: Bucket,
    bytes: Bucket,
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
            since: Instant::now(),
            requests: Bucket::default(),
            bytes: Bucket::default(),
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

    /// Lets one more of its requests in, with this body, if that is within its quotas.
    pub(super) fn enter(&self, body: &Body) -> Result<Counted<'_>, Error> {
        let Some(tenant) = &self.0 else {
            return Ok(Counted(None));
        };
        let quotas = **tenant.quotas.load();
        let counted = Counted(Some(tenant));
        let before = tenant.in_flight.fetch_add(1, Ordering::Relaxed);
        if let Some(most) = quotas.requests_in_flight.filter(|most| before >= *most) {
            return Err(throttled(&format!("has {most} requests in flight")));
        }
        let now = tenant.since.elapsed();
        if let Some(per_second) = quotas.requests_per_second {
            let burst = quotas.requests_burst.unwrap_or(per_second);
            let put = tenant.requests.put(1, Rate { per_second, burst }, now);
            put.map_err(|wait| {
                throttled(&format!("sends more than {per_second} requests a second"))
                    .with_retry_after(wait)
            })?;
        }
        if let Some(per_second) = quotas.body_bytes_per_second {
            let rate = Rate {
                per_second,
                burst: per_second,
            };
            tenant.bytes.put(body.bytes(), rate, now).map_err(|wait| {
                throttled(&format!("sends more than {per_second} bytes a second"))
                    .with_retry_after(wait)
            })?;
        }
        Ok(counted)
    }
}

fn throttled(what: &str) -> Error {
    Error::new(
        Kind::Throttled,
        format!("The tenant {what}, which is its quota"),
    )
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

/// Whether there is room for so many workers of `entry`, which is among `models` or is to be, beside those of the other versions. A quota that
/// was lowered keeps nobody from giving some back.
pub(super) fn check_workers(
    models: &Models,
    quotas: &Quotas,
    entry: &Entry,
    workers: usize,
) -> Result<(), Error> {
    let is_it = |other: &&Arc<Entry>| std::ptr::eq(&raw const ***other, entry);
    let versions = models.values().flat_map(|model| &model.versions);
    let (own, others): (Vec<_>, Vec<_>) = versions.partition(is_it);
    let has = own.first().map_or(0, |own| own.promised_workers());
    let more = workers.saturating_sub(has);
    let others: usize = others.iter().map(|other| other.promised_workers()).sum();
    check("workers", others + has, more, quotas.workers)
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

    fn owner(quotas: Quotas) -> Owner {
        Owner::tenant_with(TenantName::new("a").unwrap(), quotas)
    }

    fn body(bytes: usize) -> Body {
        Body::Raw(vec![0; bytes].into())
    }

    fn refused(owner: &Owner, bytes: usize) -> Error {
        let refused = owner.enter(&body(bytes)).map(drop).unwrap_err();
        assert_eq!(refused.kind(), Kind::Throttled);
        refused
    }

    #[test]
    fn requests_beyond_the_quota_are_refused_and_none_is_lost_count_of() {
        let owner = owner(Quotas {
            requests_in_flight: Some(2),
            ..Quotas::default()
        });
        let held = [
            owner.enter(&body(0)).unwrap(),
            owner.enter(&body(0)).unwrap(),
        ];
        let error = refused(&owner, 0);
        assert!(error.message().contains("2 requests in flight"), "{error}");
        assert_eq!(owner.requests_in_flight(), 2);
        owner.set_quotas(Quotas::default());
        drop(owner.enter(&body(0)).unwrap());
        drop(held);
        assert_eq!(owner.requests_in_flight(), 0);
        assert!(Owner::default().enter(&body(0)).is_ok());
    }

    #[test]
    fn what_comes_too_fast_is_told_how_long_to_wait() {
        let owner_of_requests = owner(Quotas {
            requests_per_second: Some(1),
            requests_burst: Some(2),
            ..Quotas::default()
        });
        for _ in 0..2 {
            drop(owner_of_requests.enter(&body(0)).unwrap());
        }
        let error = refused(&owner_of_requests, 0);
        assert!(error.message().contains("1 requests a second"), "{error}");
        assert_eq!(error.retry_after().unwrap().as_secs(), 1);
        let owner_of_bytes = owner(Quotas {
            body_bytes_per_second: Some(100),
            ..Quotas::default()
        });
        drop(owner_of_bytes.enter(&body(1000)).unwrap());
        let error = refused(&owner_of_bytes, 1);
        assert!(error.message().contains("100 bytes a second"), "{error}");
        let wait = error.retry_after().unwrap().as_secs();
        assert!((9..=10).contains(&wait), "{wait}");
        assert_eq!(owner_of_bytes.requests_in_flight(), 0);
    }
}
