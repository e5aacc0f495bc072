//! Writes the four kinds of archive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ::tar::{Builder, Header};
use ::zip::write::SimpleFileOptions;
use ::zip::{CompressionMethod, DateTime, ZipWriter};
use flate2::{Compression, GzBuilder};
use tempfile::{NamedTempFile, TempDir};

use super::super::ArchiveError;
use super::super::entry::EntryName;
use super::{PackForm, PackSpec, Texts};

const DOING: &str = "writing the archive";
/// Permissions of files in the archive. Lantern ignores them when it unpacks.
const MODE: u32 = 0o644;
/// Files of this size and more are written with 64-bit sizes.
const LARGE: u64 = u32::MAX as u64 / 2;

/// Moves an archive to its final path, and replaces what is there.
pub fn replace(staged: &Path, target: &Path) -> Result<(), ArchiveError> {
    let replaced = if target.is_dir() {
        fs::remove_dir_all(target)
    } else if staged.is_dir() && target.exists() {
        fs::remove_file(target)
    } else {
        Ok(())
    };
    replaced
        .and_then(|()| fs::rename(staged, target))
        .map_err(ArchiveError::io(DOING))
}

/// Writes the archive to `target`, which must not exist.
pub fn write(
    spec: &PackSpec,
    files: &BTreeMap<EntryName, PathBuf>,
    texts: &Texts,
    target: &Path,
) -> Result<(), ArchiveError> {
    let written = match spec.form {
        PackForm::Directory => directory(spec, files, texts, target),
        PackForm::Zip => file(spec, target, |file| {
            zip(file, files, texts, CompressionMethod::Deflated)
        }),
        PackForm::StoredZip => file(spec, target, |file| {
            zip(file, files, texts, CompressionMethod::Stored)
        }),
        PackForm::Tar => file(spec, target, |file| {
            tar(file, files, texts, spec.name.as_str())
        }),
    };
    written.map_err(ArchiveError::io(DOING))
}

fn file(
    spec: &PackSpec,
    target: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut temporary = NamedTempFile::new_in(&spec.export_path)?;
    fill(temporary.as_file_mut())?;
    readable(temporary.path())?;
    temporary.persist(target)?;
    Ok(())
}

/// Lets others read the archive: the server may be another user, and temporary files are readable by their owner alone.
fn readable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))
}

fn zip(
    file: &mut File,
    files: &BTreeMap<EntryName, PathBuf>,
    texts: &Texts,
    method: CompressionMethod,
) -> io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(method)
        .last_modified_time(DateTime::default())
        .unix_permissions(MODE);
    let mut archive = ZipWriter::new(file);
    for (name, path) in files {
        let mut from = File::open(path)?;
        let is_large = from.metadata()?.len() > LARGE;
        archive.start_file(name.as_str(), options.large_file(is_large))?;
        io::copy(&mut from, &mut archive)?;
    }
    for (name, text) in texts {
        archive.start_file(*name, options)?;
        archive.write_all(text.as_bytes())?;
    }
    archive.finish()?;
    Ok(())
}

/// Writes a gzip tar with everything under one directory, as `torch-model-archiver` does.
fn tar(
    file: &mut File,
    files: &BTreeMap<EntryName, PathBuf>,
    texts: &Texts,
    root: &str,
) -> io::Result<()> {
    let compressed = GzBuilder::new()
        .mtime(0)
        .write(file, Compression::default());
    let mut archive = Builder::new(compressed);
    for (name, path) in files {
        let from = File::open(path)?;
        let mut header = header(from.metadata()?.len());
        archive.append_data(&mut header, format!("{root}/{}", name.as_str()), from)?;
    }
    for (name, text) in texts {
        let mut header = header(text.len() as u64);
        archive.append_data(&mut header, format!("{root}/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?;
    Ok(())
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(MODE);
    header.set_mtime(0);
    header
}

fn directory(
    spec: &PackSpec,
    files: &BTreeMap<EntryName, PathBuf>,
    texts: &Texts,
    target: &Path,
) -> io::Result<()> {
    let temporary = TempDir::new_in(&spec.export_path)?;
    for (name, path) in files {
        let to = name.under(temporary.path());
        fs::create_dir_all(to.parent().unwrap_or(temporary.path()))?;
        io::copy(&mut File::open(path)?, &mut File::create(to)?)?;
    }
    for (name, text) in texts {
        let to = temporary.path().join(name);
        fs::create_dir_all(to.parent().unwrap_or(temporary.path()))?;
        fs::write(to, text)?;
    }
    let directory = temporary.keep();
    fs::rename(&directory, target)?;
    open_to_all(target)
}

fn open_to_all(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
}
