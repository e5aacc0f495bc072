//! Attempts at other processes, at starting more of them, and at what this one may find out about itself.

use std::io;
use std::path::{Path, PathBuf};

use lantern::sandbox::Wall::{Descriptors, Landlock, Privileges, Scopes, Seccomp, User};

use super::call::{bytes, call, path, reach, reached, signed, text, when};
use super::report::SECRET;
use super::{Attacker, Attempt, attempt, works};

pub const ATTEMPTS: &[Attempt] = &[
    works("a thread", |_| {
        std::thread::Builder::new()
            .spawn(|| ())?
            .join()
            .map_err(|_| io::Error::other("panicked"))
    }),
    works("a signal to itself", |_| {
        call(libc::SYS_kill, &[std::process::id() as usize, 0]).map(drop)
    }),
    attempt("see a file that was left open", &[Descriptors], |_| {
        when(descriptors().any(|link| link.ends_with("left-open")))
    }),
    attempt("be the front's user", &[User], |a| {
        when(
            status("Uid")
                .split_whitespace()
                .any(|id| id == a.targets.user.to_string()),
        )
    }),
    attempt("have groups", &[User], |_| {
        when(!status("Groups").is_empty())
    }),
    attempt("have capabilities", &[Privileges], |_| {
        when(
            ["CapInh", "CapPrm", "CapEff", "CapAmb"]
                .iter()
                .any(|set| status(set) != "0000000000000000"),
        )
    }),
    attempt("get privileges from a program", &[Privileges], |_| {
        when(status("NoNewPrivs") == "0")
    }),
    attempt("make any system call", &[Seccomp], |_| {
        when(status("Seccomp") != "2")
    }),
    attempt("leave a core dump", &[Privileges], |_| {
        when(call(libc::SYS_prctl, &[libc::PR_GET_DUMPABLE as usize])? == 1)
    }),
    attempt("become readable to others", &[Seccomp], |_| {
        call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as usize, 1]).map(drop)
    }),
    attempt("become traceable", &[Seccomp], |_| {
        reach(
            libc::SYS_prctl,
            &[libc::PR_SET_PTRACER as usize, usize::MAX],
        )
    }),
    attempt(
        "have another process get signals of a file (fcntl)",
        &[Seccomp],
        |a| call(libc::SYS_fcntl, &[0, libc::F_SETOWN as usize, a.pid()]).map(drop),
    ),
    attempt("choose the signal of a file", &[Seccomp], |_| {
        call(libc::SYS_fcntl, &[0, F_SETSIG, 0]).map(drop)
    }),
    attempt(
        "have another process get signals of a file (ioctl)",
        &[Seccomp],
        file_owner,
    ),
    // The front.
    attempt("kill the front", &[Seccomp, Scopes, User], |a| {
        call(libc::SYS_kill, &[a.pid(), 0]).map(drop)
    }),
    attempt("kill every process", &[Seccomp], |_| {
        call(libc::SYS_kill, &[signed(-1), 0]).map(drop)
    }),
    attempt("kill the own group", &[Seccomp], |_| {
        call(libc::SYS_kill, &[0, 0]).map(drop)
    }),
    attempt(
        "kill a thread of the front",
        &[Seccomp, Scopes, User],
        |a| call(libc::SYS_tgkill, &[a.pid(), a.pid(), 0]).map(drop),
    ),
    attempt(
        "kill a thread of the front (tkill)",
        &[Seccomp, Scopes, User],
        |a| call(libc::SYS_tkill, &[a.pid(), 0]).map(drop),
    ),
    attempt("queue a signal for the front", &[Seccomp], |a| {
        reach(libc::SYS_rt_sigqueueinfo, &[a.pid(), 0, 0])
    }),
    attempt("open the front as a descriptor", &[Seccomp], |a| {
        call(libc::SYS_pidfd_open, &[a.pid(), 0]).map(drop)
    }),
    attempt(
        "kill the front by a descriptor",
        &[Seccomp, Scopes, User],
        |a| call(libc::SYS_pidfd_send_signal, &[pidfd(a)?, 0, 0, 0]).map(drop),
    ),
    attempt(
        "take a descriptor of the front",
        &[Seccomp, Landlock, User],
        |a| call(libc::SYS_pidfd_getfd, &[pidfd(a)?, 2, 0]).map(drop),
    ),
    attempt(
        "read the front's memory by a call",
        &[Seccomp, Landlock, User],
        read_memory,
    ),
    attempt(
        "write the front's memory by a call",
        &[Seccomp, Landlock, User],
        write_memory,
    ),
    attempt("trace the front", &[Seccomp, Landlock, User], trace),
    attempt("compare with the front", &[Seccomp, Landlock, User], |a| {
        call(
            libc::SYS_kcmp,
            &[std::process::id() as usize, a.pid(), 0, 0, 0],
        )
        .map(drop)
    }),
    attempt("read the front's limits", &[Seccomp, User], |a| {
        call(
            libc::SYS_prlimit64,
            &[
                a.pid(),
                libc::RLIMIT_NOFILE as usize,
                0,
                bytes(&mut [0u64; 2]),
            ],
        )
        .map(drop)
    }),
    attempt(
        "move the front to other processors",
        &[Seccomp, User],
        move_front,
    ),
    attempt("change the front's priority", &[Seccomp, User], |a| {
        priority(a)
    }),
    attempt("change the front's scheduler", &[Seccomp, User], |a| {
        call(
            libc::SYS_sched_setscheduler,
            &[a.pid(), 0, bytes(&mut [0u32; 1])],
        )
        .map(drop)
    }),
    attempt(
        "change the front's priority of files",
        &[Seccomp, User],
        |a| call(libc::SYS_ioprio_set, &[1, a.pid(), 0]).map(drop),
    ),
    attempt("move the front's memory", &[Seccomp, User], |a| {
        call(libc::SYS_move_pages, &[a.pid(), 0, 0, 0, 0, 0]).map(drop)
    }),
    attempt("join the front's group", &[Seccomp], |a| {
        reach(libc::SYS_setpgid, &[0, a.pid()])
    }),
    attempt("leave the own session", &[Seccomp], |_| {
        call(libc::SYS_setsid, &[]).map(drop)
    }),
    // More processes.
    attempt("fork", &[Seccomp], |_| {
        child(libc::SYS_clone, &[libc::SIGCHLD as usize])
    }),
    #[cfg(target_arch = "x86_64")]
    attempt("fork (the older call)", &[Seccomp], |_| {
        child(libc::SYS_fork, &[])
    }),
    #[cfg(target_arch = "x86_64")]
    attempt("fork and share memory", &[Seccomp], |_| vfork()),
    attempt("fork by clone3", &[Seccomp], |_| {
        child(
            libc::SYS_clone3,
            &[bytes(&mut [0, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0]), 64],
        )
    }),
    attempt("a thread in a namespace of its own", &[Seccomp], |_| {
        reach(
            libc::SYS_clone,
            &[(libc::CLONE_THREAD | libc::CLONE_NEWUSER) as usize],
        )
    }),
    attempt("execute a program", &[Seccomp, Landlock], |a| {
        execute(&a.targets.public.join("program"))
    }),
    attempt(
        "execute a program of its archive",
        &[Seccomp, Landlock],
        |a| execute(&a.within.path(&a.targets.archive).join("program")),
    ),
    attempt("execute a program by a descriptor", &[Seccomp], |_| {
        reach(
            libc::SYS_execveat,
            &[signed(-1), text(c""), 0, 0, libc::AT_EMPTY_PATH as usize],
        )
    }),
    attempt("wait for other processes", &[Seccomp], |_| {
        reach(libc::SYS_wait4, &[signed(-1), 0, libc::WNOHANG as usize, 0])
    }),
];

