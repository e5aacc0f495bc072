//! Rules for several settings together, checked once each has been read.

use super::super::Problem;

use super::reader::Reader;
use super::{TlsConfig, Values};

/// Certificate and key, which come together. A keystore is Java's: a message says how to convert it.
pub fn tls(reader: &mut Reader<'_>, values: &Values) -> Option<TlsConfig> {
    let pem = match (&values.certificate_file, &values.private_key_file) {
        (Some(certificate), Some(key)) => Some(TlsConfig {
            certificate_file: certificate.clone(),
            private_key_file: key.clone(),
        }),
        (Some(_), None) => half(reader, "certificate_file", "private_key_file"),
        (None, Some(_)) => half(reader, "private_key_file", "certificate_file"),
        (None, None) => None,
    };
    keystore(reader, values, values.needs_tls() && pem.is_none());
    pem
}

fn half(reader: &mut Reader<'_>, there: &str, missing: &str) -> Option<TlsConfig> {
    if let Some(entry) = reader.entry(there) {
        let rule = format!("needs {missing} beside it");
        reader.add(Problem::new(entry.origin, there, rule, entry.value));
    }
    None
}

fn keystore(reader: &mut Reader<'_>, values: &Values, is_needed: bool) {
    let Some((entry, path)) = reader.entry("keystore").zip(values.keystore.as_deref()) else {
        return;
    };
    let kind = values.keystore_type.as_deref().unwrap_or_default();
    let rule = format!(
        "is not read: convert it to PEM and name the two files by certificate_file and private_key_file: {}",
        conversion(path, kind)
    );
    if is_needed {
        let problem = Problem::new(entry.origin, "keystore", rule, entry.value);
        reader.add(problem);
    } else {
        reader.warn_of("keystore", &entry, rule);
    }
}

/// The commands that take certificate and key out of a keystore; a JKS becomes PKCS#12 first.
fn conversion(path: &str, kind: &str) -> String {
    let take = |path: &str| {
        format!(
            "openssl pkcs12 -in '{path}' -clcerts -nokeys -out certificate.pem && \
             openssl pkcs12 -in '{path}' -nocerts -nodes -out private_key.pem"
        )
    };
    if kind.eq_ignore_ascii_case("JKS") {
        let import = format!(
            "keytool -importkeystore -srckeystore '{path}' -destkeystore keystore.p12 -deststoretype PKCS12"
        );
        return format!("{import} && {}", take("keystore.p12"));
    }
    take(path)
}

/// Logs never hold up a request, which is what `async_logging` is for.
pub fn logs(reader: &mut Reader<'_>, values: &Values) {
    let typed = reader.entry("async_logging");
    if let Some(entry) = typed.filter(|_| !values.async_logging) {
        let rule = "has no effect: logs are always written beside the requests";
        reader.warn_of("async_logging", &entry, rule);
    }
}

/// Without tokens, whoever reaches a socket may do what it offers. That is what TorchServe's own container does, so
/// there is a warning and no error.
pub fn reach(reader: &mut Reader<'_>, values: &Values) {
    if values.lantern_allow_public || !values.disable_token_authorization {
        return;
    }
    let is_public = [
        ("inference_address", !values.inference_address.is_local()),
        ("management_address", !values.management_address.is_local()),
        ("metrics_address", !values.metrics_address.is_local()),
        (
            "grpc_inference_address",
            !values.grpc_inference_address.is_loopback(),
        ),
        (
            "grpc_management_address",
            !values.grpc_management_address.is_loopback(),
        ),
    ];
    for (key, is_public) in is_public {
        if let Some(entry) = reader.entry(key).filter(|_| is_public) {
            let rule = "is open to other machines, and no token is asked for: set lantern_allow_public=true if \
                        something else keeps strangers out";
            reader.warn_of(key, &entry, rule);
        }
    }
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
