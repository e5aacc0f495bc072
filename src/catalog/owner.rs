//! Whose models a catalog holds, and how much of everything that owner may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::Models;
use super::entry::Entry;
use crate::config::model::LimitOptions;
use crate::config::tenants::Quotas;
use crate::error::{Error, Kind};
use crate::fair_queue::{Breadth, Lane, Party, Turn};
use crate::metrics::Outcome;
use crate::model::TenantName;
use crate::nanos::nanos;
use crate::payload::{Body, Priority, Reply, Spent};
use crate::signing::Signers;

mod balances;
mod bucket;
mod usage;

pub(super) use balances::Computing;

use balances::Balances;
use bucket::{Bucket, Rate};
pub use usage::Usage;
use usage::{RequestQuota, UsageCounts};

/// The operator, or a tenant.
#[derive(Debug, Default)]
pub struct Owner {
    tenant: Option<Tenant>,
    /// `None` where there are no tenants, and nothing to share.
    common: Option<Common>,
}

/// What each owner has where there are several.
#[derive(Debug)]
struct Common {
    party: Party,
    weight: Arc<AtomicU32>,
    usage: UsageCounts,
    balances: Balances,
}

#[derive(Debug)]
struct Tenant {
    name: TenantName,
    quotas: ArcSwap<Quotas>,
    /// The most that its handlers and processes may be given.
    ceilings: ArcSwap<LimitOptions>,
    signers: ArcSwap<Signers>,
    /// What archives may be fetched from.
    sources: ArcSwap<Vec<String>>,
    /// What the buckets' time is counted from.
    since: Instant,
    requests: Bucket,
    bytes: Bucket,
    /// In nanoseconds.
    handler: Bucket,
    /// In nanoseconds.
    inference: Bucket,
    /// Requests that were admitted and not answered.
    in_flight: AtomicUsize,
    /// Bytes of memory that what loads is going to use.
    memory: Mutex<u64>,
}

/// One request of an owner's, counted until it is dropped.
pub(super) struct Counted<'a>(Option<&'a Tenant>);

impl Owner {
    /// The operator beside tenants.
    pub fn operator_with(party: Party) -> Self {
        Self {
            tenant: None,
            common: Some(Common::new(party)),
        }
    }

    /// A tenant that may have anything until it is said how much.
    pub fn tenant_with(name: TenantName, party: Party) -> Self {
        let tenant = Tenant {
            name,
            quotas: ArcSwap::default(),
            ceilings: ArcSwap::default(),
            signers: ArcSwap::default(),
            sources: ArcSwap::default(),
            since: Instant::now(),
            requests: Bucket::default(),
            bytes: Bucket::default(),
            handler: Bucket::default(),
            inference: Bucket::default(),
            in_flight: AtomicUsize::new(0),
            memory: Mutex::default(),
        };
        Self {
            tenant: Some(tenant),
            common: Some(Common::new(party)),
        }
    }

    /// The tenant's name; `None` if this is the operator.
    pub fn tenant(&self) -> Option<&TenantName> {
        self.tenant.as_ref().map(|tenant| &tenant.name)
    }

    /// From now on it may have so much. What it has stays.
    pub fn set_quotas(&self, quotas: Quotas) {
        if let Some(tenant) = &self.tenant {
            tenant.set_quotas(quotas);
        }
    }

    /// From now on its handlers and processes may be given no more than this. What is registered stays.
    pub fn set_ceilings(&self, ceilings: LimitOptions) {
        if let Some(tenant) = &self.tenant {
            tenant.ceilings.store(Arc::new(ceilings));
        }
    }

    /// The most that its handlers and processes may be given. No process may have more memory than all of its.
    pub(super) fn ceilings(&self) -> LimitOptions {
        let Some(tenant) = &self.tenant else {
            return LimitOptions::default();
        };
        let mut ceilings = (**tenant.ceilings.load()).clone();
        let memory = [ceilings.process_memory, self.quotas().worker_memory];
        ceilings.process_memory = memory.into_iter().flatten().min();
        ceilings
    }

    /// What worker processes are weighed by.
    pub fn processor_weight(&self) -> Option<Arc<AtomicU32>> {
        self.common
            .as_ref()
            .map(|common| Arc::clone(&common.weight))
    }

