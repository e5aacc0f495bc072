//! `wasi:clocks`: clocks that are coarse, so that a handler learns little about others by timing. Handlers cannot sleep.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource};

use super::super::fault::Exceeded;
use super::super::host::Host;
use super::io::Pollable;
use super::{VERSION, charge};
use crate::nanos::nanos;

/// Resolution of the monotonic clock in nanoseconds.
const MONOTONIC_STEP: u64 = 1_000_000;

/// The monotonic clock counts from its first use.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

type Ctx<'a> = StoreContextMut<'a, Host>;

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    add_monotonic(linker)?;
    let mut wall = linker.instance(&format!("wasi:clocks/wall-clock@{VERSION}"))?;
    wall.func_wrap("now", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok((datetime(since.map_or(0, |since| since.as_secs())),))
    })?;
    wall.func_wrap("resolution", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store)?;
        Ok((datetime(1),))
    })
}

fn add_monotonic(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut monotonic = linker.instance(&format!("wasi:clocks/monotonic-clock@{VERSION}"))?;
    monotonic.func_wrap("now", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store)?;
        Ok((coarse(START.elapsed()),))
    })?;
    monotonic.func_wrap("resolution", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store)?;
        Ok((MONOTONIC_STEP,))
    })?;
    for name in ["subscribe-instant", "subscribe-duration"] {
        monotonic.func_wrap(name, |_: Ctx<'_>, (_when,): (u64,)| {
            let sleeps = "waited for a clock, which handlers may not".to_owned();
            Err::<(Resource<Pollable>,), _>(Exceeded::Forbidden(sleeps).into())
        })?;
    }
    Ok(())
}

fn coarse(elapsed: Duration) -> u64 {
    let nanos = nanos(elapsed);
    nanos - nanos % MONOTONIC_STEP
}

const fn datetime(seconds: u64) -> Datetime {
    Datetime {
        seconds,
        nanoseconds: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_in_milliseconds() {
        assert_eq!(coarse(Duration::from_nanos(2_999_999)), 2_000_000);
    }
}
