//! gRPC on both of its listeners, by clients of tonic and by hand.

mod calls;
mod health;
mod hostile;
mod management;
mod predictions;
mod reflection;
mod replay;
mod streams;
mod transport;
