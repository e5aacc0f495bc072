//! Bare servers to compare with: the bench itself, started once more as a process that only echoes.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tokio::net::TcpListener;

/// Names the bare server that a bench is to be.
const WANTED: &str = "LANTERN_BENCH_BARE";

/// A bare server; ended when dropped.
pub struct Bare {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

impl Bare {
    /// Starts this bench as the bare server `name`.
    pub fn start(name: &str) -> Self {
        let program = std::env::current_exe().expect("a program knows its own path");
        let mut child = Command::new(program)
            .env(WANTED, name)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bare server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the bare server says where it listens");
        Self {
            address: line.trim().parse().expect("an address"),
            child,
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves with `serve` to its end, if this process is to be the bare server `name`. Whether it was.
pub fn has_served<F: Future<Output = ()>>(
    name: &str,
    serve: impl FnOnce(TcpListener) -> F,
) -> bool {
    if std::env::var(WANTED).ok().as_deref() != Some(name) {
        return false;
    }
    let tokio = tokio::runtime::Runtime::new().expect("a runtime can be made");
    tokio.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let address = listener.local_addr();
        println!("{}", address.expect("a listener has an address"));
        serve(listener).await;
    });
    true
}
