//! gRPC as clients meet it, on both of its listeners.

mod health;
mod management;
mod predictions;
