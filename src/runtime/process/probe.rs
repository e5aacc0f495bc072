//! Which walls this machine grants: a process of the server's own program walls itself in as a worker process would, and says
//! what came of it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use super::ProcessConfig;
use super::spawn::from_anywhere;
use super::walls::{Needs, Walls};
use crate::model::Limits;
use crate::sandbox::{Outcomes, handover};

/// What became of each wall. `has_gpu` says whether the process is to reach GPUs; `limits` what it may use. Blocks for some
/// milliseconds.
pub fn probe(cfg: &ProcessConfig, has_gpu: bool, limits: &Limits) -> io::Result<Outcomes> {
    let needs = Needs {
        directory: None,
        has_gpu,
        limits,
    };
    let mut walls = Walls::new(cfg, &needs);
    let (ours, theirs) = UnixStream::pair()?;
    walls.send(&ours, &[])?;
    let mut child = Command::new(from_anywhere(&cfg.lantern))
        .args(["worker", "--probe"])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _ = walls.take(child.id());
    let received = handover::receive::<Outcomes>(ours.as_fd());
    child.wait()?;
    let (mut outcomes, _) = received?;
    outcomes.push(walls.cgroup());
    Ok(outcomes)
}
