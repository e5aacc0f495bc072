//! From resolved settings to the listeners that speak gRPC.

use std::collections::BTreeMap;

use crate::api::{Listener, grpc};
use crate::config::server::{GrpcConfig, GrpcListenerConfig};
use crate::listen::Address;

/// Where they listen.
pub(super) fn addresses(settings: &GrpcConfig) -> [(Listener, Address); 2] {
    let tls = settings.tls;
    listeners(settings).map(|(listener, cfg)| {
        let socket = cfg.address;
        (listener, Address::Tcp { socket, tls })
    })
}

/// What holds for their connections.
pub(super) fn config(settings: &GrpcConfig) -> BTreeMap<Listener, grpc::Config> {
    let listeners = listeners(settings).map(|(listener, cfg)| {
        let cfg = grpc::Config {
            max_connection_age: cfg.max_connection_age,
            max_connection_age_grace: cfg.max_connection_age_grace,
        };
        (listener, cfg)
    });
    listeners.into()
}

const fn listeners(settings: &GrpcConfig) -> [(Listener, &GrpcListenerConfig); 2] {
    [
        (Listener::GrpcInference, &settings.inference),
        (Listener::GrpcManagement, &settings.management),
    ]
}
