//! Attempts at the kernel: other namespaces, mounts, privileges, parts of it that are seldom used.

use std::io;

use lantern::sandbox::Wall::{Landlock, Privileges, Seccomp};

use super::call::{bytes, call, path, reach, signed, text, when};
use super::{Attacker, Attempt, attempt};

pub const ATTEMPTS: &[Attempt] = &[
    // Privileges.
    attempt("become root", &[Seccomp], |_| {
        call(libc::SYS_setresuid, &[0, 0, 0]).map(drop)
    }),
    attempt("become another group", &[Seccomp], |_| {
        call(libc::SYS_setresgid, &[0, 0, 0]).map(drop)
    }),
    attempt("join groups", &[Seccomp, Privileges], |_| {
        call(libc::SYS_setgroups, &[0, 0]).map(drop)
    }),
    attempt("take capabilities", &[Seccomp, Privileges], |_| {
        capabilities()
    }),
    attempt("raise a limit of its own", &[Privileges], |_| {
        raise(libc::RLIMIT_CORE)
    }),
    attempt("change the list of system calls", &[Seccomp], |_| {
        reach(libc::SYS_seccomp, &[99, 0, 0])
    }),
    attempt(
        "change the list of system calls (prctl)",
        &[Seccomp],
        |_| {
            reach(
                libc::SYS_prctl,
                &[libc::PR_SET_SECCOMP as usize, 99, 0, 0, 0],
            )
        },
    ),
    attempt("change the rules for files", &[Seccomp], |_| {
        reach(libc::SYS_landlock_create_ruleset, &[0, 0, 0])
    }),
    attempt("change the personality", &[Seccomp], |_| {
        call(libc::SYS_personality, &[0xffff_ffff]).map(drop)
    }),
    // Mounts and roots.
    attempt("mount", &[Seccomp, Privileges, Landlock], mount),
    attempt("mount by descriptors", &[Seccomp, Privileges], |_| {
        reach(libc::SYS_fsopen, &[text(c"none such"), 0])
    }),
    attempt("copy a mount", &[Seccomp], |_| {
        reach(libc::SYS_open_tree, &[signed(-1), text(c""), usize::MAX])
    }),
    attempt("unmount", &[Seccomp, Privileges], |a| {
        reach(libc::SYS_umount2, &[text(&path(&a.targets.public)), 0])
    }),
    attempt(
        "change the root of all",
        &[Seccomp, Privileges, Landlock],
        |a| {
            let directory = path(&a.targets.public);
            reach(libc::SYS_pivot_root, &[text(&directory), text(&directory)])
        },
    ),
    attempt("change the root", &[Seccomp, Privileges], |_| {
        call(libc::SYS_chroot, &[text(c"/")]).map(drop)
    }),
    // The machine.
    attempt("restart the machine", &[Seccomp, Privileges], |_| {
        reach(libc::SYS_reboot, &[0, 0, 0, 0])
    }),
    attempt("swap to a file", &[Seccomp, Privileges], |_| {
        reach(libc::SYS_swapon, &[text(c"/nothing/here"), 0])
    }),
    attempt("load a module", &[Seccomp, Privileges], |_| {
        reach(libc::SYS_init_module, &[0, 0, 0])
    }),
    attempt("load a module from a file", &[Seccomp, Privileges], |_| {
        reach(libc::SYS_finit_module, &[signed(-1), 0, 0])
    }),
    attempt("load a kernel", &[Seccomp, Privileges], |_| {
        reach(libc::SYS_kexec_load, &[0, 0, 0, usize::MAX])
    }),
    attempt("have processes recorded", &[Seccomp, Privileges], |_| {
        reach(libc::SYS_acct, &[text(c"/nothing/here")])
    }),
    attempt("change quotas", &[Seccomp], |_| {
        reach(libc::SYS_quotactl, &[usize::MAX, 0, 0, 0])
    }),
    attempt("set the clock", &[Seccomp, Privileges], |_| {
        reach(libc::SYS_settimeofday, &[0, 0])
    }),
    attempt("set a clock", &[Seccomp], |_| {
        reach(libc::SYS_clock_settime, &[0, 0])
    }),
    attempt("change the host name", &[Seccomp, Privileges], |_| {
        reach(libc::SYS_sethostname, &[0, usize::MAX])
    }),
    attempt("read the kernel's log", &[Seccomp], |_| {
        reach(libc::SYS_syslog, &[10, 0, 0])
    }),
    #[cfg(target_arch = "x86_64")]
    attempt("reach ports of devices", &[Seccomp, Privileges], |_| {
        reach(libc::SYS_iopl, &[3])
    }),
    #[cfg(target_arch = "x86_64")]
    attempt(
        "change the descriptor table of the processor",
        &[Seccomp],
        |_| reach(libc::SYS_modify_ldt, &[99, 0, 0]),
    ),
    // Parts that are seldom used.
    attempt("run programs in the kernel", &[Seccomp], |_| {
        reach(libc::SYS_bpf, &[0, 0, 0])
    }),
    attempt("count events of processors", &[Seccomp], |_| {
        reach(libc::SYS_perf_event_open, &[0, 0, 0, 0, 0])
    }),
    attempt("handle faults of pages", &[Seccomp], |_| {
        reach(libc::SYS_userfaultfd, &[usize::MAX])
    }),
    attempt("queue calls in a ring", &[Seccomp], |_| {
        reach(libc::SYS_io_uring_setup, &[0, 0])
    }),
    attempt("queue reads and writes", &[Seccomp], |_| {
        reach(libc::SYS_io_setup, &[0, 0])
    }),
    attempt("look up a key", &[Seccomp], |_| {
        reach(libc::SYS_keyctl, &[9999])
    }),
    attempt("add a key", &[Seccomp], |_| {
        reach(libc::SYS_add_key, &[0, 0, 0, 0, 0])
    }),
    attempt("ask for a key", &[Seccomp], |_| {
        reach(libc::SYS_request_key, &[0, 0, 0, 0])
    }),
    attempt("memory with a name", &[Seccomp], |_| {
        call(libc::SYS_memfd_create, &[text(c"x"), 0]).map(drop)
    }),
    attempt("secret memory", &[Seccomp], |_| {
        reach(libc::SYS_memfd_secret, &[usize::MAX])
    }),
    attempt("protect memory by keys", &[Seccomp], |_| {
        reach(libc::SYS_pkey_alloc, &[usize::MAX, usize::MAX])
    }),
    attempt("splice pages into a pipe", &[Seccomp], |_| {
        reach(libc::SYS_vmsplice, &[usize::MAX, 0, 0, 0])
    }),
    attempt("duplicate a pipe", &[Seccomp], |_| {
        reach(libc::SYS_tee, &[usize::MAX, usize::MAX, 0, 0])
    }),
    attempt("shared memory for everybody", &[Seccomp], |_| {
        shared(libc::SYS_shmget, libc::SYS_shmctl, &[0, 4096, CREATE])
    }),
    attempt("semaphores for everybody", &[Seccomp], |_| {
        shared(libc::SYS_semget, libc::SYS_semctl, &[0, 1, CREATE])
    }),
    attempt("messages for everybody", &[Seccomp], |_| {
        shared(libc::SYS_msgget, libc::SYS_msgctl, &[0, CREATE])
    }),
    attempt("a message queue", &[Seccomp], |_| {
        reach(libc::SYS_mq_open, &[0, 0, 0, 0])
    }),
    attempt("a timer with signals", &[Seccomp], |_| {
        reach(libc::SYS_timer_create, &[usize::MAX, 0, 0])
    }),
    attempt("an alarm", &[Seccomp], |_| {
        reach(libc::SYS_setitimer, &[99, 0, 0])
    }),
    #[cfg(target_arch = "x86_64")]
    attempt("a call by its other number", &[Seccomp], |_| {
        reach(libc::SYS_socket | X32, &[usize::MAX, 0, 0])
    }),
    attempt("a call without a number", &[Seccomp], |_| reach(9999, &[])),
    // Namespaces: these change this process, so they come last.
    attempt("join a namespace", &[Seccomp], |_| {
        reach(libc::SYS_setns, &[signed(-1), 0])
    }),
    attempt("a network of its own", &[Seccomp, Privileges], |_| {
        unshare(libc::CLONE_NEWNET)
    }),
    attempt("IPC of its own", &[Seccomp, Privileges], |_| {
        unshare(libc::CLONE_NEWIPC)
    }),
    attempt("a host name of its own", &[Seccomp, Privileges], |_| {
        unshare(libc::CLONE_NEWUTS)
    }),
    attempt("processes of its own", &[Seccomp, Privileges], |_| {
        unshare(libc::CLONE_NEWPID)
    }),
    attempt("groups of its own", &[Seccomp, Privileges], |_| {
        unshare(libc::CLONE_NEWCGROUP)
    }),
    attempt("mounts of its own", &[Seccomp, Privileges], |_| {
        unshare(libc::CLONE_NEWNS)
    }),
    attempt("users of its own", &[Seccomp], |_| {
        reach(libc::SYS_unshare, &[libc::CLONE_NEWUSER as usize])
    }),
];