    /// Its part of the machine beside others'.
    pub fn weight(&self) -> u32 {
        let common = self.common.as_ref();
        common.map_or(1, |common| common.weight.load(Ordering::Relaxed))
    }

    /// From now on it has a part of the machine as this says.
    pub fn set_weight(&self, weight: u32) {
        if let Some(common) = &self.common {
            common.weight.store(weight, Ordering::Relaxed);
            common.party.set_weight(weight);
        }
    }

    /// What it has used since it came; `None` where there are no tenants.
    pub fn usage(&self) -> Option<Usage> {
        self.common.as_ref().map(|common| common.usage.so_far())
    }

    /// Requests of its that wait for its turn.
    pub fn requests_queued(&self) -> usize {
        let common = self.common.as_ref();
        common.map_or(0, |common| common.party.waiting())
    }

    /// A lane for one of its versions; `None` where nothing is shared.
    pub(super) fn lane(&self) -> Option<Lane> {
        self.common.as_ref().map(|common| common.party.lane())
    }

    /// From now on archives may be fetched from there, as `allowed_urls` says it.
    pub fn set_sources(&self, sources: Vec<String>) {
        if let Some(tenant) = &self.tenant {
            tenant.sources.store(Arc::new(sources));
        }
    }

    /// What archives may be fetched from, if the owner has a list of its own.
    pub(super) fn sources(&self) -> Option<Arc<Vec<String>>> {
        self.tenant
            .as_ref()
            .map(|tenant| tenant.sources.load_full())
    }

    /// From now on what it registers must be signed by one of these. What it has stays.
    pub fn set_signers(&self, signers: Signers) {
        if let Some(tenant) = &self.tenant {
            tenant.signers.store(Arc::new(signers));
        }
    }

    /// Whose archives it may register.
    pub(super) fn signers(&self) -> Arc<Signers> {
        let signers = self
            .tenant
            .as_ref()
            .map(|tenant| tenant.signers.load_full());
        signers.unwrap_or_default()
    }

    /// What it may have.
    pub fn quotas(&self) -> Quotas {
        let quotas = self.tenant.as_ref().map(|tenant| **tenant.quotas.load());
        quotas.unwrap_or_default()
    }

    /// Requests of its that were admitted and not answered.
    pub fn requests_in_flight(&self) -> usize {
        let tenant = self.tenant.as_ref();
        tenant.map_or(0, |tenant| tenant.in_flight.load(Ordering::Relaxed))
    }

