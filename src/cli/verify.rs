//! `lantern verify`: says whose signatures archives have, and whether they are good.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::Failure;
use crate::archive::{ContentsDigest, Location, Origin, UnpackLimits, inventory};
use crate::signing::{Signer, Signers};

/// Flags of `lantern verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Archives (.mar, .tar.gz) or unpacked directories
    #[arg(value_name = "ARCHIVE", required = true)]
    pub archives: Vec<PathBuf>,
    /// Who must have signed them: a public key as `lantern signer show` prints it, or any of several; without it, whoever did
    #[arg(long = "signer", value_name = "KEY")]
    pub signers: Vec<Signer>,
}

/// What is known of one archive.
struct Verdict {
    contents: Option<ContentsDigest>,
    /// Whoever signed it, if the signature is good.
    signer: Option<Signer>,
    /// What is wrong.
    fault: Option<String>,
}

/// Says of each archive what it holds and who signed it. Fails unless each has a good signature, of one of the signers if some are named.
pub fn run(args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let signers = signers(&args.signers);
    let mut are_good = true;
    for path in &args.archives {
        let verdict = verdict(path, &signers);
        are_good &= verdict.fault.is_none();
        write_verdict(&mut io::stdout().lock(), path, &verdict)?;
    }
    Ok(if are_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn signers(named: &[Signer]) -> Signers {
    if named.is_empty() {
        return Signers::default();
    }
    Signers::only(named.iter().copied().collect())
}

fn verdict(path: &Path, signers: &Signers) -> Verdict {
    let location = Location::local(path);
    let found = location.and_then(|location| inventory(&location, UnpackLimits::default()));
    let (contents, origin) = match found {
        Ok(inventory) => (Some(inventory.digest()), inventory.origin()),
        Err(error) => (None, Err(error)),
    };
    let (signer, fault) = match origin {
        Ok(Origin { signer: None, .. }) => (None, Some("nobody signed it".to_owned())),
        Ok(Origin { signer, .. }) if signers.allow(signer.as_ref()) => (signer, None),
        Ok(Origin { signer, .. }) => (signer, Some("another signer signed it".to_owned())),
        Err(error) => (None, Some(Failure::from(error).message().to_owned())),
    };
    Verdict {
        contents,
        signer,
        fault,
    }
}

fn write_verdict(out: &mut impl Write, path: &Path, verdict: &Verdict) -> io::Result<()> {
    writeln!(out, "{}", path.display())?;
    if let Some(contents) = verdict.contents {
        writeln!(out, "  contents   {contents}")?;
    }
    if let Some(signer) = verdict.signer {
        writeln!(out, "  signer     {signer}")?;
    }
    match &verdict.fault {
        None => writeln!(out, "  signature  good"),
        Some(fault) if verdict.contents.is_none() => {
            writeln!(out, "  archive    NOT READ: {fault}")
        }
        Some(fault) => writeln!(out, "  signature  NOT GOOD: {fault}"),
    }
}
