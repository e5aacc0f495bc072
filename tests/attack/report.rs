//! What the probe is told, and what it reports: shared with the test that starts it.

use std::path::PathBuf;

use lantern::sandbox::{Outcomes, Wall};
use serde::{Deserialize, Serialize};

/// The variable that holds the [`Targets`] as JSON.
pub const VARIABLE: &str = "ATTACK";

/// Begins each line of a report.
pub const MARK: &str = "attack: ";

/// A text in the front's memory that the probe must not read.
pub const SECRET: &[u8] = b"what the front alone may know";

/// Bytes of memory that the probe may have where it takes more.
pub const MOST_MEMORY: usize = 256 << 20;

/// Threads that the probe may have where it starts more.
pub const MOST_THREADS: usize = 16;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plan {
    /// Every attempt of the table.
    Table,
    /// More memory of its own than it may have.
    Memory,
    /// More memory that others could share than it may have.
    SharedMemory,
    /// More threads than it may have.
    Threads,
    /// A system call of another architecture.
    OtherArchitecture,
    /// Far more messages than it may send.
    Flood(Flood),
}

/// What to send again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flood {
    /// Lists of as many workers as there may be.
    Workers,
    /// Lines of the handler's log.
    Lines,
    /// Lines with texts that are far too long.
    LongLines,
    /// Observations of a metric.
    Observations,
    /// Observations with a label's value that is far too long.
    LongLabels,
    /// Signs of life.
    SignsOfLife,
}

/// What to attack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Targets {
    /// What to do.
    pub plan: Plan,
    /// The process that stands for the server.
    pub front: u32,
    /// Its user.
    pub user: u32,
    /// Where [`SECRET`] lies in its memory.
    pub secret: usize,
    /// A byte in its memory that is nobody's.
    pub byte: usize,
    /// A directory that its user alone may enter.
    pub private: PathBuf,
    /// A directory that everybody may enter.
    pub public: PathBuf,
    /// The directory of the probe's own version.
    pub archive: PathBuf,
    /// A TCP port of the loopback interface that is listened to.
    pub port: u16,
    /// The name of an abstract Unix socket that is listened to.
    pub name: String,
    /// The links of `/proc/self/ns` in the front.
    pub namespaces: Vec<(String, PathBuf)>,
}

/// What must come of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expectation {
    /// Each of these walls alone stops it.
    StoppedBy(Vec<Wall>),
    /// It works all the same.
    Works,
}

/// What came of an attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// What was tried.
    pub name: String,
    /// What must come of it.
    pub expectation: Expectation,
    /// The number and text of the error; `None` if it was done.
    pub error: Option<(i32, String)>,
}

/// What a line of the probe holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Line {
    /// What became of the walls.
    Walls(Outcomes),
    /// Attempts.
    Rows(Vec<Row>),
    /// A text for the test, by its name.
    Fact(String, String),
}
