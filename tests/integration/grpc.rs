//! gRPC as clients meet it, on both of its listeners.

mod calls;
mod health;
mod hostile;
mod management;
mod predictions;
mod reflection;
mod replay;
mod streams;
mod transport;
