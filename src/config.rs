//! Settings: what was typed (raw) becomes what is meant (resolved), with every problem reported at once.
//!
//! [`metrics`] reads `metrics.yaml`, [`tenants`] `tenants.yaml`, [`model`] an archive's `model-config.yaml`, [`server`] the command line, the environment and
//! `config.properties`. Only this module and `cli` read the environment. It opens no archive and starts nothing.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub mod metrics;
pub mod model;
pub mod server;
pub mod snapshot;
pub mod tenants;

mod problem;
mod properties;
mod spelling;
mod units;
mod yaml;

pub use problem::{Problem, Problems};
pub use units::show_size;
