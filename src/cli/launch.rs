//! Starting in the background and stopping, as TorchServe's launcher does.
//!
//! Messages, their order, standard output and exit codes are those of that launcher, since scripts depend on them.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use super::pid::{self, PidFile, Process, State};
use super::serve::{self, ServeArgs};
use super::{Failure, banner};
use crate::config::server::Environment;

/// How long `--stop --foreground` waits.
const EXIT_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause between two checks whether the process has ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Flags of `lantern serve`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of torchserve"
)]
pub struct LaunchArgs {
    /// Start in the background
    #[arg(long, group = "action")]
    pub start: bool,
    /// Stop the server that was started in the background
    #[arg(long, group = "action")]
    pub stop: bool,
    /// Stay in the foreground; with --stop, wait until the server has ended
    #[arg(long)]
    pub foreground: bool,
    /// Leave the terminal's session: the server that `--start` started
    #[arg(long, hide = true)]
    pub detached: bool,
    /// The flags that the server itself takes.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Command line of the program when it is called `torchserve`: TorchServe's flags and Lantern's own.
#[derive(Debug, clap::Parser)]
#[command(
    name = "torchserve",
    about = "TorchServe's command line, served by Lantern",
    infer_long_args = true,
    max_term_width = 100
)]
pub struct TorchserveArgs {
    /// Print versions
    #[arg(long, short = 'v', group = "action")]
    pub version: bool,
    /// The flags of `lantern serve`.
    #[command(flatten)]
    pub launch: LaunchArgs,
}

/// `lantern serve`: in the foreground unless `--start` says otherwise. `rest` is what follows `serve`.
pub fn serve(args: LaunchArgs, rest: &[OsString]) -> Result<ExitCode, Failure> {
    if args.detached {
        // Fails if the process leads a session already, and then nothing has to be done.
        let _ = rustix::process::setsid();
    }
    if args.start || args.stop {
        return launch(args, rest);
    }
    serve::run(args.serve)
}

/// `torchserve`: in the background unless `--foreground` says otherwise. `rest` is what follows the program's name.
pub fn torchserve(args: TorchserveArgs, rest: &[OsString]) -> Result<ExitCode, Failure> {
    if args.version {
        say(&format!("TorchServe Version is {}", banner::TORCHSERVE))?;
        say(&format!("Lantern Version is {}", env!("CARGO_PKG_VERSION")))?;
        return Ok(ExitCode::SUCCESS);
    }
    launch(args.launch, rest)
}

fn launch(args: LaunchArgs, rest: &[OsString]) -> Result<ExitCode, Failure> {
    let environment = Environment::of_process();
    let file = PidFile::new(environment.launcher_temp_directory());
    if args.stop {
        return stop(&args, &file, &environment);
    }
    match file.state() {
        State::Absent => {}
        State::Running(_) => {
            say("TorchServe is already running, please use torchserve --stop to stop TorchServe.")?;
            return Ok(ExitCode::FAILURE);
        }
        State::Orphan => {
            say("Removing orphan pid file.")?;
            warn(file.remove())?;
        }
    }
    if let Some(message) = missing(&args.serve, &environment)? {
        say(&message)?;
        return Ok(ExitCode::FAILURE);
    }
    start(args, rest, &file)
}

fn start(args: LaunchArgs, rest: &[OsString], file: &PidFile) -> Result<ExitCode, Failure> {
    // If the first process of a container ends, the container ends: it must not start another process and exit.
    let is_first = std::process::id() == 1;
    if args.foreground || is_first {
        warn(file.write(std::process::id()))?;
        let code = serve::run(args.serve);
        warn(file.remove())?;
        return code;
    }
    let child = background(rest)?.spawn()?;
    warn(file.write(child.id()))?;
    Ok(ExitCode::SUCCESS)
}

/// A server without its PID file serves, and a signal stops it.
fn warn(pid_file: io::Result<()>) -> io::Result<()> {
    pid_file.or_else(|error| {
        say(&format!(
            "The pid file cannot be written ({error}): torchserve --stop will not find this server. TEMP names its directory."
        ))
    })
}

/// The command that starts this program again in a session of its own. It keeps standard output, since scripts that start
/// TorchServe wait there for the line that the server has started.
fn background(rest: &[OsString]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg0("lantern")
        .args(["serve", "--detached"])
        .args(rest.iter().filter(|argument| !is_start(argument)))
        .stdin(Stdio::null());
    Ok(command)
}

