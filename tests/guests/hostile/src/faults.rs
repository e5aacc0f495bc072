//! Acts of every phase: ending, using resources without end, many host calls, errors.

use std::hint::black_box;

use handler_sdk::log::{self, Level};
use handler_sdk::metrics::{Counter, Unit};
use handler_sdk::{Error, ErrorKind, assets};

use crate::{Order, remains};

/// Commits the act, and returns if the act has an end; false if it is none of these.
pub fn commit(order: &Order) -> Result<bool, Error> {
    let argument = order.argument;
    match order.act {
        "trap" => std::process::abort(),
        "panic" => panic!("{argument}"),
        "exit" => std::process::exit(7),
        "loop" => endless_loop(),
        "allocate" => allocate_forever(),
        "recurse" => recurse(0),
        "fill" => remains::fill(argument),
        "stderr" => write_stderr(order.number()?),
        "log" => log_lines(order.number()?),
        "log-bytes" => log::write(Level::Info, &"x".repeat(order.number()? as usize)),
        "log-breaks" => log::write_with(Level::Error, "a\nb\x1b[31m\u{7}", &[("k\n", "v\r\n")]),
        "metrics" => metric_names(order.number()?),
        "series" => metric_series(order.number()?),
        "metric" => Counter::new(argument, Unit::Count, &[]).add(1.0, &[]),
        "metric-nan" => Counter::new("nan", Unit::Count, &[]).add(f64::NAN, &[]),
        "metric-labels" => Counter::new("labels", Unit::Count, &["a"]).add(1.0, &["1", "2"]),
        "handles" => hold_handles(order.number()?),
        "calls" => host_calls(order.number()?),
        "asset" => drop(assets::read(argument)?),
        "asset-at-once" => read_at_once(argument)?,
        "asset-loop" => read_forever(argument)?,
        _ => return fail(order),
    }
    Ok(true)
}

/// The error that the act is named after, with the argument as its text, or as many letters as it says.
fn fail(order: &Order) -> Result<bool, Error> {
    let kind = match order.act {
        "bad-request" => ErrorKind::BadRequest,
        "too-large" => ErrorKind::TooLarge,
        "unsupported-media-type" => ErrorKind::UnsupportedMediaType,
        "unavailable" => ErrorKind::Unavailable,
        "internal" => ErrorKind::Internal,
        "error-bytes" => return Err(Error::bad_request("x".repeat(order.number()? as usize))),
        _ => return Ok(false),
    };
    Err(Error::new(kind, order.argument))
}

fn endless_loop() -> ! {
    let mut rounds = 0u64;
    loop {
        rounds = black_box(rounds.wrapping_add(1));
    }
}

fn allocate_forever() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1u8; 1 << 20]));
    }
}

/// Recurses without end. The array makes every frame take space on the stack.
#[expect(unconditional_recursion, reason = "the act")]
fn recurse(depth: u64) {
    let frame = black_box([depth; 32]);
    recurse(frame[0] + 1);
    black_box(frame);
}

fn write_stderr(lines: u32) {
    for line in 0..lines {
        eprintln!("line {line} on stderr");
    }
}

fn log_lines(lines: u32) {
    for line in 0..lines {
        handler_sdk::info!("line {line}");
    }
}

fn metric_names(count: u32) {
    for index in 0..count {
        Counter::new(&format!("flood_{index}"), Unit::Count, &[]).add(1.0, &[]);
    }
}

fn metric_series(count: u32) {
    let counter = Counter::new("flood", Unit::Count, &["index"]);
    for index in 0..count {
        counter.add(1.0, &[&index.to_string()]);
    }
}

fn hold_handles(count: u32) {
    let counters: Vec<Counter> = (0..count)
        .map(|_| Counter::new("held", Unit::Count, &[]))
        .collect();
    drop(black_box(counters));
}

fn host_calls(count: u32) {
    for _ in 0..count {
        black_box(log::is_enabled(Level::Trace));
    }
}

/// Reads the beginning of a file again and again.
fn read_forever(name: &str) -> Result<(), Error> {
    while !assets::read_range(name, 0, 1 << 20).is_ok_and(|piece| piece.is_empty()) {}
    Err(Error::internal(format!("asset `{name}` is empty")))
}

fn read_at_once(name: &str) -> Result<(), Error> {
    match assets::read_range(name, 0, u32::MAX) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::internal(error.name())),
    }
}
