//! Attempts at files: to read what is others', to write anywhere, to see through links, and what has to work.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use lantern::sandbox::Wall::{Landlock, Namespaces, Seccomp, User};

use super::call::{call, path, reach, reached, refused, text, when};
use super::{Attacker, Attempt, attempt, works};

/// Files that everybody may read, and those of the front's user alone.
pub const ATTEMPTS: &[Attempt] = &[
    works("read the own archive", |a| {
        read(a.within.path(&a.targets.archive).join("model"))
    }),
    works("list the own archive", |a| {
        list(a.within.path(&a.targets.archive))
    }),
    works("read random bytes from a device", |_| some("/dev/urandom")),
    works("write to /dev/null", |_| write("/dev/null")),
    works("read about the processor", |_| read("/proc/cpuinfo")),
    works("read about itself", |_| read("/proc/self/status")),
    works("list the scratch directory", |a| {
        a.within.scratch().map_or(Ok(()), |scratch| list(&scratch))
    }),
    works("write to the scratch directory", |a| {
        a.within
            .scratch()
            .map_or(Ok(()), |scratch| make(&scratch.join("file")))
    }),
    attempt(
        "write more than the scratch directory holds",
        &[Namespaces],
        fill_scratch,
    ),
    attempt(
        "map a file of the scratch directory as code",
        &[Namespaces],
        map_code,
    ),
    // What everybody may read.
    attempt("read /etc/passwd", &[Landlock], |_| read("/etc/passwd")),
    attempt("list /etc", &[Landlock], |_| list("/etc")),
    attempt("list /", &[Landlock], |_| list("/")),
    attempt("list /tmp", &[Landlock], |_| list("/tmp")),
    attempt("list /proc", &[Landlock], |_| list("/proc")),
    attempt("list /dev", &[Landlock], |_| list("/dev")),
    attempt("read the machine's network", &[Landlock], |a| {
        read(a.front("net/tcp"))
    }),
    attempt("read an archive of the model store", &[Landlock], |a| {
        read(a.targets.public.join("store/other.mar"))
    }),
    attempt("list the model store", &[Landlock], |a| {
        list(a.targets.public.join("store"))
    }),
    attempt("read what another archive holds", &[Landlock], |a| {
        read(a.targets.public.join("unpacked/model"))
    }),
    attempt(
        "read beside the archive by a descriptor",
        &[Landlock],
        |a| {
            read(
                a.within
                    .path(&a.targets.archive)
                    .join("../public/unpacked/model"),
            )
        },
    ),
    attempt("read through /proc/self/root", &[Landlock], |_| {
        read(["/proc/self", "root", "etc/passwd"].join("/"))
    }),
    attempt(
        "read through a link in the scratch directory",
        &[Landlock, Seccomp],
        |a| through_link(a, symlink_to),
    ),
    attempt(
        "read through a hard link",
        &[Landlock, Seccomp, Namespaces],
        |a| through_link(a, hard_link_to),
    ),
    attempt("read the front's command line", &[Landlock], |a| {
        read(a.front("cmdline"))
    }),
    attempt("read the parent's command line", &[Landlock], |_| {
        read(parent("cmdline"))
    }),
    // What the front's user alone may read.
    attempt("read /etc/shadow", &[Landlock, User], |_| {
        read("/etc/shadow")
    }),
    attempt("read the key file", &[Landlock, User], |a| {
        read(a.targets.private.join("key_file.json"))
    }),
    attempt("read the cache's key", &[Landlock, User], |a| {
        read(a.targets.private.join("cache.key"))
    }),
    attempt("list the cache", &[Landlock, User], |a| {
        list(&a.targets.private)
    }),
    attempt("read the front's environment", &[Landlock, User], |a| {
        read(a.front("environ"))
    }),
    attempt("read the parent's environment", &[Landlock, User], |_| {
        read(parent("environ"))
    }),
    attempt("read what the front has mapped", &[Landlock, User], |a| {
        read(a.front("maps"))
    }),
    attempt("read the front's memory", &[Landlock, User], |a| {
        memory(a, File::open)
    }),
    attempt("write the front's memory", &[Landlock, User], |a| {
        memory(a, writable)
    }),
    attempt("list the front's descriptors", &[Landlock, User], |a| {
        list(a.front("fd"))
    }),
    attempt(
        "list the front's working directory",
        &[Landlock, User],
        |a| list(a.front("cwd")),
    ),
    attempt("list the front's root", &[Landlock, User], |a| {
        list(a.front("root"))
    }),
    // Writing.
    attempt("write into /tmp", &[Landlock], |_| {
        make(Path::new("/tmp/lantern-attack-probe"))
    }),
    attempt("write into /dev/shm", &[Landlock], |_| {
        make(Path::new("/dev/shm/lantern-attack-probe"))
    }),
    attempt("open a terminal", &[Landlock], |_| write("/dev/ptmx")),
    attempt("write to a file for everybody", &[Landlock], |a| {
        write(a.targets.public.join("everybodys"))
    }),
    attempt("truncate a file for everybody", &[Landlock], |a| {
        truncating(&a.targets.public.join("everybodys"))
    }),
    attempt(
        "truncate a file for everybody by its path",
        &[Landlock, Seccomp],
        |a| truncate(&a.targets.public.join("everybodys")),
    ),
    attempt("write into the model store", &[Landlock, User], |a| {
        make(&a.targets.public.join("store/made.mar"))
    }),
    attempt("overwrite an archive", &[Landlock, User], |a| {
        write(a.targets.public.join("store/other.mar"))
    }),
    attempt("remove an archive", &[Landlock, User], |a| {
        fs::remove_file(a.targets.public.join("store/removed.mar"))
    }),
    attempt("rename an archive", &[Landlock, User], |a| {
        fs::rename(
            a.targets.public.join("store/renamed.mar"),
            a.targets.public.join("store/moved.mar"),
        )
    }),
    attempt(
        "make a directory in the model store",
        &[Landlock, User],
        |a| fs::create_dir(a.targets.public.join("store/made")),
    ),
    attempt(
        "make a link in the model store",
        &[Landlock, User, Seccomp],
        |a| symlink("/etc/passwd", a.targets.public.join("store/link")),
    ),
    attempt(
        "make a pipe in the model store",
        &[Landlock, User, Seccomp],
        |a| pipe(&a.targets.public.join("store/pipe")),
    ),
    attempt("write into the cache", &[Landlock, User], |a| {
        make(&a.targets.private.join("made"))
    }),
    attempt(
        "write into the front's working directory",
        &[Landlock, User],
        |a| make(&a.targets.private.join("work/made")),
    ),
    attempt("overwrite the own archive", &[Landlock, User], |a| {
        write(a.within.path(&a.targets.archive).join("model"))
    }),
    attempt("write into the own archive", &[Landlock, User], |a| {
        make(&a.within.path(&a.targets.archive).join("made"))
    }),
    attempt(
        "raise the own score for when memory runs out",
        &[Landlock],
        |_| write("/proc/self/oom_score_adj"),
    ),
    attempt("write a setting of the kernel's", &[Landlock, User], |_| {
        write("/proc/sys/kernel/hostname")
    }),
    attempt(
        "write the own memory past its protection",
        &[Landlock],
        |_| write("/proc/self/mem"),
    ),
    // Whose files they are.
    attempt(
        "change the mode of the own archive",
        &[Seccomp, User],
        |a| mode(&a.within.path(&a.targets.archive)),
    ),
    attempt(
        "change the owner of the own archive",
        &[Seccomp, User],
        owner,
    ),
    attempt(
        "change the times of the own archive",
        &[Seccomp, User],
        times,
    ),
    attempt(
        "change an attribute of the own archive",
        &[Seccomp, User],
        attribute,
    ),
    attempt("ask for a handle of a file", &[Seccomp], |_| {
        reach(libc::SYS_name_to_handle_at, &[0, 0, 0, 0, 0])
    }),
    attempt("open a file by a handle", &[Seccomp], |_| {
        reach(libc::SYS_open_by_handle_at, &[0, 0, 0])
    }),
    attempt("watch files (inotify)", &[Seccomp], |_| {
        reach(libc::SYS_inotify_init1, &[])
    }),
    attempt("watch files (fanotify)", &[Seccomp], |_| {
        reach(libc::SYS_fanotify_init, &[usize::MAX, 0])
    }),
];

