//! The archive's files, read-only.

pub use crate::bindings::lantern::handler::assets::{Asset, AssetError};
use crate::{Error, imports};

/// Most bytes that one call to the host copies.
const PIECE: u32 = 1 << 20;

/// The files of the archive, with sizes in bytes.
pub fn list() -> Vec<Asset> {
    imports::list_assets()
}

/// The whole of the file `name`; `None` if the archive has no such file.
///
/// # Errors
/// Internal, if the host refuses the size of a piece.
pub fn find(name: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = Vec::new();
    loop {
        match read_range(name, bytes.len() as u64, PIECE) {
            Ok(piece) if piece.is_empty() => return Ok(Some(bytes)),
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(AssetError::NotFound) => return Ok(None),
            Err(AssetError::TooLarge) => {
                return Err(Error::internal(format!("asset `{name}`: piece too large")));
            }
        }
    }
}

/// The whole of the file `name`.
///
/// # Errors
/// Internal, naming the file, if the archive has no such file.
///
/// ```
/// use handler_sdk::{assets, testing::Host};
///
/// let host = Host::new().asset("labels.txt", "zero\none\n");
/// assert_eq!(assets::read("labels.txt")?, b"zero\none\n");
/// assert!(assets::read("other.txt").unwrap_err().message().contains("`other.txt`"));
/// # drop(host);
/// # Ok::<(), handler_sdk::Error>(())
/// ```
pub fn read(name: &str) -> Result<Vec<u8>, Error> {
    find(name)?.ok_or_else(|| Error::internal(format!("the archive has no file `{name}`")))
}

/// At most `max` bytes of `name` from `offset`: one call to the host. Empty at the end of the file.
///
/// # Errors
/// The host's own: the archive has no such file, or `max` is over the host's limit.
pub fn read_range(name: &str, offset: u64, max: u32) -> Result<Vec<u8>, AssetError> {
    imports::read_asset(name, offset, max)
}
