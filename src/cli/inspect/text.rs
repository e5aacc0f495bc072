//! The report on an archive as text, for people.

use std::io::{self, Write};

use super::{Report, Tensors, signer};
use crate::config::server::keys;
use crate::config::show_size;
use crate::handler::ComponentInfo;
use crate::model::{Limits, TensorSpec};

/// Writes the report.
pub fn render(out: &mut impl Write, report: &Report) -> io::Result<()> {
    manifest(out, report)?;
    files(out, &report.archive.files)?;
    if let Some(info) = &report.handler {
        handler(out, info)?;
    }
    limits(out, report)?;
    tensors(out, &report.tensors)?;
    for warning in report
        .archive
        .contents
        .iter()
        .flat_map(|contents| &contents.config.warnings)
    {
        writeln!(out, "\nwarning: {warning}")?;
    }
    match &report.refusal {
        Some(reason) => writeln!(out, "\nnot servable: {reason}"),
        None => Ok(()),
    }
}

fn row(out: &mut impl Write, key: &str, value: impl std::fmt::Display) -> io::Result<()> {
    writeln!(out, "  {key:<14}{value}")
}

fn manifest(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let manifest = &report.archive.manifest;
    let name = manifest
        .name
        .as_ref()
        .map_or("(none)", |name| name.as_str());
    writeln!(out, "{name} {}", manifest.version)?;
    row(out, "sha256", &report.archive.digest)?;
    row(out, "contents", report.archive.contents_digest)?;
    match (signer(report), &report.archive.origin) {
        (Some(signer), _) => row(out, "signer", signer)?,
        (None, Ok(_)) => row(out, "signer", "(none)")?,
        (None, Err(_)) => row(out, "signer", "(the signature is not good)")?,
    }
    row(out, "runtime", manifest.runtime.name())?;
    if let Some(artifact) = &manifest.serialized_file {
        row(out, "weights", artifact.as_str())?;
    }
    if let Some(config) = &manifest.config_file {
        row(out, "settings", config.as_str())?;
    }
    match &report.archive.contents {
        Ok(contents) => {
            row(out, "handler", contents.handler.as_str())?;
            row(out, "backend", contents.backend.name())
        }
        Err(_) => row(
            out,
            "handler",
            manifest.handler.as_deref().unwrap_or("(none)"),
        ),
    }
}

fn files(out: &mut impl Write, files: &[(String, u64)]) -> io::Result<()> {
    let total = files.iter().map(|(_, size)| size).sum();
    writeln!(out, "\nfiles ({}, {})", files.len(), show_size(total))?;
    files
        .iter()
        .try_for_each(|(name, size)| writeln!(out, "  {:>10}  {name}", show_size(*size)))
}

fn handler(out: &mut impl Write, info: &ComponentInfo) -> io::Result<()> {
    writeln!(out, "\nhandler")?;
    row(
        out,
        "world",
        info.world.unwrap_or("none that this server runs"),
    )?;
    list(out, "imports", &info.imports)?;
    list(out, "exports", &info.exports)?;
    if !info.forbidden.is_empty() {
        list(out, "forbidden", &info.forbidden)?;
    }
    let code = format!("{} functions in {} modules", info.functions, info.modules);
    row(out, "code", code)
}

fn list(out: &mut impl Write, key: &str, names: &[String]) -> io::Result<()> {
    match names.split_first() {
        None => row(out, key, "none"),
        Some((first, rest)) => {
            row(out, key, first)?;
            rest.iter().try_for_each(|name| row(out, "", name))
        }
    }
}

/// Writes each limit: what the archive asks for, or the default.
fn limits(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let Ok(contents) = &report.archive.contents else {
        return Ok(());
    };
    let asked = &contents.config.options.limits;
    let base = Limits::default();
    let bytes = |size: usize| show_size(size as u64);
    writeln!(out, "\nlimits")?;
    row(out, "memory", bytes(asked.memory.unwrap_or(base.memory)))?;
    row(
        out,
        "cpu",
        format!("{:?} per call", asked.cpu.unwrap_or(base.cpu)),
    )?;
    row(
        out,
        "init cpu",
        format!("{:?}", asked.init_cpu.unwrap_or(base.init_cpu)),
    )?;
    row(out, "output", bytes(asked.output.unwrap_or(base.output)))?;
    row(
        out,
        "response",
        asked.response.map_or_else(response_of_server, bytes),
    )?;
    row(
        out,
        "host calls",
        asked.host_calls.unwrap_or(base.host_calls),
    )?;
    row(out, "instances", asked.instances.unwrap_or(base.instances))
}

/// The limit of an archive that asks for none, which is the server's.
fn response_of_server() -> String {
    let key = keys().find(|key| key.name == "max_response_size");
    let default = key.map_or("", |key| key.default);
    format!("max_response_size of the server, {default} bytes unless it is set")
}

fn tensors(out: &mut impl Write, tensors: &Tensors) -> io::Result<()> {
    let (title, signature, batching) = match tensors {
        Tensors::Known(signature, batching) => ("model", signature, Some(batching)),
        Tensors::Declared(signature) => ("model (as declared)", signature, None),
        Tensors::Unknown(reason) => {
            return writeln!(out, "\nmodel\n  inputs and outputs are not known: {reason}");
        }
    };
    writeln!(out, "\n{title}")?;
    specs(out, "inputs", &signature.inputs)?;
    specs(out, "outputs", &signature.outputs)?;
    match batching {
        Some(batching) => row(out, "batching", batching),
        None => Ok(()),
    }
}

fn specs(out: &mut impl Write, key: &str, specs: &[TensorSpec]) -> io::Result<()> {
    let texts: Vec<_> = specs.iter().map(ToString::to_string).collect();
    list(out, key, &texts)
}
