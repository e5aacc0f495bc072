//! Archives: where they are stored, what is in them, and how they are made.
//!
//! A [`ModelStore`] resolves the name that a client gives to a [`Location`] inside the store. A [`Fetcher`] downloads
//! archives from elsewhere into the store. An [`UnpackStore`] unpacks each into a directory of its own and hands out leases
//! on it. [`pack`](pack::pack) makes archives. Archives are not trusted: names, kinds, sizes and counts are checked while one
//! is read, and who signed what was unpacked ([`Origin`]). This is the only module that knows zip and tar; it runs nothing and loads no
//! model.

mod component;
mod contents;
mod digest;
mod entry;
mod error;
mod examine;
mod fetch;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod glimpse;
mod inventory;
mod limits;
mod manifest;
pub mod pack;
mod roots;
mod signature;
mod source;
mod store;
mod summary;
mod unpack;
mod upload;
mod urls;

pub use component::check_handler;
pub use contents::Contents;
pub use entry::EntryName;
pub use error::ArchiveError;
pub use examine::{Examined, examine, inventory};
pub use fetch::{
    Download, FetchConfig, Fetcher, Found, Lookup, NamedBy, Proxies, recover, with_pin,
};
pub use inventory::{ContentsDigest, Inventory, Origin};
pub use limits::UnpackLimits;
pub use manifest::{Manifest, Runtime};
pub use store::{Listing, Location, ModelStore, default_name};
pub use summary::{Summary, read_summary};
pub use unpack::{UnpackStore, Unpacked};
pub use upload::{Stored, Upload, arrived, remove as remove_stored, stored};
pub use urls::{AllowedUrls, check_urls};

/// Path of the manifest in an archive.
pub const MANIFEST: &str = "MAR-INF/MANIFEST.json";
/// Path of the signature in an archive that is signed. It is read and not unpacked.
pub const SIGNATURE: &str = "MAR-INF/SIGNATURE.json";

#[cfg(test)]
mod tests;