impl Attacker {
    /// A file that tells about the front.
    fn front(&self, file: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.targets.front.to_string())
            .join(file)
    }
}

fn parent(file: &str) -> PathBuf {
    Path::new("/proc")
        .join(std::os::unix::process::parent_id().to_string())
        .join(file)
}

/// Reads the beginning of a file.
fn read(path: impl AsRef<Path>) -> io::Result<()> {
    File::open(path)?.read(&mut [0; 16]).map(drop)
}

fn some(path: &str) -> io::Result<()> {
    File::open(path)?.read_exact(&mut [0; 16])
}

fn list(path: impl AsRef<Path>) -> io::Result<()> {
    fs::read_dir(path)?.next().transpose().map(drop)
}

fn writable(path: PathBuf) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// Opens a file for writing, which is harm enough.
fn write(path: impl AsRef<Path>) -> io::Result<()> {
    writable(path.as_ref().to_owned()).map(drop)
}

/// Makes a file and removes it again.
fn make(path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(b"made")?;
    fs::remove_file(path)
}

fn truncating(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .map(drop)
}

#[cfg(target_pointer_width = "64")]
fn truncate(file: &Path) -> io::Result<()> {
    call(libc::SYS_truncate, &[text(&path(file)), 0]).map(drop)
}

fn pipe(file: &Path) -> io::Result<()> {
    let (mode, here) = (
        (libc::S_IFIFO | 0o600) as usize,
        super::call::signed(i64::from(libc::AT_FDCWD)),
    );
    call(libc::SYS_mknodat, &[here, text(&path(file)), mode, 0]).map(drop)
}