/// `libc` has no name for it.
const F_SETSIG: usize = 10;

impl Attacker {
    const fn pid(&self) -> usize {
        self.targets.front as usize
    }
}

/// What a test looks at: the descriptors that are open, and the variables of the environment.
pub fn facts() -> Vec<(String, String)> {
    let links: Vec<_> = descriptors()
        .map(|link| link.display().to_string())
        .collect();
    let mut names: Vec<_> = std::env::vars_os()
        .map(|(name, _)| name.display().to_string())
        .collect();
    names.sort();
    vec![
        ("descriptors".to_owned(), links.join(" ")),
        ("variables".to_owned(), names.join(" ")),
    ]
}

/// What each open descriptor leads to.
fn descriptors() -> impl Iterator<Item = PathBuf> {
    let found = std::fs::read_dir("/proc/self/fd").unwrap();
    let paths: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
    // The directory itself is closed by now.
    paths
        .into_iter()
        .filter_map(|path| std::fs::read_link(path).ok())
}

/// A line of the kernel about this process.
fn status(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(found, _)| *found == name)
        .unwrap()
        .1
        .trim()
        .to_owned()
}

/// Sets the process that gets signals of the socket to the front.
fn file_owner(attacker: &Attacker) -> io::Result<()> {
    const FIOSETOWN: usize = 0x8901;
    let mut front = [attacker.targets.front];
    call(libc::SYS_ioctl, &[0, FIOSETOWN, bytes(&mut front)]).map(drop)
}

