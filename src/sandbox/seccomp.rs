//! Which system calls a process may make: a list; every other fails with EPERM.
//!
//! The list was recorded from worker processes of both backends under load (`tests/attack/record.py`), with what the
//! same libraries do on errors and other machines. A call that could reach other processes, other files' owners,
//! the network or seldom used code of the kernel is not on it. Some calls are taken with some arguments only.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::Calls;

/// Taken with any arguments.
const ANY: &[libc::c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    libc::SYS_membarrier,
    libc::SYS_get_mempolicy,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    // Threads and time.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getitimer,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    // Signals of its own.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    // Who it is and what there is.
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Files: landlock says which.
    libc::SYS_chdir,
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readahead,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    // The inherited socket.
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
];

/// Older forms that this architecture has beside the others.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// Fail with ENOSYS, as in a kernel without them: libraries then use something else, which can be told from what is refused.
/// The arguments of `clone3` cannot be looked at; memory of `memfd_create` is in nobody's count.
const UNKNOWN: [libc::c_long; 2] = [libc::SYS_clone3, libc::SYS_memfd_create];

/// `fcntl` takes these: not those that have signals sent to other processes.
const FCNTL: [libc::c_int; 11] = [
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_GET_SEALS,
    libc::F_OFD_SETLK,
];

/// `ioctl` takes these, unless there is a GPU to be driven by others.
const IOCTL: [libc::Ioctl; 5] = [
    libc::FIONBIO,
    libc::FIOCLEX,
    libc::FIONCLEX,
    libc::FIONREAD,
    libc::TCGETS,
];

/// A flag of `close_range`: a table of files of the thread's own, which is in nobody's count.
const CLOSE_RANGE_UNSHARE: u64 = 2;

/// `prctl` takes these: names of threads and of memory, and questions.
const PRCTL: [libc::c_int; 5] = [
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_GET_DUMPABLE,
    libc::PR_CAPBSET_READ,
    libc::PR_SET_VMA,
];

/// Why the list is not in force.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The filter cannot be made or installed.
    #[error(transparent)]
    Filter(#[from] seccompiler::Error),
    /// The filter cannot be made.
    #[error(transparent)]
    Backend(#[from] seccompiler::BackendError),
}

/// Puts the list in force for this thread and those that it starts. There must be no new privileges.
pub(super) fn install(calls: Calls) -> Result<(), SeccompError> {
    // Where both have something to say, an error counts more than leave; so the list has to take what is unknown.
    let unknown = UNKNOWN.map(|call| (call, Vec::new())).into();
    seccompiler::apply_filter(&program(unknown, SeccompAction::Allow, Verdict::Unknown)?)?;
    let allowed = allowed(calls, std::process::id())?;
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    seccompiler::apply_filter(&program(allowed, refuse, Verdict::Allow)?)?;
    Ok(())
}

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// What becomes of a call that is in the rules.
#[derive(Clone, Copy)]
enum Verdict {
    Allow,
    Unknown,
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    verdict: Verdict,
) -> Result<BpfProgram, SeccompError> {
    let action = match verdict {
        Verdict::Allow => SeccompAction::Allow,
        Verdict::Unknown => SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
    };
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, otherwise, action, architecture)?;
    Ok(filter.try_into()?)
}

fn allowed(calls: Calls, pid: u32) -> Result<Rules, SeccompError> {
    let any = ANY.iter().chain(OLDER).chain(&UNKNOWN);
    let mut rules: Rules = any.map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![thread()?]);
    rules.insert(
        libc::SYS_close_range,
        vec![all(vec![without(2, CLOSE_RANGE_UNSHARE)?])?],
    );
    rules.insert(libc::SYS_socketpair, vec![pair()?]);
    rules.insert(libc::SYS_sendto, vec![all(vec![null(4)?])?]);
    rules.insert(libc::SYS_fcntl, one_of(1, FCNTL.map(i64::from))?);
    rules.insert(libc::SYS_prctl, one_of(0, PRCTL.map(i64::from))?);
    let own = u64::from(pid);
    rules.insert(libc::SYS_tgkill, vec![all(vec![is(0, own)?])?]);
    rules.insert(libc::SYS_kill, vec![all(vec![is(0, own)?])?]);
    // Its own limits and its own thread alone.
    rules.insert(
        libc::SYS_prlimit64,
        vec![all(vec![is(0, 0)?])?, all(vec![is(0, own)?])?],
    );
    rules.insert(libc::SYS_sched_setaffinity, vec![all(vec![is(0, 0)?])?]);
    let (ioctl, mmap) = match calls {
        Calls::Native => (one_of(1, IOCTL.map(u64::cast_signed))?, counted_memory()?),
        Calls::Cuda => (Vec::new(), Vec::new()),
    };
    rules.insert(libc::SYS_ioctl, ioctl);
    rules.insert(libc::SYS_mmap, mmap);
    Ok(rules)
}

