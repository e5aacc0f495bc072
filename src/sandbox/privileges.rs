//! What a process can never get back: privileges of programs that it would execute, capabilities, the attention of tracers.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::{Outcome, refused};

/// Gives up every privilege for good.
pub(super) fn drop() -> Outcome {
    Outcome::of(try_drop().map(|()| String::new()))
}

fn try_drop() -> Result<(), String> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(|error| refused("capabilities", error))?;
    set_no_new_privs(true).map_err(|error| refused("no_new_privs", error))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| refused("dumpable", error))
}
