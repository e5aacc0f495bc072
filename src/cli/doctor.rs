//! `lantern doctor`: which walls this kernel, container and user grant around worker processes, and what to do about a missing
//! one.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::serve::{self, ServeArgs};
use crate::archive::check_urls;
use crate::config::server::Environment;
use crate::config::tenants;
use crate::sandbox::cgroup::Division;
use crate::sandbox::{Demand, Demands, Outcome, Outcomes, Wall};
use crate::server::{Machine, probe};

/// The device file that is there once NVIDIA's module for shared memory is loaded.
const UVM: &str = "/dev/nvidia-uvm";

/// Flags of `lantern doctor`: those of `lantern serve`, whose settings count.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// What would be given to `lantern serve`.
    #[command(flatten)]
    serve: ServeArgs,
}

/// Prints a line for each wall. It is a failure if one is missing that the settings require, or if the file of tenants is wrong.
pub fn run(args: DoctorArgs) -> Result<ExitCode, Failure> {
    let environment = Environment::of_process();
    let settings = serve::load(&args.serve.into_flags(), &environment)?;
    let machine = serve::machine(&environment)?;
    let demands = &settings.values.lantern_sandbox;
    let outcomes = probe(&settings.values, &machine)?;
    let mut out = io::stdout().lock();
    match write(&mut out, demands, &outcomes, &machine) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    let tenants = settings.values.lantern_tenants.as_deref();
    let is_wrong = tenants.map_or(Ok(false), |file| write_tenants(&mut out, file))?;
    let is_missing = missing(demands, &outcomes).next().is_some();
    Ok(if is_missing || is_wrong {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Says what is wrong with the file of tenants, and how the kernel divides the processor among them. Whether something is wrong.
fn write_tenants(out: &mut impl Write, file: &Path) -> io::Result<bool> {
    let divided = match Division::find() {
        Division::Weights => "by their weights (cgroup cpu.weight)",
        Division::Sessions => {
            "evenly by worker process (automatic groups), those last whose tenant has had more than its share"
        }
        Division::Threads => {
            "evenly by thread. With a delegated cgroup v2 (Delegate=yes in the unit) it is by their weights"
        }
    };
    let loaded = tenants::load(file, check_urls);
    match &loaded {
        Ok(file) => writeln!(out, "Tenants: {}", file.tenants.len())?,
        Err(problems) => writeln!(out, "Tenants: {problems}")?,
    }
    writeln!(
        out,
        "The server divides the machine among owners by what their requests take; the kernel divides the processor {divided}."
    )?;
    Ok(loaded.is_err())
}

/// The walls that are required and missing.
fn missing<'a>(demands: &'a Demands, outcomes: &'a Outcomes) -> impl Iterator<Item = Wall> + 'a {
    let missing = outcomes.iter().filter(|(wall, outcome)| {
        demands.of(*wall) == Demand::Require && matches!(outcome, Outcome::Missing(_))
    });
    missing.map(|(wall, _)| *wall)
}

fn write(
    out: &mut impl Write,
    demands: &Demands,
    outcomes: &Outcomes,
    machine: &Machine,
) -> io::Result<()> {
    let system = rustix::system::uname();
    let (kernel, user) = (
        system.release().to_string_lossy(),
        rustix::process::geteuid().as_raw(),
    );
    writeln!(
        out,
        "Linux {kernel}, user {user}, lantern_sandbox={demands}"
    )?;
    writeln!(out, "Walls around each worker process:")?;
    for (wall, outcome) in outcomes {
        write_wall(out, *wall, outcome, demands.of(*wall))?;
    }
    if machine.gpus > 0 {
        write_gpu(out, Path::new(UVM).exists())?;
    }
    for wall in missing(demands, outcomes) {
        writeln!(
            out,
            "{wall} is required and missing: no model is hosted in a worker process."
        )?;
    }
    Ok(())
}

fn write_wall(
    out: &mut impl Write,
    wall: Wall,
    outcome: &Outcome,
    demand: Demand,
) -> io::Result<()> {
    let word = outcome.word();
    writeln!(out, "  {:<12} {word:<10} {}", wall.name(), wall.meaning())?;
    if !outcome.detail().is_empty() {
        writeln!(out, "  {:<23} {}", "", outcome.detail())?;
    }
    if matches!(outcome, Outcome::Missing(_)) {
        writeln!(
            out,
            "  {:<23} To have it ({}): {}",
            "",
            demand.name(),
            wall.remedy()
        )?;
    }
    Ok(())
}

/// A program that the driver would start has no privileges behind the walls.
fn write_gpu(out: &mut impl Write, has_modules: bool) -> io::Result<()> {
    let state = if has_modules {
        "is there"
    } else {
        "is missing"
    };
    writeln!(
        out,
        "GPUs: {UVM} {state}. A worker process cannot load NVIDIA's modules (nvidia-modprobe does not run without new \
         privileges): load them before, with `nvidia-modprobe -u -c 0` or nvidia-persistenced."
    )
}

/// One line for the log of a start.
pub(super) fn line(demands: &Demands, outcomes: &Outcomes) -> String {
    if demands.is_off() {
        return "off: worker processes have the rights of the server".to_owned();
    }
    let missing = outcomes.iter().filter_map(|(wall, outcome)| match outcome {
        Outcome::Missing(reason) => Some(format!("{wall} ({reason})")),
        _ => None,
    });
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return format!("{demands}: every wall is up");
    }
    let required: Vec<_> = self::missing(demands, outcomes).map(Wall::name).collect();
    if !required.is_empty() {
        return format!(
            "{demands}: NO MODEL IS HOSTED in a worker process, since {} is missing; lantern doctor says more",
            required.join(", ")
        );
    }
    format!(
        "{demands}: up but for {}; lantern doctor says more",
        missing.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes() -> Outcomes {
        vec![
            (Wall::Seccomp, Outcome::Up(String::new())),
            (
                Wall::Namespaces,
                Outcome::Missing("user: not permitted".to_owned()),
            ),
            (
                Wall::User,
                Outcome::NotNeeded("the server is not root".to_owned()),
            ),
        ]
    }

    fn machine(gpus: u32) -> Machine {
        Machine {
            gpus,
            ..Machine::default()
        }
    }

    fn written(demands: &str, gpus: u32) -> String {
        let mut out = Vec::new();
        let demands = demands.parse().unwrap();
        write(&mut out, &demands, &outcomes(), &machine(gpus)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_missing_wall_has_a_reason_and_a_remedy() {
        let text = written("prefer", 0);
        assert!(text.contains("user: not permitted"), "{text}");
        assert!(text.contains(Wall::Namespaces.remedy()), "{text}");
        assert!(!text.contains("is required"), "{text}");
        assert!(!text.contains("nvidia"), "{text}");
        let text = written("require", 1);
        assert!(
            text.contains("namespaces is required and missing"),
            "{text}"
        );
        assert!(text.contains("nvidia-modprobe"), "{text}");
    }

    #[test]
    fn a_start_says_it_in_one_line() {
        let line = |demands: &str| line(&demands.parse().unwrap(), &outcomes());
        assert_eq!(
            line("prefer"),
            "prefer: up but for namespaces (user: not permitted); lantern doctor says more"
        );
        assert!(
            line("require")
                .contains("NO MODEL IS HOSTED in a worker process, since namespaces is missing")
        );
        assert!(line("off").starts_with("off: "));
        let demands = Demands::default();
        assert_eq!(
            super::line(&demands, &outcomes()[..1].to_vec()),
            "prefer: every wall is up"
        );
    }
}