/// Whether an argument is `--start` or an abbreviation of it.
fn is_start(argument: &OsStr) -> bool {
    let text = argument.as_encoded_bytes();
    text.len() > "--st".len() && b"--start".starts_with(text)
}

fn stop(args: &LaunchArgs, file: &PidFile, environment: &Environment) -> Result<ExitCode, Failure> {
    let process = match file.state() {
        State::Absent => {
            say("TorchServe is not currently running.")?;
            return Ok(ExitCode::SUCCESS);
        }
        State::Orphan => None,
        State::Running(process) => Some(process),
    };
    match process.filter(|process| process.terminate().is_ok()) {
        None => say("TorchServe already stopped.")?,
        Some(process) => {
            if args.foreground && !has_ended(process) {
                say("Stopping TorchServe took too long.")?;
            }
            pid::remove(&environment.path("key_file.json"))?;
            say("TorchServe has stopped.")?;
        }
    }
    file.remove()?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the end of `process`, at most for [`EXIT_TIMEOUT`].
#[expect(
    clippy::disallowed_methods,
    reason = "there is no runtime here whose thread could be blocked"
)]
fn has_ended(process: Process) -> bool {
    let until = Instant::now() + EXIT_TIMEOUT;
    while process.is_alive() && Instant::now() < until {
        std::thread::sleep(CHECK_INTERVAL);
    }
    !process.is_alive()
}

/// The message about a missing file or directory that TorchServe's launcher checks for, in its order. Other problems with
/// settings are a failure.
fn missing(args: &ServeArgs, environment: &Environment) -> Result<Option<String>, Failure> {
    let here = |path: &Path| environment.current_directory.join(path);
    let file = |flag: &str, path: &Path| {
        let path = here(path);
        (!path.is_file()).then(|| format!("{flag} file not found: {}", path.display()))
    };
    let directory = |flag: &str, path: &Path| {
        let found = here(path).is_dir();
        (!found).then(|| format!("{flag} directory not found: {}", path.display()))
    };
    let named = environment.variable("TS_CONFIG_FILE").map(Path::new);
    let found = args
        .log_config
        .as_deref()
        .and_then(|path| file("--log-config", path))
        .or_else(|| {
            let config = named.or(args.ts_config.as_deref());
            config.and_then(|path| file("--ts-config", path))
        })
        .or_else(|| {
            let store = args.model_store.as_deref();
            store.and_then(|path| directory("--model-store", path))
        })
        .or_else(|| {
            let store = args.workflow_store.as_deref();
            store.and_then(|path| directory("--workflow-store", path))
        });
    if found.is_some() {
        return Ok(found);
    }
    let config = serve::load(&args.clone().into_flags(), environment)?;
    let is_missing = config.values.model_store.is_none();
    Ok(is_missing.then(|| "Missing mandatory parameter --model-store".to_owned()))
}

fn say(message: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{message}")
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        TorchserveArgs::command().debug_assert();
    }

    #[test]
    fn kserves_command_line_is_taken() {
        let line = "torchserve --start --model-store=/mnt/models/model-store --ts-config=/mnt/models/config/config.properties";
        let args = TorchserveArgs::try_parse_from(line.split(' ')).map(|args| args.launch);
        let args = args.expect("KServe's command line");
        assert!(args.start);
        assert_eq!(
            args.serve.model_store.as_deref(),
            Some(Path::new("/mnt/models/model-store"))
        );
    }

    #[test]
    fn torchserves_flags_are_taken_in_all_their_forms() {
        for line in [
            "--stop --foreground",
            "-v",
            "--ncs --dt --enable-model-api",
            "--no-config-snapshots --disable-token-auth",
            "--models a.mar b=b.mar --log-config l.xml --cpp-log-config c --ppath p",
            "--plugins-path p --workflow-store w --model-st m",
        ] {
            let line = std::iter::once("torchserve").chain(line.split(' '));
            assert!(
                TorchserveArgs::try_parse_from(line.clone()).is_ok(),
                "{:?}",
                line.collect::<Vec<_>>()
            );
        }
        for line in ["--start --stop", "--stop -v", "--nonsense", "positional"] {
            let line = std::iter::once("torchserve").chain(line.split(' '));
            let error = TorchserveArgs::try_parse_from(line).expect_err("must be refused");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn the_background_process_is_not_told_to_start_one() {
        for (argument, is_it) in [
            ("--start", true),
            ("--star", true),
            ("--stop", false),
            ("--st", false),
        ] {
            assert_eq!(is_start(OsStr::new(argument)), is_it, "{argument}");
        }
    }
}