fn pidfd(attacker: &Attacker) -> io::Result<usize> {
    call(libc::SYS_pidfd_open, &[attacker.pid(), 0])
}

fn read_memory(attacker: &Attacker) -> io::Result<()> {
    let mut found = vec![0u8; SECRET.len()];
    let mut local = [bytes(&mut found), found.len()];
    let mut remote = [attacker.targets.secret, found.len()];
    call(
        libc::SYS_process_vm_readv,
        &[
            attacker.pid(),
            bytes(&mut local),
            1,
            bytes(&mut remote),
            1,
            0,
        ],
    )?;
    when(found == SECRET)
}

fn write_memory(attacker: &Attacker) -> io::Result<()> {
    let mut one = [1u8];
    let mut local = [bytes(&mut one), 1];
    let mut remote = [attacker.targets.byte, 1];
    let written = call(
        libc::SYS_process_vm_writev,
        &[
            attacker.pid(),
            bytes(&mut local),
            1,
            bytes(&mut remote),
            1,
            0,
        ],
    )?;
    when(written == 1)
}

/// Becomes the tracer of the front, which goes on running. It is let go when this process ends.
fn trace(attacker: &Attacker) -> io::Result<()> {
    call(
        libc::SYS_ptrace,
        &[libc::PTRACE_SEIZE as usize, attacker.pid(), 0, 0],
    )
    .map(drop)
}

/// To those that it is on.
fn move_front(attacker: &Attacker) -> io::Result<()> {
    let mut mask = [0u64; 16];
    let length = call(
        libc::SYS_sched_getaffinity,
        &[attacker.pid(), size_of_val(&mask), bytes(&mut mask)],
    )?;
    call(
        libc::SYS_sched_setaffinity,
        &[attacker.pid(), length, bytes(&mut mask)],
    )
    .map(drop)
}

/// To what it is: the kernel gives 20 less the priority.
fn priority(attacker: &Attacker) -> io::Result<()> {
    let which = libc::PRIO_PROCESS as usize;
    let current = call(libc::SYS_getpriority, &[which, attacker.pid()])?;
    let same = 20 - i64::try_from(current).unwrap();
    call(
        libc::SYS_setpriority,
        &[which, attacker.pid(), signed(same)],
    )
    .map(drop)
}

/// A child that ends at once.
#[expect(unsafe_code, reason = "a child must not run what the parent has begun")]
fn child(number: libc::c_long, arguments: &[usize]) -> io::Result<()> {
    let pid = call(number, arguments)?;
    if pid == 0 {
        // SAFETY: it ends this process, and runs nothing else of it.
        unsafe { libc::_exit(0) }
    }
    call(libc::SYS_wait4, &[pid, 0, 0, 0]).map(drop)
}

/// A child that borrows this process's stack, and so must touch nothing of it.
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "the child must touch nothing of the parent's stack"
)]
fn vfork() -> io::Result<()> {
    let result: i64;
    // SAFETY: the child makes one system call, which ends it, and touches neither stack nor memory.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, 60",
            "syscall",
            "2:",
            inlateout("rax") libc::SYS_vfork => result,
            lateout("rcx") _,
            lateout("r11") _,
            lateout("rdi") _,
            options(nostack),
        );
    }
    let error = |result: i64| io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(0));
    let pid = usize::try_from(result).map_err(|_| error(result))?;
    call(libc::SYS_wait4, &[pid, 0, 0, 0]).map(drop)
}

/// The file is no program, so that this process goes on where it may be executed.
fn execute(program: &Path) -> io::Result<()> {
    let program = path(program);
    reached(call(libc::SYS_execve, &[text(&program), 0, 0]))
}