/// Makes what is asked for, for its user alone.
const CREATE: usize = (libc::IPC_CREAT | 0o600) as usize;

/// Marks the numbers of calls with 32-bit pointers.
#[cfg(target_arch = "x86_64")]
const X32: libc::c_long = 0x4000_0000;

/// Gives itself the rights of an administrator.
fn capabilities() -> io::Result<()> {
    const VERSION: u32 = 0x2008_0522;
    const ADMINISTRATOR: u32 = 1 << 21;
    let mut header = [VERSION, 0];
    let mut sets = [ADMINISTRATOR, ADMINISTRATOR, 0, 0, 0, 0];
    let mut before = [0u32; 6];
    call(libc::SYS_capget, &[bytes(&mut header), bytes(&mut before)])?;
    for (set, before) in sets.iter_mut().zip(before) {
        *set |= before;
    }
    call(libc::SYS_capset, &[bytes(&mut header), bytes(&mut sets)]).map(drop)
}

/// Raises a limit to infinity.
fn raise(resource: libc::__rlimit_resource_t) -> io::Result<()> {
    let mut infinity = [libc::RLIM_INFINITY; 2];
    call(
        libc::SYS_prlimit64,
        &[0, resource as usize, bytes(&mut infinity), 0],
    )
    .map(drop)
}

