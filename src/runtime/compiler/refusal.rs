//! Why a component is not compiled, in words for its author.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::error::Error;

use super::{CompileLimits, failed};

/// Why there is no code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The component is not one that is served; this completes "The handler …".
    Component(String),
    /// It takes too much CPU time.
    Cpu,
    /// It takes too much memory.
    Memory,
    /// It takes too long.
    Wall,
    /// It becomes too much code.
    Output,
    /// The compiler fails on it: how, and what it wrote last.
    Crash(String, String),
    /// The compiler's process could not be started or spoken to.
    Start(String),
}

impl Refusal {
    /// Whether the same component would be refused again.
    pub const fn is_of_the_component(&self) -> bool {
        match self {
            Self::Component(_) | Self::Cpu | Self::Memory | Self::Wall | Self::Output => true,
            Self::Crash(..) | Self::Start(_) => false,
        }
    }

    /// The error for whoever registers or packs the handler.
    pub fn explain(&self, shown: &Path, limits: &CompileLimits) -> Error {
        let text = match self {
            Self::Component(text) => text.clone(),
            Self::Cpu => format!(
                "takes more than {} of CPU time to compile (lantern_compile_cpu)",
                seconds(limits.cpu)
            ),
            Self::Memory => format!(
                "takes more than {} of memory to compile (lantern_compile_memory)",
                size(limits.memory)
            ),
            Self::Wall => format!(
                "was not compiled within {}, three times lantern_compile_cpu",
                seconds(limits.wall)
            ),
            Self::Output => format!("compiles to more than {}", size(limits.output)),
            Self::Crash(how, _) => format!("makes the compiler fail: it {how}"),
            Self::Start(_) => "cannot be compiled: the compiler's process did not start".to_owned(),
        };
        let error = failed(shown, &text);
        match self {
            Self::Crash(_, detail) | Self::Start(detail) => error.with_detail(detail),
            _ => error,
        }
    }
}

/// For the log.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Component(text) => f.write_str(text),
            Self::Cpu => f.write_str("it takes too much CPU time"),
            Self::Memory => f.write_str("it takes too much memory"),
            Self::Wall => f.write_str("it takes too long"),
            Self::Output => f.write_str("it becomes too much code"),
            Self::Crash(how, _) => write!(f, "the compiler {how}"),
            Self::Start(why) => write!(f, "the compiler's process did not start: {why}"),
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

/// In the largest unit that gives a whole number.
fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}
