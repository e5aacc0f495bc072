//! `lantern signer`: makes a key to sign archives with, and shows its public half.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Failure;
use crate::signing::{Signer, SigningKey};

/// Arguments of `lantern signer`.
#[derive(Debug, Args)]
pub struct SignerArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key: the private half in a new file, the public one as a line for `signers` of a tenant
    New {
        /// File for the private key, which only its owner can read; none is replaced
        #[arg(value_name = "KEY.pem")]
        file: PathBuf,
    },
    /// Show the public half of a private key, as `signers` and `lantern verify --signer` take it
    Show {
        /// File of the private key (PKCS #8 in PEM)
        #[arg(value_name = "KEY.pem")]
        file: PathBuf,
    },
}

/// Runs the subcommand.
pub fn run(args: &SignerArgs) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    match &args.command {
        Command::New { file } => {
            let key = SigningKey::create(file)?;
            write_new(&mut out, file, &key.signer())?;
        }
        Command::Show { file } => writeln!(out, "{}", SigningKey::load(file)?.signer())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write_new(out: &mut impl Write, file: &std::path::Path, signer: &Signer) -> io::Result<()> {
    writeln!(out, "The private key is in {}.\n", file.display())?;
    writeln!(out, "The line for `signers` of a tenant:\n- {signer}")
}
