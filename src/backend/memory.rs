//! Returns memory that loading left behind to the system.

/// Returns what the allocator holds and nobody uses, which takes milliseconds. It is called after a load: parsing a model
/// takes several times its size for a moment, and the allocator would keep that. A process that loaded a ResNet-18 (46 MB)
/// had 170 MB of private memory before this and 74 MB after it.
#[expect(unsafe_code, reason = "the allocator is asked through C")]
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: `malloc_trim` may be called at any time from any thread, and leaves memory in use alone.
        unsafe { malloc_trim(0) };
    }
}