/// Takes more than the scratch directory may hold, in files that are each within the limit of a file.
fn fill_scratch(attacker: &Attacker) -> io::Result<()> {
    const FILES: usize = 3;
    const MIB: usize = 40;
    let scratch = attacker.within.scratch().ok_or_else(refused)?;
    let names: Vec<_> = (0..FILES)
        .map(|index| scratch.join(format!("large-{index}")))
        .collect();
    let piece = vec![1; 1 << 20];
    let filled = names.iter().try_for_each(|name| {
        let mut file = File::create(name)?;
        (0..MIB).try_for_each(|_| file.write_all(&piece))
    });
    for name in names {
        let _ = fs::remove_file(name);
    }
    filled
}

/// Has the kernel take a file that this process wrote for code.
fn map_code(attacker: &Attacker) -> io::Result<()> {
    let scratch = attacker.within.scratch().ok_or_else(refused)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(scratch.join("code"))?;
    file.write_all(&[0xc3; 4096])?;
    let (protection, flags) = (
        (libc::PROT_READ | libc::PROT_EXEC) as usize,
        libc::MAP_PRIVATE as usize,
    );
    call(
        libc::SYS_mmap,
        &[0, 4096, protection, flags, file.as_raw_fd() as usize, 0],
    )
    .map(drop)
}

fn symlink_to(file: &Path, link: &Path) -> io::Result<()> {
    symlink(file, link)
}

fn hard_link_to(file: &Path, link: &Path) -> io::Result<()> {
    fs::hard_link(file, link)
}

/// Reads what another archive holds under a name in the scratch directory.
fn through_link(attacker: &Attacker, make: fn(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
    let scratch = attacker
        .within
        .scratch()
        .unwrap_or_else(|| attacker.targets.public.join("anyones"));
    let link = scratch.join("link");
    let _ = fs::remove_file(&link);
    make(&attacker.targets.public.join("unpacked/model"), &link)?;
    read(link)
}

/// Opens the front's memory and finds what it hides.
fn memory(attacker: &Attacker, open: fn(PathBuf) -> io::Result<File>) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let file = open(attacker.front("mem"))?;
    let (secret, byte) = (attacker.targets.secret as u64, attacker.targets.byte as u64);
    let mut found = vec![0; super::report::SECRET.len()];
    match file.read_exact_at(&mut found, secret) {
        Ok(()) => when(found == super::report::SECRET),
        // It was opened for writing.
        Err(_) => file.write_all_at(&[1], byte),
    }
}

fn mode(directory: &Path) -> io::Result<()> {
    let file = directory.join("model");
    let mode = fs::metadata(&file)?.permissions().mode();
    fs::set_permissions(file, fs::Permissions::from_mode(mode))
}

fn model(attacker: &Attacker) -> PathBuf {
    attacker
        .within
        .path(&attacker.targets.archive)
        .join("model")
}

fn owner(attacker: &Attacker) -> io::Result<()> {
    let user = attacker.targets.user;
    std::os::unix::fs::chown(model(attacker), Some(user), None)
}

fn times(attacker: &Attacker) -> io::Result<()> {
    let here = super::call::signed(i64::from(libc::AT_FDCWD));
    call(
        libc::SYS_utimensat,
        &[here, text(&path(&model(attacker))), 0, 0],
    )
    .map(drop)
}

fn attribute(attacker: &Attacker) -> io::Result<()> {
    let file = path(&model(attacker));
    reached(call(
        libc::SYS_setxattr,
        &[text(&file), text(c"user.attack"), text(c"x"), 1, 0],
    ))
}
