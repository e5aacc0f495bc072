//! Reads a file and opens a socket. It compiles like any handler; a host refuses it for what it imports
//! (`wasi:filesystem`, `wasi:sockets`) before a line of it runs.

use std::fs;
use std::net::TcpStream;

use handler_sdk::{Context, Error, Handler, Outputs, Request, Response, Step};

/// A handler without state.
pub struct Forbidden;

impl Handler for Forbidden {
    fn init(_context: &Context) -> Result<Self, Error> {
        Ok(Self)
    }

    fn preprocess(&self, request: Request) -> Result<Step, Error> {
        let path = request.text()?;
        let secret = fs::read(path).map_err(|error| Error::internal(error.to_string()))?;
        let peer = TcpStream::connect("127.0.0.1:80").and_then(|stream| stream.peer_addr());
        Ok(Step::Done(
            Response::bytes("application/octet-stream", secret)
                .with_header("x-peer", format!("{peer:?}")),
        ))
    }

    fn postprocess(&self, _outputs: Outputs, _carry: &[u8]) -> Result<Response, Error> {
        Err(Error::internal("forbidden runs no model"))
    }
}

handler_sdk::export!(Forbidden);
