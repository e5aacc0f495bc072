//! `lantern tenants`: the file of tenants, checked as a server would, and keys for it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::Failure;
use crate::archive::check_urls;
use crate::config::tenants;
use crate::token::{Key, TenantScope};

/// Arguments of `lantern tenants`.
#[derive(Debug, Args)]
pub struct TenantsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what is wrong with a file of tenants, or which there are
    Check {
        /// The file that the setting `lantern_tenants` is to name
        file: PathBuf,
    },
    /// Make a key: the key itself, for its owner, and the line for the file
    Key {
        /// What people call the key
        #[arg(long)]
        label: Option<String>,
        /// What it opens
        #[arg(long = "scope", value_enum, default_values_t = [ScopeArg::Predict])]
        scopes: Vec<ScopeArg>,
    },
}

/// Values of `--scope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScopeArg {
    /// Running models
    Predict,
    /// Seeing and changing models
    Manage,
    /// Seeing metrics and logs
    Observe,
}

impl ScopeArg {
    const fn scope(self) -> TenantScope {
        match self {
            Self::Predict => TenantScope::Predict,
            Self::Manage => TenantScope::Manage,
            Self::Observe => TenantScope::Observe,
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &TenantsArgs) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    let written = match &args.command {
        Command::Check { file } => write_tenants(&mut out, &tenants::load(file, check_urls)?),
        Command::Key { label, scopes } => {
            let key = Key::random().map_err(|error| {
                Failure::new(format!("the system gives no random numbers ({error})"))
            })?;
            write_key(&mut out, &key, label.as_deref(), scopes)
        }
    };
    // A reader that has seen enough, such as `head`, is no failure.
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn write_tenants(out: &mut impl Write, file: &tenants::TenantsFile) -> io::Result<()> {
    for (name, tenant) in &file.tenants {
        let keys = tenant.keys.len();
        let signers = tenant.signers.required().map(BTreeSet::len);
        let signers = signers.map(|count| format!(", signers {count}"));
        let suspended = if tenant.is_suspended {
            ", suspended"
        } else {
            ""
        };
        writeln!(
            out,
            "{name}: keys {keys}{}{suspended}",
            signers.unwrap_or_default()
        )?;
    }
    Ok(())
}

fn write_key(
    out: &mut impl Write,
    key: &Key,
    label: Option<&str>,
    scopes: &[ScopeArg],
) -> io::Result<()> {
    let scopes: Vec<_> = scopes.iter().map(|scope| scope.scope().name()).collect();
    let label = label.map(|label| format!(", label: {}", serde_json::Value::from(label)));
    writeln!(
        out,
        "The key, which is shown this once:\n{}\n",
        key.expose()
    )?;
    writeln!(
        out,
        "The line for `keys` of its tenant:\n- {{sha256: \"{}\"{}, scopes: [{}]}}",
        key.digest().hex(),
        label.unwrap_or_default(),
        scopes.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_key_is_one_that_a_file_may_have() {
        let (mut out, key) = (Vec::new(), Key::random().unwrap());
        let scopes = [ScopeArg::Predict, ScopeArg::Observe];
        write_key(&mut out, &key, Some("a \"label\": x"), &scopes).unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = text.lines().last().unwrap();
        let file = format!("tenants:\n  acme:\n    keys:\n      {line}\n");
        let tenants = tenants::parse("t.yaml", file.as_bytes(), check_urls).unwrap();
        let [read] = &tenants.tenants["acme"].keys[..] else {
            panic!("{text}");
        };
        assert_eq!(read.digest, key.digest());
        assert_eq!(read.label.as_deref(), Some("a \"label\": x"));
        assert_eq!(read.scopes.len(), 2);
        assert!(text.contains(key.expose()));
    }
}