/// Memory that is in the process's count for as long as it exists. What is shared with nobody in particular outlives its
/// mapping's pages: whoever gives them up keeps them, and they count nowhere. A stack that grows counts against no limit.
fn counted_memory() -> Result<Vec<SeccompRule>, SeccompError> {
    const TYPE: u64 = 0x0f;
    let is = |looked_at: u64, value: libc::c_int| {
        let masked = SeccompCmpOp::MaskedEq(looked_at);
        all(vec![SeccompCondition::new(
            3,
            SeccompCmpArgLen::Dword,
            masked,
            flags(value),
        )?])
    };
    Ok(vec![
        is(TYPE | flags(libc::MAP_GROWSDOWN), libc::MAP_PRIVATE)?,
        is(TYPE | flags(libc::MAP_ANONYMOUS), libc::MAP_SHARED)?,
    ])
}

/// The argument at `index` has none of these flags.
fn without(index: u8, unwanted: u64) -> Result<SeccompCondition, SeccompError> {
    let masked = SeccompCmpOp::MaskedEq(unwanted);
    Ok(SeccompCondition::new(
        index,
        SeccompCmpArgLen::Dword,
        masked,
        0,
    )?)
}

/// `clone` that starts a thread, with the same table of files as the others, and nothing in a namespace of its own.
fn thread() -> Result<SeccompRule, SeccompError> {
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let (thread, namespaces) = (
        flags(libc::CLONE_THREAD | libc::CLONE_FILES),
        flags(namespaces),
    );
    let looked_at = SeccompCmpOp::MaskedEq(thread | namespaces);
    all(vec![SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        looked_at,
        thread,
    )?])
}

/// A stream between two ends of this process: over a datagram socket one could write to sockets of others.
fn pair() -> Result<SeccompRule, SeccompError> {
    const TYPE: u64 = 0xf;
    let stream = flags(libc::SOCK_STREAM);
    let kind = SeccompCondition::new(
        1,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(TYPE),
        stream,
    )?;
    all(vec![is(0, flags(libc::AF_UNIX))?, kind])
}

/// One rule for each value that the argument at `index` may have.
fn one_of<const N: usize>(index: u8, values: [i64; N]) -> Result<Vec<SeccompRule>, SeccompError> {
    let rule = |value: i64| {
        let low = value.cast_unsigned() & 0xffff_ffff;
        let equal = SeccompCmpOp::Eq;
        all(vec![SeccompCondition::new(
            index,
            SeccompCmpArgLen::Dword,
            equal,
            low,
        )?])
    };
    values.into_iter().map(rule).collect()
}

/// The number at `index` is this one.
fn is(index: u8, value: u64) -> Result<SeccompCondition, SeccompError> {
    let equal = SeccompCmpOp::Eq;
    Ok(SeccompCondition::new(
        index,
        SeccompCmpArgLen::Dword,
        equal,
        value,
    )?)
}

/// The pointer at `index` leads nowhere.
fn null(index: u8) -> Result<SeccompCondition, SeccompError> {
    let equal = SeccompCmpOp::Eq;
    Ok(SeccompCondition::new(
        index,
        SeccompCmpArgLen::Qword,
        equal,
        0,
    )?)
}

fn all(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, SeccompError> {
    Ok(SeccompRule::new(conditions)?)
}

fn flags(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}