/// Mounts a file system that does not exist.
fn mount(attacker: &Attacker) -> io::Result<()> {
    let directory = path(&attacker.targets.public);
    reach(
        libc::SYS_mount,
        &[text(c"none"), text(&directory), text(c"none such"), 0, 0],
    )
}

/// Makes an object that others could find, and removes it.
fn shared(make: libc::c_long, control: libc::c_long, arguments: &[usize]) -> io::Result<()> {
    let id = call(make, arguments)?;
    let remove = libc::IPC_RMID as usize;
    // The command is the third argument for semaphores, and the second otherwise.
    let removed = if control == libc::SYS_semctl {
        call(control, &[id, 0, remove])
    } else {
        call(control, &[id, remove, 0])
    };
    removed.map(drop)
}

/// For this thread alone.
fn unshare(flags: libc::c_int) -> io::Result<()> {
    let unshared = move || call(libc::SYS_unshare, &[flags as usize]).map(drop);
    let thread = std::thread::Builder::new().spawn(unshared)?;
    thread.join().unwrap_or_else(|_| when(false))
}

/// Asks for its process id as a program of 32 bits would. A filter for one architecture must not take it.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "no library makes calls of another architecture")]
pub fn call_as_another_architecture() {
    const GETPID: u64 = 20;
    let mut result = GETPID;
    // SAFETY: the call takes no arguments and changes one register.
    unsafe {
        std::arch::asm!("int 0x80", inout("rax") result, options(nostack));
    }
    super::say(&super::Line::Fact("process".to_owned(), result.to_string()));
}

/// There is none to ask.
#[cfg(not(target_arch = "x86_64"))]
pub fn call_as_another_architecture() {}
