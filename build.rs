//! Rust from `proto/`: messages, servers and clients, and the descriptors that reflection serves. Needs no `protoc`.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment and standard output"
)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;

/// Compiled as they are; what they import is found beside them.
const FILES: [&str; 4] = [
    "inference.proto",
    "management.proto",
    "open_inference.proto",
    "google/rpc/error_details.proto",
];
/// TorchServe's name of Open Inference Protocol's package, and the file that has it. Made from the standard one.
const ALIAS: &str = "package org.pytorch.serve.grpc.openinference;";
const ALIAS_FILE: &str = "open_inference_torchserve.proto";
const STANDARD: &str = "package inference;";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    write_alias(&out)?;
    let mut compiler = protox::Compiler::new([Path::new("proto"), &out])?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(FILES)?.open_file(ALIAS_FILE)?;
    let mut files = compiler.file_descriptor_set();
    fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    // The messages of both packages are the same on the wire: one Rust type serves both.
    files.file.retain(|file| file.name() != ALIAS_FILE);
    tonic_prost_build::configure()
        .build_transport(false)
        .codec_path("crate::api::grpc::codec::CountedFields")
        .bytes(".")
        .extern_path(
            ".inference.InferTensorContents",
            "crate::api::grpc::contents::InferTensorContents",
        )
        .btree_map(".org.pytorch.serve.grpc.inference.PredictionsRequest.input")
        .include_file("proto.rs")
        .compile_fds(files)?;
    Ok(())
}

fn write_alias(out: &Path) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string("proto/open_inference.proto")?;
    if text.matches(STANDARD).count() != 1 {
        return Err(format!("open_inference.proto must say `{STANDARD}` once").into());
    }
    fs::write(out.join(ALIAS_FILE), text.replace(STANDARD, ALIAS))?;
    Ok(())
}
