//! Whether a framework's error text says that the device is out of memory or unusable, or that this run alone failed.
//!
//! Frameworks report CUDA errors as text only. The phrases are those of the CUDA runtime, the same for every framework.

use super::BackendError;

/// Errors of an allocator that had no memory left; the device remains usable.
const OUT_OF_MEMORY: [&str; 6] = [
    "out of memory",
    "failed to allocate memory",
    "cuda_error_out_of_memory",
    "bad_alloc",
    "can't allocate memory",
    "cublas_status_alloc_failed",
];

/// Errors that leave the CUDA context, and so the process, unusable: every later call fails with the same text.
const STICKY: [&str; 15] = [
    "illegal memory access",
    "cudaerrorillegaladdress",
    "device-side assert",
    "unspecified launch failure",
    "misaligned address",
    "illegal instruction",
    "invalid program counter",
    "hardware stack error",
    "the launch timed out",
    "uncorrectable ecc",
    "nvlink error",
    "cuda failure 700",
    "cuda failure 719",
    "driver shutting down",
    "has fallen off the bus",
];

/// Makes [`BackendError::OutOfMemory`] or [`BackendError::Fatal`] of a text that says so, otherwise what `otherwise` says.
pub fn classify(text: String, otherwise: fn(String) -> BackendError) -> BackendError {
    let lower = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&STICKY) {
        BackendError::Fatal(text)
    } else if says(&OUT_OF_MEMORY) {
        BackendError::OutOfMemory(text)
    } else {
        otherwise(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(text: &str) -> BackendError {
        classify(text.to_owned(), BackendError::Infer)
    }

    #[test]
    fn sticky_cuda_errors_are_fatal() {
        for text in [
            "CUDA error: an illegal memory access was encountered",
            "CUDA failure 700: an illegal memory access was encountered ; GPU=0",
            "CUDA error: device-side assert triggered",
            "cudaErrorIllegalAddress",
        ] {
            assert_eq!(classified(text), BackendError::Fatal(text.into()));
        }
    }

    #[test]
    fn lack_of_memory_is_not_fatal() {
        for text in [
            "CUDA out of memory. Tried to allocate 20.00 GiB",
            "Failed to allocate memory for requested buffer of size 8589934592",
            "std::bad_alloc",
            "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
        ] {
            assert_eq!(classified(text), BackendError::OutOfMemory(text.into()));
        }
    }

    #[test]
    fn other_failures_stay_what_they_are() {
        let text = "indices element out of data bounds";
        assert_eq!(classified(text), BackendError::Infer(text.into()));
    }
}
