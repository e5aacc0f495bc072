//! Which files a process may open, for reading and for writing, and whom it may reach: landlock.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    PathBeneath, RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{AtFlags, FileType};

use super::user::is_open_to_others;
use super::{Demand, Demands, Outcome, Policy, Wall};

/// The newest rights that are known; an older kernel gives those that it has.
const NEWEST: ABI = ABI::V10;

/// Before that release files can be emptied without leave to write.
const COMPLETE: ABI = ABI::V3;

/// Since then there are scopes.
const WITH_SCOPES: ABI = ABI::V6;

/// What may be read of a directory or file.
const READ: [AccessFs; 2] = [AccessFs::ReadFile, AccessFs::ReadDir];

/// Files that are opened before a wall is up.
pub(super) struct Opened {
    /// The directories of the policy.
    pub directories: Vec<(PathBuf, OwnedFd)>,
    /// Directories of libraries.
    pub libraries: Vec<(PathBuf, OwnedFd)>,
    /// What the kernel says of this process.
    pub process: Option<OwnedFd>,
    readable: Vec<OwnedFd>,
    devices: Vec<OwnedFd>,
}

impl Opened {
    /// Says so if one of the directories can be passed by its owner alone.
    pub fn closed_to_others(&self) -> Option<&'static str> {
        let mut all = self.directories.iter().chain(&self.libraries);
        let closed = all.any(|(_, descriptor)| !is_open_to_others(descriptor));
        closed.then_some("a directory of the model or of its library")
    }
}

/// Opens what the policy names. What is not there is passed over.
pub(super) fn open(policy: &Policy) -> Opened {
    let opened = |paths: &[PathBuf]| {
        paths
            .iter()
            .filter_map(|path| super::opened(path).ok())
            .collect()
    };
    let named = |path: &PathBuf| Some((path.clone(), super::opened(path).ok()?));
    let libraries = policy.libraries.iter();
    let mut readable: Vec<OwnedFd> = opened(&policy.readable);
    readable.extend(
        libraries
            .clone()
            .flat_map(|directory| libraries_in(directory)),
    );
    Opened {
        directories: policy.directories.iter().filter_map(named).collect(),
        libraries: libraries.filter_map(named).collect(),
        process: process(),
        readable,
        devices: opened(&policy.devices),
    }
}

/// The shared libraries in a directory. What lies beside them is nobody's business.
fn libraries_in(directory: &Path) -> Vec<OwnedFd> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let libraries = entries.filter(|entry| is_library(&entry.file_name().to_string_lossy()));
    libraries
        .filter_map(|entry| super::opened(&entry.path()).ok())
        .collect()
}

/// Whether a file of that name is a shared library.
pub fn is_library(name: &str) -> bool {
    name.as_bytes().ends_with(b".so") || name.contains(".so.")
}

/// The directory of this process in `/proc`, not the link to it.
fn process() -> Option<OwnedFd> {
    let name = std::fs::read_link("/proc/self").ok()?;
    super::opened(&Path::new("/proc").join(name)).ok()
}

/// The two walls that landlock is.
pub(super) struct Walled {
    /// Of files and TCP.
    pub files: Outcome,
    /// Of signals and abstract sockets.
    pub scopes: Outcome,
}

/// Restricts this process to what was opened, and to reading it; devices and `scratch` may be written to.
pub(super) fn restrict(opened: &Opened, scratch: Option<&OwnedFd>, demands: &Demands) -> Walled {
    let wants = |wall| demands.of(wall) != Demand::Off;
    let wanted = (wants(Wall::Landlock), wants(Wall::Scopes));
    if wanted == (false, false) {
        return Walled {
            files: Outcome::Off,
            scopes: Outcome::Off,
        };
    }
    match try_restrict(opened, scratch, wanted) {
        Ok(status) => walled(&status),
        Err(error) => Walled {
            files: Outcome::Missing(error.to_string()),
            scopes: Outcome::Missing(error.to_string()),
        },
    }
}

fn try_restrict(
    opened: &Opened,
    scratch: Option<&OwnedFd>,
    (files, scopes): (bool, bool),
) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    if files {
        ruleset = ruleset
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?;
    }
    if scopes {
        ruleset = ruleset.scope(Scope::from_all(NEWEST))?;
    }
    let mut created = ruleset.create()?;
    if files {
        created = rules(created, opened, scratch)?;
    }
    created.restrict_self()
}

fn rules(
    mut ruleset: RulesetCreated,
    opened: &Opened,
    scratch: Option<&OwnedFd>,
) -> Result<RulesetCreated, RulesetError> {
    let directories = opened.directories.iter().map(|(_, directory)| directory);
    let readable = directories.chain(&opened.readable).chain(&opened.process);
    let read = READ.into_iter().collect();
    for file in readable {
        ruleset = allow(ruleset, file, read)?;
    }
    for device in &opened.devices {
        ruleset = allow(
            ruleset,
            device,
            read | AccessFs::WriteFile | AccessFs::IoctlDev,
        )?;
    }
    if let Some(scratch) = scratch {
        // Anything but executing and making devices.
        let all = AccessFs::from_all(NEWEST);
        let not = AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock;
        ruleset = allow(ruleset, scratch, all & !not)?;
    }
    Ok(ruleset)
}

/// Rights that are for directories alone mean nothing of a file.
fn allow(
    ruleset: RulesetCreated,
    file: &OwnedFd,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let access = if is_directory(file) {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    };
    ruleset.add_rule(PathBeneath::new(file, access))
}

fn is_directory(file: &OwnedFd) -> bool {
    let found = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH);
    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode).is_dir())
}

fn walled(status: &RestrictionStatus) -> Walled {
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        let missing = || Outcome::Missing(said(&status.landlock).to_owned());
        return Walled {
            files: missing(),
            scopes: missing(),
        };
    };
    let version = format!("ABI {}", effective_abi as i32);
    let is_up = status.ruleset != RulesetStatus::NotEnforced;
    let since = |least: ABI, lacks: &str| {
        if is_up && effective_abi >= least {
            Outcome::Up(version.clone())
        } else {
            Outcome::Missing(format!("landlock {version} {lacks}"))
        }
    };
    Walled {
        files: since(COMPLETE, "lets files be emptied that may only be read"),
        scopes: since(WITH_SCOPES, "has no scopes"),
    }
}

const fn said(status: &LandlockStatus) -> &'static str {
    match status {
        LandlockStatus::NotEnabled => "landlock is not enabled",
        LandlockStatus::NotImplemented => "the kernel has no landlock",
        LandlockStatus::Available { .. } => "",
    }
}
