//! The functions of the host: those of the interface in a component, an in-memory host elsewhere.
//!
//! Both sides have the same functions; the wrappers in [`assets`](crate::assets), [`log`](crate::log) and
//! [`metrics`](crate::metrics) know only this module.

#[cfg(target_family = "wasm")]
mod component;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod memory;

#[cfg(target_family = "wasm")]
pub(crate) use component::{Metric, list_assets, log, log_enabled, read_asset};
#[cfg(not(target_family = "wasm"))]
pub(crate) use memory::{Metric, list_assets, log, log_enabled, read_asset};
