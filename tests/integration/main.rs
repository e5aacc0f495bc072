//! The server as clients meet it: started on free ports with real handlers and models, asked over HTTP.

#![allow(clippy::unwrap_used, clippy::too_many_lines)]

mod process;
