//! Tells the linker where libtorch lies at run time, and to leave out what nothing refers to.
//!
//! `torch-sys` asks for `libtorch_cuda` wherever it lies beside libtorch. Nothing refers to it, so `--as-needed` keeps
//! it out of the program, which then runs on machines without CUDA and opens it where there is some.

#![allow(
    clippy::disallowed_methods,
    reason = "a build script is configured by its environment"
)]

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_LIB");
    println!("cargo:rustc-link-arg=-Wl,--as-needed");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    let root = env::var_os("LIBTORCH_LIB").or_else(|| env::var_os("LIBTORCH"));
    let lib = root.map(|root| PathBuf::from(root).join("lib"));
    if let Some(lib) = lib.filter(|lib| lib.is_dir()) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