    /// Lets one more of its requests in, with this body, if that is within its quotas.
    pub(super) fn enter(&self, body: &Body) -> Result<Counted<'_>, Error> {
        let Some(common) = &self.common else {
            return Ok(Counted(None));
        };
        let counted = match &self.tenant {
            Some(tenant) => tenant.enter(body).map_err(|(quota, error)| {
                common.usage.refused(quota);
                error
            })?,
            None => Counted(None),
        };
        common.usage.received(body.bytes());
        Ok(counted)
    }

    /// Waits until it is its turn to have one more request of `lane` computed.
    pub(super) async fn turn(
        &self,
        lane: &Lane,
        breadth: Breadth,
        priority: Priority,
    ) -> Result<Turn, Error> {
        let most = self.quotas().requests_queued;
        lane.turn(breadth, priority, most).await.map_err(|_| {
            if let Some(common) = &self.common {
                common.usage.refused(RequestQuota::Queued);
            }
            throttled(&format!("has {} requests waiting", most.unwrap_or(0)))
        })
    }

    /// A request of its used so much, and its turn has cost so much. What is over the quota of a second keeps later requests waiting.
    pub(super) fn used(&self, spent: Spent, cost: Duration) {
        if let Some(common) = &self.common {
            common.usage.spent(spent);
            common.balances.ended(spent.total(), cost);
        }
        self.count_against_quotas(spent);
    }

    fn count_against_quotas(&self, spent: Spent) {
        let Some(tenant) = &self.tenant else {
            return;
        };
        let (quotas, now) = (tenant.quotas.load(), tenant.since.elapsed());
        for (time, quota, bucket) in [
            (
                spent.handler,
                quotas.handler_time_per_second,
                &tenant.handler,
            ),
            (
                spent.inference,
                quotas.inference_time_per_second,
                &tenant.inference,
            ),
        ] {
            if let Some(quota) = quota {
                bucket.pour(amount(time), of_time(quota), now);
            }
        }
    }

    /// A request of its was answered.
    pub(super) fn answered(&self, reply: &Reply) {
        if let Some(common) = &self.common {
            common.usage.answered(reply);
        }
    }

    /// A request of its ended otherwise.
    pub(super) fn ended(&self, outcome: Outcome) {
        if let Some(common) = &self.common {
            common.usage.ended(outcome);
        }
    }

    /// Changes how much memory is promised to what loads. Returns how much it was before.
    pub(super) fn promise_memory(&self, change: impl FnOnce(u64) -> u64) -> u64 {
        let Some(tenant) = &self.tenant else {
            return 0;
        };
        let mut promised = tenant.memory.lock();
        let after = change(*promised);
        std::mem::replace(&mut *promised, after)
    }

    /// A request of its is computed from now on, until what is returned is dropped.
    pub(super) fn computing(&self) -> Computing<'_> {
        let common = self.common.as_ref();
        Computing::begin(common.map(|common| &common.balances))
    }

    /// Its worker processes used so much CPU time since the last time, and held so much memory for so long. Of what they used more than its
    /// requests said and cost, or are going to, it pays the rest here: those of clients that left, runs that failed, loading, and what a
    /// process conceals.
    pub(super) fn sampled(&self, cpu: Duration, bytes: u64, held: Duration) {
        let Some(common) = &self.common else {
            return;
        };
        common.usage.sampled(cpu, bytes, held);
        let (unpaid, untold) = common.balances.settle(cpu);
        common.party.charge(unpaid);
        self.count_against_quotas(Spent {
            handler: untold,
            inference: untold,
        });
    }
}

impl Common {
    fn new(party: Party) -> Self {
        Self {
            party,
            weight: Arc::new(AtomicU32::new(1)),
            usage: UsageCounts::default(),
            balances: Balances::new(),
        }
    }
}

impl Tenant {
    fn set_quotas(&self, quotas: Quotas) {
        let (before, now) = (self.quotas.swap(Arc::new(quotas)), self.since.elapsed());
        let rates = |quotas: &Quotas| {
            [
                quotas.requests_rate(),
                quotas.body_bytes_per_second.map(Rate::even),
                quotas.handler_time_per_second.map(of_time),
                quotas.inference_time_per_second.map(of_time),
            ]
        };
        let buckets = [&self.requests, &self.bytes, &self.handler, &self.inference];
        for (bucket, (before, after)) in buckets
            .into_iter()
            .zip(rates(&before).into_iter().zip(rates(&quotas)))
        {
            if before != after {
                bucket.change(before, after, now);
            }
        }
    }

    fn enter(&self, body: &Body) -> Result<Counted<'_>, (RequestQuota, Error)> {
        let quotas = **self.quotas.load();
        let counted = Counted(Some(self));
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if let Some(most) = quotas.requests_in_flight.filter(|most| before >= *most) {
            let error = throttled(&format!("has {most} requests in flight"));
            return Err((RequestQuota::InFlight, error));
        }
        let now = self.since.elapsed();
        let over = |quota, what: String, wait| (quota, throttled(&what).with_retry_after(wait));
        if let Some(quota) = quotas.handler_time_per_second {
            self.handler.put(0, of_time(quota), now).map_err(|wait| {
                over(
                    RequestQuota::HandlerTime,
                    format!("uses more than {quota:?} of its handlers' time a second"),
                    wait,
                )
            })?;
        }
        if let Some(quota) = quotas.inference_time_per_second {
            self.inference.put(0, of_time(quota), now).map_err(|wait| {
                over(
                    RequestQuota::InferenceTime,
                    format!("uses more than {quota:?} of its models' time a second"),
                    wait,
                )
            })?;
        }
        if let Some(rate) = quotas.requests_rate() {
            self.requests.put(1, rate, now).map_err(|wait| {
                over(
                    RequestQuota::PerSecond,
                    format!("sends more than {} requests a second", rate.per_second),
                    wait,
                )
            })?;
        }
        if let Some(quota) = quotas.body_bytes_per_second {
            self.bytes
                .put(body.bytes(), Rate::even(quota), now)
                .map_err(|wait| {
                    over(
                        RequestQuota::BodyBytes,
                        format!("sends more than {quota} bytes a second"),
                        wait,
                    )
                })?;
        }
        Ok(counted)
    }
}

