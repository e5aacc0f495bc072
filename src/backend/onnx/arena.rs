//! The memory that runs compute in: one arena of ONNX Runtime's for all sessions of the process, which grows with what runs need at the
//! same time and never shrinks by itself.
//!
//! It takes from the allocator what is asked for, and not the next power of two. It is told to give back what is free by a run of a
//! model that does nothing.

use std::ptr;

use ort::AsPointer as _;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::RunOptions;
use ort::session::builder::SessionBuilder;

use super::{empty, session};

/// The arena takes what it is asked for.
const AS_REQUESTED: usize = 1;

/// Makes the arena. Sessions use it that are made [with the environment's allocators](SessionBuilder::with_env_allocators).
#[expect(unsafe_code, reason = "ort cannot register an arena")]
pub(super) fn register(environment: &Environment) -> Result<(), ort::Error> {
    let place = MemoryInfo::new(
        AllocationDevice::CPU,
        0,
        AllocatorType::Arena,
        MemoryType::Default,
    )?;
    let (key, value) = (c"arena_extend_strategy".as_ptr(), AS_REQUESTED);
    let mut cfg = ptr::null_mut();
    // SAFETY: one key, which is NUL-terminated, and one value are given; the status is used once.
    unsafe {
        let make = ort::api().CreateArenaCfgV2;
        ort::Error::result_from_status(make(&raw const key, &raw const value, 1, &raw mut cfg))
    }?;
    // SAFETY: environment, place and configuration live during the call, which copies the latter two. The configuration is released
    // once, and the status used once.
    unsafe {
        let register = ort::api().CreateAndRegisterAllocator;
        let environment = environment.ptr().cast_mut();
        let status = register(environment, place.ptr(), cfg);
        (ort::api().ReleaseArenaCfg)(cfg);
        ort::Error::result_from_status(status)
    }
}

/// Has the arena give what is free back to the allocator. Takes milliseconds.
pub(super) fn give_back(environment: &Environment) -> Result<(), ort::Error> {
    let session = SessionBuilder::new(environment)?
        .with_intra_threads(1)?
        .with_env_allocators()?
        .commit_from_memory(&empty::model_of_nothing())?;
    let mut options = RunOptions::new()?;
    options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
    session::run_without_inputs(&session, empty::OUTPUT, Some(&options)).map(drop)
}
