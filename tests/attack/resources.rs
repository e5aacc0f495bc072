//! Attempts at more of the machine than the process may use.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Builder};

use lantern::sandbox::Wall::{Memory, Seccomp, Threads};

use super::call::{call, reach};
use super::report::{MOST_MEMORY, MOST_THREADS};
use super::{Attempt, attempt};

/// Ways around what is counted: memory whose pages nobody owns, tables of files beside the process's own, sockets with room
/// for gigabytes, descriptors that are under way.
pub const ATTEMPTS: &[Attempt] = &[
    attempt("map memory that others could share", &[Seccomp], |_| {
        map(libc::MAP_SHARED | libc::MAP_ANONYMOUS)
    }),
    attempt("map a stack that grows", &[Seccomp], |_| {
        map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_GROWSDOWN)
    }),
    attempt("have another table of files", &[Seccomp], |_| {
        // Nothing is open there.
        reach(libc::SYS_close_range, &[1 << 20, usize::MAX >> 32, 2])
    }),
    attempt(
        "start a thread with a table of files of its own",
        &[Seccomp],
        |_| {
            // The kernel refuses a thread without the signals of its process, so that none runs on this stack.
            let flags = libc::CLONE_VM | libc::CLONE_THREAD;
            reach(libc::SYS_clone, &[flags as usize, 0, 0, 0, 0])
        },
    ),
    attempt("send descriptors", &[Seccomp], |_| {
        reach(libc::SYS_sendmsg, &[0, 0, 0])
    }),
    attempt("give a socket options", &[Seccomp], |_| {
        reach(libc::SYS_setsockopt, &[0, 0, 0, 0, 0])
    }),
];

fn map(flags: libc::c_int) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let arguments = [
        0,
        1 << 16,
        protection as usize,
        flags as usize,
        usize::MAX,
        0,
    ];
    call(libc::SYS_mmap, &arguments).map(drop)
}

/// Four times what it may have, of its own.
pub const MEMORY: Attempt = attempt("use more memory than it may", &[Memory], |_| memory());

/// Twice what it may have.
pub const THREADS: Attempt = attempt("start more threads than it may", &[Threads], |_| threads());

fn memory() -> io::Result<()> {
    const PIECE: usize = 16 << 20;
    let mut held = Vec::new();
    for _ in 0..4 * MOST_MEMORY / PIECE {
        let mut piece = Vec::<u8>::new();
        piece.try_reserve_exact(PIECE).map_err(io::Error::other)?;
        piece.resize(PIECE, 1);
        held.push(black_box(piece));
    }
    wait_for_the_end()
}

fn threads() -> io::Result<()> {
    let is_over = Arc::new(AtomicBool::new(false));
    let started: io::Result<Vec<_>> = (0..2 * MOST_THREADS)
        .map(|_| {
            let is_over = is_over.clone();
            Builder::new().spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            })
        })
        .collect();
    if started.is_ok() {
        wait_for_the_end();
    }
    is_over.store(true, Ordering::Relaxed);
    started.map(drop)
}

/// Nothing stopped the attack here, so that the front has to.
fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}

/// Takes twice the memory that it may have, of a kind that other processes could share, and waits to be ended.
pub fn touch_shared_memory() -> ! {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    let arguments = [
        0,
        2 * MOST_MEMORY,
        protection as usize,
        flags as usize,
        usize::MAX,
        0,
    ];
    if let Err(error) = call(libc::SYS_mmap, &arguments) {
        eprintln!("no shared memory: {error}");
    }
    wait_for_the_end()
}