impl Quotas {
    fn requests_rate(&self) -> Option<Rate> {
        let per_second = self.requests_per_second?;
        let burst = self.requests_burst.unwrap_or(per_second);
        Some(Rate { per_second, burst })
    }
}

/// A quota of time in a second, in nanoseconds.
fn of_time(quota: Duration) -> Rate {
    Rate::even(amount(quota).max(1))
}

/// Nanoseconds, as a bucket counts.
fn amount(time: Duration) -> usize {
    usize::try_from(nanos(time)).unwrap_or(usize::MAX)
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
    use crate::fair_queue::FairQueue;

    fn owner(quotas: Quotas) -> Owner {
        let party = FairQueue::new(1).party(1);
        let owner = Owner::tenant_with(TenantName::new("a").unwrap(), party);
        owner.set_quotas(quotas);
        owner
    }

    fn body(bytes: usize) -> Body {
        Body::Raw(vec![0; bytes].into())
    }

    fn refused(owner: &Owner, bytes: usize) -> Error {
        let refused = owner.enter(&body(bytes)).map(drop).unwrap_err();
        assert_eq!(refused.kind(), Kind::Throttled);
        refused
    }

    #[tokio::test]
    async fn requests_beyond_the_quota_are_refused_and_none_is_lost_count_of() {
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

    #[tokio::test]
    async fn what_comes_too_fast_is_told_how_long_to_wait() {
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

    #[tokio::test]
    async fn time_that_was_used_beyond_the_quota_is_waited_for() {
        let owner = owner(Quotas {
            handler_time_per_second: Some(Duration::from_millis(500)),
            ..Quotas::default()
        });
        drop(owner.enter(&body(0)).unwrap());
        let spent = Spent {
            handler: Duration::from_secs(2),
            inference: Duration::from_secs(100),
        };
        owner.used(spent, spent.total());
        let error = refused(&owner, 0);
        assert!(
            error.message().contains("500ms of its handlers' time"),
            "{error}"
        );
        // Two seconds' worth of time take four, of which one is the burst.
        let wait = error.retry_after().unwrap().as_secs();
        assert!((2..=3).contains(&wait), "{wait}");
        let usage = owner.usage().unwrap();
        assert_eq!(usage.refusals.handler_time_per_second, 1);
        assert!((usage.handler_seconds - 2.0).abs() < 1e-9);
    }

    #[tokio::test]
    async fn what_a_process_conceals_is_paid_as_well() {
        let owner = owner(Quotas {
            inference_time_per_second: Some(Duration::from_secs(1)),
            ..Quotas::default()
        });
        let second = Duration::from_secs(1);
        owner.used(Spent::default(), Duration::ZERO);
        owner.sampled(second * 10, 0, second);
        assert!(refused(&owner, 0).message().contains("its models' time"));
        // What was told already is not paid twice.
        let honest = Owner::tenant_with(TenantName::new("b").unwrap(), FairQueue::new(1).party(1));
        honest.set_quotas(Quotas {
            inference_time_per_second: Some(Duration::from_secs(1)),
            ..Quotas::default()
        });
        let spent = Spent {
            inference: second,
            ..Spent::default()
        };
        honest.used(spent, second);
        honest.sampled(second, 0, second);
        assert!(honest.enter(&body(0)).is_ok());
        // Nor is what a request that is under way is going to tell.
        let computing = honest.computing();
        std::thread::yield_now();
        let so_far = honest.common.as_ref().unwrap().balances.since.elapsed();
        honest.sampled(so_far.min(Duration::from_nanos(1)), 0, second);
        assert_eq!(
            honest
                .common
                .as_ref()
                .unwrap()
                .balances
                .settle(Duration::ZERO),
            Default::default()
        );
        drop(computing);
    }
}
