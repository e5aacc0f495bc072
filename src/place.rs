//! Directories of this server's own: made where they are missing, closed to other users, tried before they are relied on.
//!
//! Whoever can write to such a directory decides which code runs and which model answers. So where others can write, the
//! server uses a directory of its own inside. This module does not know what is kept in them.

use std::fs::{self, DirBuilder, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Bytes that a directory must take: more than a full file system may still find room for.
const TRIED: usize = 64 << 10;

/// What directories of this user's are called among those of others.
pub fn own_name() -> String {
    format!("lantern-{}", user())
}

/// The directory at `path` if it is this user's and closed to others, else one in it that is. Either is made where it is
/// missing.
pub fn own(path: &Path) -> io::Result<PathBuf> {
    let path = followed(path);
    make(&path)?;
    let found = fs::symlink_metadata(&path)?;
    if is_private(&found) {
        return Ok(path);
    }
    if !found.is_dir() {
        return Err(refused(
            "it must be a directory, and no link that others can change",
        ));
    }
    let own = path.join(own_name());
    make(&own)?;
    if is_private(&fs::symlink_metadata(&own)?) {
        return Ok(own);
    }
    Err(refused(
        "it must be a directory of this user's that others cannot write to",
    ))
}

/// Whether others than this user, root and the file's group decide what is in a file.
pub fn is_others(found: &Metadata) -> bool {
    let is_ours = found.uid() == user() || found.uid() == 0;
    !is_ours || found.mode() & 0o002 != 0
}

/// Fails unless a file in `directory` can be made and written.
pub fn try_writing(directory: &Path) -> io::Result<()> {
    tempfile::tempfile_in(directory)?.write_all(&vec![0; TRIED])
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Where a link leads. One that lies where others can write is not followed: they can make it lead anywhere.
fn followed(path: &Path) -> PathBuf {
    let parent = path.parent().and_then(|parent| fs::metadata(parent).ok());
    let is_trusted = parent
        .is_some_and(|parent| (parent.uid() == user() || parent.uid() == 0) && !is_open(&parent));
    let followed = is_trusted.then(|| fs::canonicalize(path).ok()).flatten();
    followed.unwrap_or_else(|| path.to_owned())
}

fn is_private(found: &Metadata) -> bool {
    found.is_dir() && found.uid() == user() && !is_open(found)
}

/// Whether others than its owner can write to it.
fn is_open(found: &Metadata) -> bool {
    found.mode() & 0o022 != 0
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn refused(rule: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, rule)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn shared(path: &Path, mode: u32) {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_is_missing_is_made_for_this_user_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        assert_eq!(own(&path).unwrap(), path);
        assert_eq!(own(&path).unwrap(), path, "the second time");
        assert_eq!(mode(&path), 0o700);
        try_writing(&path).unwrap();
        assert_eq!(fs::read_dir(path).unwrap().count(), 0);
    }

    #[test]
    fn in_a_shared_directory_there_is_one_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        for shared_mode in [0o777, 0o1777, 0o2770, 0o775] {
            let path = root.path().join(format!("{shared_mode:o}"));
            shared(&path, shared_mode);
            let own_path = own(&path).unwrap();
            assert_eq!(own_path, path.join(own_name()));
            assert_eq!(own(&path).unwrap(), own_path, "the second time");
            assert_eq!(mode(&own_path) & 0o777, 0o700);
            assert_eq!(mode(&path), shared_mode, "what is shared stays as it is");
        }
    }

    #[test]
    fn what_others_can_change_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (common, real) = (root.path().join("common"), root.path().join("real"));
        shared(&common, 0o777);
        shared(&real, 0o700);
        symlink(&real, common.join("link")).unwrap();
        assert!(own(&common.join("link")).is_err());
        shared(&common.join(own_name()), 0o777);
        assert!(own(&common).is_err());
        fs::write(root.path().join("file"), "").unwrap();
        assert!(own(&root.path().join("file")).is_err());
    }

    #[test]
    fn a_link_of_the_operators_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("real");
        shared(&real, 0o700);
        symlink(&real, root.path().join("link")).unwrap();
        let real = fs::canonicalize(real).unwrap();
        assert_eq!(own(&root.path().join("link")).unwrap(), real);
    }
}
