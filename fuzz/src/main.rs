//! The fuzzer: one program for all targets of `lantern::fuzzing`.
//!
//! `LANTERN_FUZZ_TARGET` names the target; without it the program lists them and ends. One program is linked, not one for each
//! target, because linking takes longest. `make fuzz` runs it for each target in turn.

#![no_main]

use std::sync::LazyLock;

use lantern::fuzzing;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("LANTERN_FUZZ_TARGET").unwrap_or_default();
    fuzzing::target(&name).unwrap_or_else(|| {
        for (name, _) in fuzzing::targets() {
            println!("{name}");
        }
        std::process::exit(i32::from(!name.is_empty()));
    })
});

libfuzzer_sys::fuzz_target!(
    init: {
        LazyLock::force(&TARGET);
    },
    |data: &[u8]| TARGET(data)
);
