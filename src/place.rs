//! Directories of this server's own: made where they are missing, closed to other users, tried before they are relied on.
//!
//! Whoever can write to such a directory decides which code runs and which model answers. So where others can write, the
//! server uses a directory of its own inside. Whoever can rename a directory can put another in its place. So each directory
//! above must be one in which others cannot rename what is this user's. This module does not know what is kept in them.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// When a file's content and when its owner, mode or links changed, in nanoseconds, its size and its inode: one of them is another after most
/// changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: u64,
}

impl Stamp {
    /// Of the file that is at `path` now; `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            size: found.size(),
            inode: found.ino(),
        })
    }
}

/// The regular file at `path`, to be read. Anything else fails at once: a pipe would keep whoever reads it for as long as nobody writes.
pub fn regular_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// Bytes that a directory must take: more than a full file system may still find room for.
const TRIED: usize = 64 << 10;

/// What holds of every directory above one of this server's own.
const ABOVE: &str = "each directory above it must belong to this user or to root, and one that others can write to must have \
                     the sticky bit";

/// What directories of this user's are called among those of others.
pub fn own_name() -> String {
    format!("lantern-{}", user())
}

/// The directory at `path` if it is this user's and closed to others, else one in it that is. Either is made where it is
/// missing. Fails where others could put another in its place. There are no links in the path that is returned.
pub fn own(path: &Path) -> io::Result<PathBuf> {
    let path = made(&followed(path))?;
    let found = fs::symlink_metadata(&path)?;
    if is_private(&found) {
        return Ok(path);
    }
    if !found.is_dir() {
        return Err(refused(
            "it must be a directory, and no link that others can change",
        ));
    }
    let own = made(&path.join(own_name()))?;
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

/// Makes the directory at `path`, and those above it, where they are missing, and returns its path without links above it.
/// Nothing is made where others decide what lies above.
fn made(path: &Path) -> io::Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return fs::canonicalize(path);
    };
    let parent = match fs::canonicalize(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => made(parent)?,
        parent => parent?,
    };
    check_above(&parent)?;
    let path = parent.join(name);
    make(&path)?;
    Ok(path)
}

/// Makes one directory, unless there is something by that name.
fn make(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.or_else(|error| fs::symlink_metadata(path).map(|_| ()).map_err(|_| error))
}

/// Fails if others can rename what lies in `directory`, or a directory above it. Its path must be without links. Whoever owns
/// the root of the file system decides everything in it: of that, nothing is asked.
fn check_above(directory: &Path) -> io::Result<()> {
    for directory in directory.ancestors() {
        let Some(parent) = directory.parent() else {
            continue;
        };
        if !Above::of(directory, parent)?.keeps_what_is_of(user()) {
            return Err(refused(ABOVE));
        }
    }
    Ok(())
}

/// What decides whether others can rename what lies in a directory.
#[derive(Debug, Clone, Copy)]
struct Above {
    owner: u32,
    mode: u32,
    /// Whether it is the top of a volume.
    is_volume: bool,
}

impl Above {
    fn of(directory: &Path, parent: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(directory)?;
        Ok(Self {
            owner: found.uid(),
            mode: found.mode(),
            is_volume: found.dev() != fs::symlink_metadata(parent)?.dev(),
        })
    }

    /// Whether nobody but `user`, root and the directory's group can rename what lies in it and is `user`'s. An `emptyDir` of
    /// Kubernetes has mode 0777 without the sticky bit: it is a volume, and who else sees it is the operator's to decide.
    const fn keeps_what_is_of(self, user: u32) -> bool {
        let is_trusted = self.owner == user || self.owner == 0;
        let is_closed = self.mode & 0o002 == 0 || self.mode & 0o1000 != 0;
        is_trusted && (is_closed || self.is_volume)
    }
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

    #[test]
    fn what_may_keep_its_reader_waiting_is_not_opened() {
        let (_root, path) = place();
        let (file, pipe) = (path.join("file"), path.join("pipe"));
        fs::write(&file, "text").unwrap();
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(regular_file(&file).is_ok());
        for other in [&pipe, &path, Path::new("/dev/zero")] {
            let error = regular_file(other).unwrap_err();
            assert_eq!(
                error.to_string(),
                "it is no regular file",
                "{}",
                other.display()
            );
        }
    }

    #[test]
    fn a_file_that_may_be_read_again_is_another_one() {
        let (_root, path) = place();
        let file = path.join("file");
        fs::write(&file, "text").unwrap();
        let before = Stamp::of(&file);
        assert_eq!(Stamp::of(&file), before);
        fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
        assert_ne!(Stamp::of(&file), before);
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    /// A directory, and its path without links.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(root.path()).unwrap();
        (root, path)
    }

    /// Gives a directory to a user that is neither this one nor root. Only root can, so that others skip the test.
    fn given_away(path: &Path) -> bool {
        let given = std::os::unix::fs::chown(path, Some(OTHER), None).is_ok();
        if !given {
            eprintln!("SKIPPED: only root can give directories to other users");
        }
        given
    }

