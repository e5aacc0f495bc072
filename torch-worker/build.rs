//! Builds the C++ shim, and tells the linker where libtorch lies at run time and to leave out what nothing refers to.
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
    build_shim();
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_LIB");
    println!("cargo:rustc-link-arg=-Wl,--as-needed");
    // A directory with the program and its libraries may be moved: that of the program is searched first, then `lib` beside
    // it, and the place of the build last.
    for directory in ["$ORIGIN", "$ORIGIN/../lib"] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{directory}");
    }
    let root = env::var_os("LIBTORCH_LIB").or_else(|| env::var_os("LIBTORCH"));
    let lib = root.map(|root| PathBuf::from(root).join("lib"));
    if let Some(lib) = lib.filter(|lib| lib.is_dir()) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}

/// Against the headers and with the ABI that `torch-sys` is built with.
fn build_shim() {
    for file in [
        "shim.h",
        "common.h",
        "module.cpp",
        "state.cpp",
        "values.cpp",
    ] {
        println!("cargo:rerun-if-changed=shim/{file}");
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let root = env::var_os("LIBTORCH_INCLUDE").or_else(|| env::var_os("LIBTORCH"));
    let include = PathBuf::from(root.unwrap_or_else(|| "/usr".into())).join("include");
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .std("c++17")
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", &*abi)
        .includes([include.join("torch/csrc/api/include"), include])
        .files(["shim/module.cpp", "shim/state.cpp", "shim/values.cpp"])
        .compile("lantern_shim");
}
