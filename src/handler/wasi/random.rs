//! `wasi:random`: the operating system's generator, a little at a time. Rust's `HashMap` asks for a seed.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::super::fault::Exceeded;
use super::super::host::Host;
use super::{VERSION, charge};

/// Most bytes that one call may ask for.
const BYTES_LIMIT: u64 = 4096;

type Ctx<'a> = StoreContextMut<'a, Host>;

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    for (interface, infix) in [("random", ""), ("insecure", "insecure-")] {
        let mut random = linker.instance(&format!("wasi:random/{interface}@{VERSION}"))?;
        random.func_wrap(
            &format!("get-{infix}random-bytes"),
            |mut store: Ctx<'_>, (len,): (u64,)| {
                charge(&mut store)?;
                Ok((bytes(len)?,))
            },
        )?;
        random.func_wrap(
            &format!("get-{infix}random-u64"),
            |mut store: Ctx<'_>, (): ()| {
                charge(&mut store)?;
                Ok((getrandom::u64()?,))
            },
        )?;
    }
    let mut seed = linker.instance(&format!("wasi:random/insecure-seed@{VERSION}"))?;
    seed.func_wrap("insecure-seed", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store)?;
        Ok(((getrandom::u64()?, getrandom::u64()?),))
    })
}

fn bytes(len: u64) -> wasmtime::Result<Vec<u8>> {
    if len > BYTES_LIMIT {
        let what = format!("asked for {len} random bytes at once, at most {BYTES_LIMIT} are given");
        return Err(Exceeded::Forbidden(what).into());
    }
    let mut bytes = vec![0; usize::try_from(len)?];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_comes_a_little_at_a_time() {
        assert_eq!(bytes(32).unwrap().len(), 32);
        assert_ne!(bytes(32).unwrap(), bytes(32).unwrap());
        assert!(bytes(BYTES_LIMIT + 1).is_err());
        assert!(bytes(u64::MAX).is_err());
    }
}
