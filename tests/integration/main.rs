//! The server as clients meet it: started on free ports with real handlers and models, asked over HTTP.

#![allow(clippy::unwrap_used, clippy::too_many_lines)]

mod describing;
mod documents;
mod draining;
mod exposure;
mod faults;
mod grpc;
mod health;
mod hostile_bodies;
mod hostile_http;
mod hostile_management;
mod hostile_memory;
mod inference;
mod launching;
mod layering;
mod management;
mod management_rows;
mod metric_coverage;
mod metric_hostility;
mod metric_modes;
mod metrics;
mod oip;
mod process;
mod program;
mod recovery;
mod replay;
mod routes;
mod sagemaker;
mod snapshots;
mod sources;
mod support;
mod swapping;
mod tokens;
mod tools;
mod transport;
