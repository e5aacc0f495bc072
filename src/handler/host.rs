//! What belongs to one store: its limits, the call under way, captured output and the resources of the guest.
//!
//! The host functions of each interface are in modules of their own; they all begin with [`Host::charge`].

use std::sync::Arc;

use crate::model::Limits;

use super::Sink;
use super::assets::Assets;
use super::fault::Exceeded;
use super::limiter::MemoryLimiter;
use super::logging::{LogGate, LogQuota};
use super::meter::Meter;
use super::metrics::{MetricTable, Series};
use super::tensors::TensorTable;
use super::wasi::Output;

/// What all instances of one handler share.
pub(super) struct Shared {
    pub limits: Limits,
    pub sink: Arc<dyn Sink>,
    pub assets: Assets,
    pub log_gate: LogGate,
    pub series: Series,
}

/// Data of one store.
pub(super) struct Host {
    pub shared: Arc<Shared>,
    pub limiter: MemoryLimiter,
    pub meter: Arc<Meter>,
    pub tensors: TensorTable,
    pub metrics: MetricTable,
    pub stdout: Output,
    pub stderr: Output,
    /// What the call may still log.
    pub log_quota: LogQuota,
    /// The request in whose call the guest runs; empty in `init`.
    pub request_id: String,
    calls_made: u64,
}

impl Host {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            limiter: MemoryLimiter::new(shared.limits.memory),
            meter: Arc::default(),
            tensors: TensorTable::default(),
            metrics: MetricTable::default(),
            stdout: Output::default(),
            stderr: Output::default(),
            log_quota: LogQuota::default(),
            request_id: String::new(),
            calls_made: 0,
            shared,
        }
    }

    /// Starts the account of a call.
    pub fn begin(&mut self, request_id: &str) {
        self.request_id.clear();
        self.request_id.push_str(request_id);
        self.calls_made = 0;
        self.log_quota = LogQuota::default();
        self.limiter.forget_refusals();
    }

    /// Releases what belonged to the call, and hands over what it printed.
    pub fn end(&mut self, has_failed: bool) {
        self.tensors.clear();
        self.flush_output(has_failed);
    }

    /// Counts a call to the host.
    pub fn charge(&mut self) -> wasmtime::Result<()> {
        self.calls_made += 1;
        let limit = self.shared.limits.host_calls;
        if self.calls_made > limit {
            return Err(Exceeded::HostCalls(limit).into());
        }
        Ok(())
    }
}
