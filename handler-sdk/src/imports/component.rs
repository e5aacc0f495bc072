//! The imports of the component.

pub(crate) use crate::bindings::lantern::handler::assets::{
    list as list_assets, read as read_asset,
};
pub(crate) use crate::bindings::lantern::handler::logging::{enabled as log_enabled, log};
pub(crate) use crate::bindings::lantern::handler::metrics::Metric;
