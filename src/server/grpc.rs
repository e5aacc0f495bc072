//! From resolved settings to the listeners that speak gRPC.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::api::{Listener, grpc};
use crate::config::server::Values;
use crate::listen::Address;

/// Where they listen.
pub(super) fn addresses(values: &Values) -> [(Listener, Address); 2] {
    let tls = values.enable_grpc_ssl;
    let address = |host, port| {
        let socket = SocketAddr::new(host, port);
        Address::Tcp { socket, tls }
    };
    let inference = address(values.grpc_inference_address, values.grpc_inference_port);
    let management = address(values.grpc_management_address, values.grpc_management_port);
    [
        (Listener::GrpcInference, inference),
        (Listener::GrpcManagement, management),
    ]
}

/// What holds for their connections.
pub(super) fn config(values: &Values) -> BTreeMap<Listener, grpc::Config> {
    let inference = grpc::Config {
        max_connection_age: values.grpc_inference_max_connection_age_ms,
        max_connection_age_grace: values.grpc_inference_max_connection_age_grace_ms,
    };
    let management = grpc::Config {
        max_connection_age: values.grpc_management_max_connection_age_ms,
        max_connection_age_grace: values.grpc_management_max_connection_age_grace_ms,
    };
    BTreeMap::from([
        (Listener::GrpcInference, inference),
        (Listener::GrpcManagement, management),
    ])
}
