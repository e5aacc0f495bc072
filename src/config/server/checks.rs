//! Rules for several settings together, checked once each has been read.

use std::net::IpAddr;

use super::super::Problem;

use super::Values;
use super::reader::Reader;
use crate::listen::{Address, CertificateSource, Password};

/// Certificate and key, which come together in two files or in a keystore. As in TorchServe, the two files come first.
pub fn certificate(reader: &mut Reader<'_>, values: &Values) -> Option<CertificateSource> {
    for (key, path) in [
        ("certificate_file", &values.certificate_file),
        ("private_key_file", &values.private_key_file),
        ("keystore", &values.keystore),
    ] {
        if path.as_deref().is_some_and(|path| !path.is_file()) {
            missing(reader, key, values.needs_tls());
        }
    }
    match (&values.certificate_file, &values.private_key_file) {
        (Some(certificate), Some(key)) => Some(CertificateSource::Pem {
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        (Some(_), None) => half(reader, "certificate_file", "private_key_file"),
        (None, Some(_)) => half(reader, "private_key_file", "certificate_file"),
        (None, None) => values
            .keystore
            .clone()
            .map(|file| CertificateSource::Keystore {
                file,
                password: Password::new(values.keystore_pass.clone().unwrap_or_default()),
            }),
    }
}

/// A file that is not there stops the start where it is needed.
fn missing(reader: &mut Reader<'_>, key: &'static str, is_needed: bool) {
    let Some(entry) = reader.entry(key) else {
        return;
    };
    let rule = "must be a file";
    if is_needed {
        reader.add(Problem::new(entry.origin, key, rule, entry.value));
    } else {
        reader.warn_of(key, &entry, rule);
    }
}

fn half(reader: &mut Reader<'_>, there: &str, missing: &str) -> Option<CertificateSource> {
    if let Some(entry) = reader.entry(there) {
        let rule = format!("needs {missing} beside it");
        reader.add(Problem::new(entry.origin, there, rule, entry.value));
    }
    None
}

/// Clients show a certificate in the handshake, which there must be somewhere. Where other machines come in without one,
/// the operator is told.
pub fn client_ca(reader: &mut Reader<'_>, values: &Values) {
    let Some(entry) = reader.entry("lantern_client_ca") else {
        return;
    };
    if values.lantern_client_ca.is_some() && !values.needs_tls() {
        let rule =
            "needs a listener that speaks TLS, an address of https:// or enable_grpc_ssl=true";
        reader.add(Problem::new(
            entry.origin,
            "lantern_client_ca",
            rule,
            entry.value,
        ));
        return;
    }
    for (key, reach) in reaches(values) {
        if reach == Reach::Open && values.lantern_client_ca.is_some() {
            let rule = format!("does not hold for {key}, which other machines reach without TLS");
            reader.warn_of("lantern_client_ca", &entry, rule);
        }
    }
}

/// Logs never hold up a request, which is what `async_logging` is for.
pub fn logs(reader: &mut Reader<'_>, values: &Values) {
    let typed = reader.entry("async_logging");
    if let Some(entry) = typed.filter(|_| !values.async_logging) {
        let rule = "has no effect: logs are always written beside the requests";
        reader.warn_of("async_logging", &entry, rule);
    }
}

/// What of `allowed_urls` is not in force. It allows nothing, so that no start is stopped.
pub fn urls(reader: &mut Reader<'_>, values: &Values) {
    let Some(entry) = reader.entry("allowed_urls") else {
        return;
    };
    for rule in (reader.check_urls)(&values.allowed_urls, values.lantern_allow_any_url) {
        reader.warn_of("allowed_urls", &entry, rule);
    }
}

/// Without tokens, whoever reaches a socket may do what it offers. That is what TorchServe's own container does, so
/// there is a warning and no error.
pub fn reach(reader: &mut Reader<'_>, values: &Values) {
    if values.lantern_allow_public || !values.disable_token_authorization {
        return;
    }
    for (key, reach) in reaches(values) {
        let is_open = match reach {
            Reach::Local => false,
            Reach::Encrypted => values.lantern_client_ca.is_none(),
            Reach::Open => true,
        };
        if let Some(entry) = reader.entry(key).filter(|_| is_open) {
            let rule = "is open to other machines, and no token is asked for: set lantern_allow_public=true if \
                        something else keeps strangers out";
            reader.warn_of(key, &entry, rule);
        }
    }
}

/// Without tokens everybody is the operator, and reaches what every tenant has.
pub fn tenants(reader: &mut Reader<'_>, values: &Values) {
    if !values.disable_token_authorization {
        return;
    }
    if let Some(entry) = reader.entry("lantern_tenants") {
        let rule =
            "needs tokens, which disable_token_authorization (--disable-token-auth) switches off";
        reader.add(Problem::new(
            entry.origin,
            "lantern_tenants",
            rule,
            entry.value,
        ));
    }
}

/// How the clients of a listener reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// From this machine alone.
    Local,
    /// From other machines, over TLS.
    Encrypted,
    /// From other machines, as it is.
    Open,
}

/// Of each listener, by the key of its address.
fn reaches(values: &Values) -> [(&'static str, Reach); 5] {
    let reach = |is_local, is_tls| match (is_local, is_tls) {
        (true, _) => Reach::Local,
        (false, true) => Reach::Encrypted,
        (false, false) => Reach::Open,
    };
    let http = |address: &Address| reach(address.is_local(), address.is_tls());
    let grpc = |host: IpAddr| reach(host.is_loopback(), values.enable_grpc_ssl);
    [
        ("inference_address", http(&values.inference_address)),
        ("management_address", http(&values.management_address)),
        ("metrics_address", http(&values.metrics_address)),
        (
            "grpc_inference_address",
            grpc(values.grpc_inference_address),
        ),
        (
            "grpc_management_address",
            grpc(values.grpc_management_address),
        ),
    ]
}

/// A directory of temporary files that is said and is not there is a typing error. TorchServe does not start; here other
/// directories take its place.
pub fn temporary_directory(reader: &mut Reader<'_>) {
    let named = reader.environment.named_temp_directory();
    if let Some(directory) = named.filter(|directory| !directory.is_dir()) {
        let rule = format!(
            "Invalid temp directory: {}, please check TEMP environment variable.",
            directory.display()
        );
        reader.add_warning(Problem::plain("", "", rule));
    }
}
