//! Settings: what was typed (raw) becomes what is meant (resolved), with every problem reported at once.
//!
//! [`metrics`] reads `metrics.yaml`, [`model`] an archive's `model-config.yaml`, [`server`] the command line, the environment and
//! `config.properties`. Only this module and `cli` read the environment. It opens no archive and starts nothing.

pub mod metrics;
pub mod model;
pub mod server;
pub mod snapshot;

mod human;
mod nearest;
mod problem;
mod properties;
mod urls;
mod yaml;

pub use human::show_size;
pub use problem::{Problem, Problems};
pub use properties::render as render_property;
pub use urls::{AllowedUrls, BadPlace, Place};