    const OTHER: u32 = 4321;

    #[test]
    fn what_is_missing_is_made_for_this_user_alone() {
        let (_root, root) = place();
        let path = root.join("a/b");
        assert_eq!(own(&path).unwrap(), path);
        assert_eq!(own(&path).unwrap(), path, "the second time");
        assert_eq!(mode(&path), 0o700);
        try_writing(&path).unwrap();
        assert_eq!(fs::read_dir(path).unwrap().count(), 0);
    }

    #[test]
    fn in_a_shared_directory_there_is_one_of_its_own() {
        let (_root, root) = place();
        for shared_mode in [0o1777, 0o3777, 0o2770, 0o2775, 0o775] {
            let path = root.join(format!("{shared_mode:o}"));
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

    fn is_refused_for_what_is_above(path: &Path) -> bool {
        own(path).is_err_and(|error| error.to_string() == ABOVE)
    }

    #[test]
    fn others_must_not_be_able_to_rename_what_is_above() {
        for (mode, is_kept) in [
            (0o700, true),
            (0o755, true),
            (0o775, true),
            (0o2775, true),
            (0o1777, true),
            (0o777, false),
            (0o2777, false),
            (0o702, false),
        ] {
            let (_root, root) = place();
            let above = root.join("above");
            shared(&above, mode);
            for below in ["own", "deep/own"] {
                let path = above.join(below);
                assert_eq!(own(&path).is_ok(), is_kept, "{mode:o} {below}");
                assert_eq!(is_refused_for_what_is_above(&path), !is_kept);
                assert_eq!(path.exists(), is_kept, "{mode:o}: nothing is made");
            }
        }
    }

    #[test]
    fn what_is_there_already_is_no_safer() {
        let (_root, root) = place();
        let (above, path) = (root.join("above"), root.join("above/deep/own"));
        own(&path).unwrap();
        fs::set_permissions(&above, Permissions::from_mode(0o777)).unwrap();
        assert!(is_refused_for_what_is_above(&path));
        fs::set_permissions(&above, Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(own(&path).unwrap(), path);
    }

    #[test]
    fn what_another_user_owns_is_refused_at_every_level() {
        for owned in ["a", "a/b", "a/b/own"] {
            let (_root, root) = place();
            let path = own(&root.join("a/b/own")).unwrap();
            if !given_away(&root.join(owned)) {
                return;
            }
            for mode in [0o755, 0o777, 0o1777] {
                let owned = root.join(owned);
                fs::set_permissions(&owned, Permissions::from_mode(mode)).unwrap();
                assert!(is_refused_for_what_is_above(&path), "{owned:?} {mode:o}");
            }
        }
    }

    /// A directory of the server's among everybody's temporary files that somebody made before its first start.
    #[test]
    fn a_name_that_was_taken_by_another_user_is_refused() {
        let (_root, root) = place();
        shared(&root.join("tmp"), 0o1777);
        let taken = root.join("tmp").join(own_name());
        shared(&taken, 0o755);
        if !given_away(&taken) {
            return;
        }
        assert!(is_refused_for_what_is_above(&taken.join("cache")));
        assert!(is_refused_for_what_is_above(&taken));
        assert!(own(&root.join("tmp")).is_err());
        assert_eq!(fs::read_dir(taken).unwrap().count(), 0, "nothing is made");
    }

    #[test]
    fn a_link_above_counts_for_where_it_leads() {
        let (_root, root) = place();
        shared(&root.join("open"), 0o777);
        shared(&root.join("closed"), 0o700);
        symlink(root.join("open"), root.join("closed/to-open")).unwrap();
        symlink(root.join("closed"), root.join("open/to-closed")).unwrap();
        assert!(is_refused_for_what_is_above(
            &root.join("closed/to-open/own")
        ));
        let through = own(&root.join("open/to-closed/own")).unwrap();
        assert_eq!(
            through,
            root.join("closed/own"),
            "nobody can turn that link"
        );
    }

    #[test]
    fn the_rule_for_what_is_above() {
        let above = |owner, mode, is_volume| Above {
            owner,
            mode,
            is_volume,
        };
        let ours = 1000;
        for (above, is_kept) in [
            (above(ours, 0o755, false), true),
            (above(0, 0o755, false), true),
            (above(OTHER, 0o755, false), false),
            (above(OTHER, 0o1777, false), false),
            (above(0, 0o1777, false), true),
            (above(0, 0o777, false), false),
            (above(0, 0o2775, false), true),
            // The volumes of a pod.
            (above(0, 0o777, true), true),
            (above(0, 0o2777, true), true),
            (above(OTHER, 0o777, true), false),
        ] {
            assert_eq!(above.keeps_what_is_of(ours), is_kept, "{above:?}");
        }
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
