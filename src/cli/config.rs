//! `lantern config`: every setting, its value, and where the value comes from.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Failure;
use super::serve::ServeArgs;
use crate::config::server::{Environment, ServerConfig, Setting};
use crate::server::TlsConfig;

/// Flags of `lantern config`: those of `lantern serve`, whose settings are shown.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// What would be given to `lantern serve`.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Prints the settings; what is wrong with them, or with the certificate that they name, is a failure, as it would be for
/// the server.
pub fn run(args: ConfigArgs) -> Result<ExitCode, Failure> {
    let environment = Environment::of_process();
    let config = super::serve::load(&args.serve.into_flags(), &environment)?;
    if config.values.needs_tls() {
        TlsConfig::new(&config).check()?;
    }
    let settings = config.report(&environment);
    let mut out = io::stdout().lock();
    let written = if args.json {
        write_json(&mut out, &config, &settings)
    } else {
        write_table(&mut out, &settings).and_then(|()| write_warnings(&config))
    };
    // A reader that has seen enough, such as `head`, is no failure.
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn write_table(out: &mut impl Write, settings: &[Setting]) -> io::Result<()> {
    let width = |column: fn(&Setting) -> usize| settings.iter().map(column).max().unwrap_or(0);
    let key = width(|setting| setting.key.len());
    let value = width(|setting| shown(setting).chars().count()).min(60);
    for setting in settings {
        let (text, source) = (shown(setting), &setting.source);
        let ignored = if setting.ignored.is_some() {
            " (ignored)"
        } else {
            ""
        };
        writeln!(
            out,
            "{:<key$}  {text:<value$}  {source}{ignored}",
            setting.key
        )?;
    }
    Ok(())
}

/// The value on one line.
fn shown(setting: &Setting) -> String {
    if setting.value.is_empty() {
        return "-".to_owned();
    }
    setting
        .value
        .escape_debug()
        .to_string()
        .replace("\\\"", "\"")
}

fn write_warnings(config: &ServerConfig) -> io::Result<()> {
    let mut error = io::stderr().lock();
    for warning in &config.warnings {
        writeln!(error, "warning: {warning}")?;
    }
    Ok(())
}

fn write_json(out: &mut impl Write, config: &ServerConfig, settings: &[Setting]) -> io::Result<()> {
    let rows = settings.iter().map(|setting| {
        let value = (!setting.value.is_empty()).then_some(&setting.value);
        let row = json!({"value": value, "source": setting.source, "ignored": setting.ignored});
        (setting.key.to_owned(), row)
    });
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    let settings: serde_json::Map<_, _> = rows.collect();
    let document = json!({"settings": settings, "warnings": warnings});
    writeln!(out, "{document:#}")
}
