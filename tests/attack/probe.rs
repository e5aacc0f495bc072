//! A worker process that is nothing but hostile native code.
//!
//! It is started as `lantern worker` would be, enters the walls by the same code, and then tries what they are to keep a
//! process from. What came of each attempt goes to stderr, a line of JSON for many. The attempts are harmless where nothing
//! stops them: a call whose success would do harm is made with arguments that the kernel refuses after it has looked at
//! the caller's rights.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "the probe is told by a variable")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the kernel takes every argument as a register"
)]

use std::io;

use lantern::runtime::child;
use lantern::sandbox::{Entered, Wall};
use report::{Expectation, Line, MARK, Plan, Row, Targets, VARIABLE};

mod call;
mod files;
mod flood;
mod kernel;
mod network;
mod processes;
mod report;
mod resources;

/// Rows in a line: the front cuts lines of more than 4 KiB.
const ROWS_IN_A_LINE: usize = 20;

/// Everything that an attempt knows.
struct Attacker {
    targets: Targets,
    within: Entered,
}

/// One thing to try.
struct Attempt {
    name: &'static str,
    stopped_by: &'static [Wall],
    attack: fn(&Attacker) -> io::Result<()>,
}

/// Each of `stopped_by` alone stops the attack.
const fn attempt(
    name: &'static str,
    stopped_by: &'static [Wall],
    attack: fn(&Attacker) -> io::Result<()>,
) -> Attempt {
    Attempt {
        name,
        stopped_by,
        attack,
    }
}

/// What a process needs, and no wall may stop.
const fn works(name: &'static str, attack: fn(&Attacker) -> io::Result<()>) -> Attempt {
    attempt(name, &[], attack)
}

fn main() -> io::Result<()> {
    let (within, _) = child::enter()?;
    let targets = std::env::var(VARIABLE).map_err(io::Error::other)?;
    let targets: Targets = serde_json::from_str(&targets)?;
    say(&Line::Walls(within.outcomes.clone()));
    let attacker = Attacker { targets, within };
    match attacker.targets.plan {
        Plan::Table => attacker.try_all(),
        Plan::Memory => attacker.report(&[resources::MEMORY]),
        Plan::SharedMemory => resources::touch_shared_memory(),
        Plan::Threads => attacker.report(&[resources::THREADS]),
        Plan::OtherArchitecture => kernel::call_as_another_architecture(),
        Plan::Flood(kind) => flood::flood(kind)?,
    }
    Ok(())
}

impl Attacker {
    fn try_all(&self) {
        for (name, value) in processes::facts() {
            say(&Line::Fact(name, value));
        }
        // Those of the kernel come last: some change this process for good.
        let tables = [
            files::ATTEMPTS,
            network::ATTEMPTS,
            processes::ATTEMPTS,
            kernel::ATTEMPTS,
            resources::ATTEMPTS,
        ];
        for attempts in tables {
            self.report(attempts);
        }
    }

    fn report(&self, attempts: &[Attempt]) {
        for attempts in attempts.chunks(ROWS_IN_A_LINE) {
            let rows = attempts.iter().map(|attempt| self.row(attempt));
            say(&Line::Rows(rows.collect()));
        }
    }

    fn row(&self, attempt: &Attempt) -> Row {
        let error = (attempt.attack)(self).err();
        let number = |error: &io::Error| error.raw_os_error().unwrap_or(0);
        Row {
            name: attempt.name.to_owned(),
            expectation: match attempt.stopped_by {
                [] => Expectation::Works,
                walls => Expectation::StoppedBy(walls.to_vec()),
            },
            error: error.map(|error| (number(&error), error.to_string())),
        }
    }
}

/// A line of the report.
fn say(line: &Line) {
    eprintln!("{MARK}{}", serde_json::to_string(line).unwrap());
}
