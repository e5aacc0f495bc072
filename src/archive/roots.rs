//! Which part of this machine archives may lie in: the model store, and what `allowed_urls` names by `file://`.
//!
//! TorchServe follows every link. Here one is followed where it ends in such a part. A path is resolved once, with every link
//! in it, and compared with these parts. What is opened later is the path that was found, and no link is followed then:
//! who puts one into its place meanwhile makes an error and nothing else. Clients cannot make links: nothing that they send
//! becomes one, and archives that hold links are refused.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use super::urls::Rest;

/// A directory, or some of the files in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The directory. It need not exist, and links in its path are followed.
    pub directory: PathBuf,
    /// How the path below it begins.
    pub beginning: String,
    /// How that path goes on.
    pub rest: Rest,
}

/// Where archives may lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots {
    roots: Vec<Root>,
    /// A directory in one of them that nobody may name.
    hidden: Option<PathBuf>,
}

/// Why a path leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub enum Astray {
    /// There is nothing.
    Missing,
    /// A link on the way leads to where nothing may lie.
    Link {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
}

impl Root {
    /// Everything in `directory`.
    pub const fn whole(directory: PathBuf) -> Self {
        Self {
            directory,
            beginning: String::new(),
            rest: Rest::ANYTHING,
        }
    }

    /// What of `real`, which has no links, is below the directory.
    fn below<'p>(&self, real: &'p Path) -> Option<&'p Path> {
        let directory = self.directory.canonicalize().ok()?;
        real.strip_prefix(directory).ok()
    }

    fn holds(&self, real: &Path) -> bool {
        let below = self.below(real).and_then(Path::to_str);
        let after = below.and_then(|below| below.strip_prefix(&self.beginning));
        after.is_some_and(|after| self.rest.fits(after))
    }
}

impl Roots {
    /// These, but for what lies in `hidden`.
    pub const fn new(roots: Vec<Root>, hidden: Option<PathBuf>) -> Self {
        Self { roots, hidden }
    }

    /// These, and everything in `directory`.
    pub fn and(mut self, directory: PathBuf) -> Self {
        self.roots.push(Root::whole(directory));
        self
    }

    /// Whether `real`, which has no links, may be read.
    pub fn hold(&self, real: &Path) -> bool {
        !self.hides(real) && self.roots.iter().any(|root| root.holds(real))
    }

    /// Whether there may be something below the directory `real` that may be read.
    fn lead_through(&self, real: &Path) -> bool {
        !self.hides(real) && self.roots.iter().any(|root| root.below(real).is_some())
    }

    fn hides(&self, real: &Path) -> bool {
        let hidden = self.hidden.as_ref();
        hidden.is_some_and(|hidden| real.starts_with(hidden))
    }

    /// `path` without links, if it leads to what may be read.
    pub fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let real = path.canonicalize().ok()?;
        self.hold(&real).then_some(real)
    }

    /// The path that `name` below `base` leads to. `base` has no links. The first link that leads astray is named, and
    /// nothing is asked of what is behind it: whoever names a path does not learn what there is elsewhere.
    pub fn follow(&self, base: &Path, name: &Path) -> Result<PathBuf, Astray> {
        let (mut typed, mut found) = (base.to_owned(), base.to_owned());
        let mut parts = name.components().peekable();
        while let Some(part) = parts.next() {
            typed.push(part);
            let real = typed.canonicalize();
            let is_last = parts.peek().is_none();
            let may_be = |real: &Path| {
                if is_last {
                    self.hold(real)
                } else {
                    self.lead_through(real)
                }
            };
            found = match real {
                Ok(real) if may_be(&real) => real,
                _ if self.hides(&typed) => return Err(Astray::Missing),
                Ok(target) if target != typed => {
                    return Err(Astray::Link {
                        link: typed,
                        target,
                    });
                }
                Ok(_) => return Err(Astray::Missing),
                Err(_) => return Err(dangling(typed)),
            };
        }
        Ok(found)
    }
}

fn dangling(typed: PathBuf) -> Astray {
    match fs::read_link(&typed) {
        Ok(target) => Astray::Link {
            target: typed.parent().unwrap_or(&typed).join(target),
            link: typed,
        },
        Err(_) => Astray::Missing,
    }
}

/// Opens for reading what `real` named when it was resolved. Fails if there is a link in it by now. Opening a pipe does not
/// block.
pub fn open_resolved(real: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match openat2(CWD, real, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(file) => Ok(file.into()),
        // The kernel is old, or a sandbox around this server refuses the call.
        Err(Errno::NOSYS | Errno::PERM) => open_and_compare(real, flags),
        Err(error) => Err(error.into()),
    }
}

/// Opens a path, and asks the kernel afterwards what was opened.
fn open_and_compare(real: &Path, flags: OFlags) -> io::Result<File> {
    let file = File::from(open(real, flags | OFlags::NOFOLLOW, Mode::empty())?);
    let opened = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if opened == real {
        return Ok(file);
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_opened_is_what_was_resolved() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("store/sub")).unwrap();
        fs::create_dir_all(base.join("secret")).unwrap();
        fs::write(base.join("store/sub/x.mar"), "mine").unwrap();
        fs::write(base.join("secret/x.mar"), "secret").unwrap();
        let real = base.join("store/sub/x.mar");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        assert_eq!(
            io::read_to_string(open_resolved(&real).unwrap()).unwrap(),
            "mine"
        );
        assert!(open_and_compare(&real, flags).is_ok());
        // The file becomes a link, or a directory above it does.
        fs::remove_file(&real).unwrap();
        symlink(base.join("secret/x.mar"), &real).unwrap();
        assert!(open_resolved(&real).is_err() && open_and_compare(&real, flags).is_err());
        fs::remove_dir_all(base.join("store/sub")).unwrap();
        symlink(base.join("secret"), base.join("store/sub")).unwrap();
        assert!(open_resolved(&real).is_err() && open_and_compare(&real, flags).is_err());
    }

    #[test]
    fn a_path_is_followed_as_far_as_it_may_lead() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        for name in ["store/.hidden", "other/deep"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        fs::write(base.join("other/deep/x.mar"), "x").unwrap();
        fs::write(base.join("other/deep/x.key"), "x").unwrap();
        let link =
            |target: &str, name: &str| symlink(target, base.join("store").join(name)).unwrap();
        link("../other/deep", "deep");
        link("deep/x.mar", "twice.mar");
        link("loop.mar", "loop.mar");
        let archives = Root {
            directory: base.join("other"),
            beginning: String::new(),
            rest: Rest::Wild {
                least: 0,
                in_segment: false,
                ending: ".mar".to_owned(),
            },
        };
        let store = base.join("store");
        let roots = vec![Root::whole(store.clone()), archives];
        let roots = Roots::new(roots, Some(store.join(".hidden")));
        let follow = |name: &str| roots.follow(&store, Path::new(name)).ok();
        let found = Some(base.join("other/deep/x.mar"));
        assert_eq!(follow("deep/x.mar"), found);
        assert_eq!(follow("twice.mar"), found);
        for astray in [
            "deep",
            "deep/x.key",
            "deep/nope.mar",
            "loop.mar",
            ".hidden",
            "nope",
        ] {
            assert_eq!(follow(astray), None, "{astray}");
        }
    }
}
