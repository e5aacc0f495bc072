//! Reports what it can see of its environment, which is nearly nothing if the host is right.
//!
//! Beside what every handler imports, it imports `wasi:clocks` (monotonic and wall) and `wasi:random`. The body is the time
//! to sleep in milliseconds, 0 if it is empty; the answer is a [`Sight`] as JSON.

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use handler_sdk::{Context, Error, Handler, Outputs, Request, Response, Step};
use serde::Serialize;

/// A handler without state.
pub struct Ambient;

/// What the handler saw.
#[derive(Serialize)]
struct Sight {
    /// Command-line arguments.
    arguments: usize,
    /// Environment variables.
    variables: usize,
    /// Bytes on standard input, or the error.
    stdin: Result<usize, String>,
    /// Seconds since 1970 by the wall clock.
    unix_seconds: f64,
    /// The smallest step of the monotonic clock that was seen, in nanoseconds; 0 if none was.
    clock_step: u128,
    /// How long the sleep took by the monotonic clock, in milliseconds.
    slept: u128,
    /// What a fresh random state hashes 0 to.
    random: u64,
}

impl Handler for Ambient {
    fn init(_context: &Context) -> Result<Self, Error> {
        Ok(Self)
    }

    fn preprocess(&self, request: Request) -> Result<Step, Error> {
        let text = request.text()?;
        let sleep = Duration::from_millis(if text.is_empty() { 0 } else { text.parse()? });
        Ok(Step::Done(Response::json(&look(sleep))?))
    }

    fn postprocess(&self, _outputs: Outputs, _carry: &[u8]) -> Result<Response, Error> {
        Err(Error::internal("ambient runs no model"))
    }
}

fn look(sleep: Duration) -> Sight {
    let before = Instant::now();
    #[expect(
        clippy::disallowed_methods,
        reason = "whether a guest can sleep is what this one asks"
    )]
    thread::sleep(sleep);
    let slept = before.elapsed().as_millis();
    Sight {
        arguments: env::args_os().count(),
        variables: env::vars_os().count(),
        stdin: read_stdin(),
        unix_seconds: SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_secs_f64(),
        clock_step: clock_step(),
        slept,
        random: RandomState::new().build_hasher().finish(),
    }
}

fn read_stdin() -> Result<usize, String> {
    let mut bytes = Vec::new();
    io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())
}

/// Looks a thousand times.
fn clock_step() -> u128 {
    let looks: Vec<Instant> = (0..1000).map(|_| Instant::now()).collect();
    let steps = looks.windows(2).map(|pair| (pair[1] - pair[0]).as_nanos());
    steps.filter(|&step| step > 0).min().unwrap_or(0)
}

handler_sdk::export!(Ambient);
