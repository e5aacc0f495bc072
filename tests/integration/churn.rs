//! Versions that come and go: nothing of one that was unregistered stays.

use std::fs;
use std::path::Path;

use crate::hostile_memory::private_memory;
use crate::support::{Model, TestServer};

/// Rounds of loading and unloading. `make attack` asks for more.
const ROUNDS: usize = 10;
/// Descriptors and threads that the client of the test and idle threads may make of a difference. A version that left one behind
/// would make one of `ROUNDS`.
const SLACK: usize = ROUNDS - 2;
/// Most bytes by which memory may grow over all rounds.
const GROWTH_LIMIT: usize = 4 << 20;

#[expect(
    clippy::disallowed_methods,
    reason = "`make attack` says how long it takes"
)]
fn rounds() -> usize {
    let rounds = std::env::var("LANTERN_ATTACK_ROUNDS").ok();
    rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"))
}

/// What a server holds that must not grow.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    files: usize,
}

fn count(directory: impl AsRef<Path>) -> usize {
    fs::read_dir(directory).unwrap().count()
}

fn held(server: &TestServer) -> Held {
    Held {
        descriptors: count("/proc/self/fd"),
        threads: count("/proc/self/task"),
        files: count(server.directory()),
    }
}

/// Waits until no more is held than before: what a version held is given back beside the answer.
async fn comes_back_to(server: &TestServer, before: &Held) {
    let is_more = |now: &Held| {
        now.descriptors > before.descriptors + SLACK
            || now.threads > before.threads + SLACK
            || now.files > before.files
    };
    let waited = std::time::Instant::now();
    while is_more(&held(server)) {
        assert!(
            waited.elapsed().as_secs() < 20,
            "{before:?} became {:?}",
            held(server)
        );
        tokio::task::yield_now().await;
    }
}

async fn come_and_go(server: &TestServer, rounds: usize) {
    for _ in 0..rounds {
        let path = "/models?url=echo-1.0.mar&initial_workers=1&synchronous=true";
        let registered = server.management("POST", path).await;
        assert_eq!(registered.status, 200, "{}", registered.text());
        assert_eq!(server.predict("echo", "hi").await.text(), "hi");
        let unregistered = server.management("DELETE", "/models/echo").await;
        assert_eq!(unregistered.status, 200, "{}", unregistered.text());
    }
    server.forget_access_log();
}

async fn stays_flat(model: Model) {
    let server = TestServer::builder().in_store(model).start().await;
    // Pools of threads and connections fill up.
    come_and_go(&server, 5).await;
    let before = held(&server);
    let mut growths = Vec::new();
    // A leak grows with each round; memory that the allocator keeps does not.
    while growths.last().is_none_or(|growth| *growth > GROWTH_LIMIT) {
        assert!(growths.len() < 3, "memory grew by {growths:?} bytes");
        let memory = private_memory();
        come_and_go(&server, rounds()).await;
        growths.push(private_memory().saturating_sub(memory));
    }
    comes_back_to(&server, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_in_the_servers_process_leave_nothing_behind() {
    stays_flat(Model::new("echo")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_in_worker_processes_leave_nothing_behind() {
    stays_flat(Model::new("echo").in_process()).await;
}
