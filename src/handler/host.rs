//! What belongs to one store: its limits, the call under way, captured output and the resources of the guest.
//!
//! The host functions of each interface are in modules of their own; they all begin with [`Host::charge`].

use std::sync::Arc;

use crate::model::Limits;

use super::Sink;
use super::assets::Assets;
use super::cpu_meter::CpuMeter;
use super::fault::Exceeded;
use super::limiter::MemoryLimiter;
use super::logging::{LogGate, LogQuota};
use super::metrics::{MetricTable, Series};
use super::tensors::TensorTable;
use super::wasi::Output;

/// What all instances of one handler share.
pub(super) struct HandlerState {
    pub limits: Limits,
    pub sink: Arc<dyn Sink>,
    pub assets: Assets,
    pub log_gate: LogGate,
    /// Limits the lines about requests that failed outside of the handler.
    pub failure_gate: LogGate,
    pub series: Series,
}

/// What host functions find in the store that they are called from.
pub(super) struct Host {
    pub shared: Arc<HandlerState>,
    pub limiter: MemoryLimiter,
    pub meter: Arc<CpuMeter>,
    pub tensors: TensorTable,
    pub metrics: MetricTable,
    pub stdout: Output,
    pub stderr: Output,
    /// How much the call may still log.
    pub log_quota: LogQuota,
    /// Id of the request whose call runs; empty in `init`.
    pub request_id: String,
    calls_made: u64,
}

impl Host {
    pub fn new(shared: Arc<HandlerState>) -> Self {
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

    /// Resets what is counted per call.
    pub fn begin(&mut self, request_id: &str) {
        self.request_id.clear();
        self.request_id.push_str(request_id);
        self.calls_made = 0;
        self.log_quota = LogQuota::default();
        self.limiter.forget_refusals();
    }

    /// Releases the call's resources, and sends what it printed to the log.
    pub fn end(&mut self, has_failed: bool) {
        self.tensors.clear();
        self.flush_output(has_failed);
    }

    /// Counts a call to the host, and fails once there were more than the limit.
    pub fn charge(&mut self) -> wasmtime::Result<()> {
        self.calls_made += 1;
        let limit = self.shared.limits.host_calls;
        if self.calls_made > limit {
            return Err(Exceeded::HostCalls(limit).into());
        }
        Ok(())
    }
}
