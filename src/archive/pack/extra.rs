//! `--extra-files`: files, wildcards, and directories whose contents are packed.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::ArchiveError;
use super::super::entry::EntryName;
use super::missing;

/// Directories that are never packed.
const SKIPPED: [&str; 2] = ["__MACOSX", "__pycache__"];
/// Deepest directory that is followed.
const DEPTH_LIMIT: usize = 16;

/// Files and the names that they get: a file its own, a file of a directory its path below that directory.
pub fn expand(patterns: &[String]) -> Result<Vec<(EntryName, PathBuf)>, ArchiveError> {
    let mut found = Vec::new();
    for pattern in patterns
        .iter()
        .map(|pattern| pattern.trim())
        .filter(|p| !p.is_empty())
    {
        for path in glob(pattern)? {
            if path.is_dir() {
                walk(&path, "", 0, &mut found)?;
            } else {
                add(&path, "", &mut found)?;
            }
        }
    }
    Ok(found)
}

fn add(
    path: &Path,
    prefix: &str,
    found: &mut Vec<(EntryName, PathBuf)>,
) -> Result<(), ArchiveError> {
    let name = format!("{prefix}{}", file_name(path));
    if let Some(name) = EntryName::parse(name.as_bytes())? {
        found.push((name, path.to_owned()));
    }
    Ok(())
}

fn walk(
    directory: &Path,
    prefix: &str,
    depth: usize,
    found: &mut Vec<(EntryName, PathBuf)>,
) -> Result<(), ArchiveError> {
    if depth > DEPTH_LIMIT {
        let rule = "must be at most 16 directories deep";
        return Err(ArchiveError::entry(prefix.as_bytes(), rule, depth));
    }
    for path in children(directory)? {
        let name = file_name(&path);
        if !path.is_dir() {
            add(&path, prefix, found)?;
        } else if !SKIPPED.contains(&name.as_str()) && !name.starts_with('.') {
            walk(&path, &format!("{prefix}{name}/"), depth + 1, found)?;
        }
    }
    Ok(())
}

/// The paths that match a pattern. Only its last component may hold wildcards.
fn glob(pattern: &str) -> Result<Vec<PathBuf>, ArchiveError> {
    let path = Path::new(pattern);
    if path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    let (directory, last) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(last)) => (parent, last.to_string_lossy()),
        _ => return Err(missing(path)),
    };
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    if !last.contains(['*', '?']) || !directory.is_dir() {
        return Err(missing(path));
    }
    let hidden = last.starts_with('.');
    let matching: Vec<_> = children(directory)?
        .into_iter()
        .filter(|child| {
            let name = file_name(child);
            (hidden || !name.starts_with('.')) && matches(last.as_bytes(), name.as_bytes())
        })
        .collect();
    if matching.is_empty() {
        return Err(missing(path));
    }
    Ok(matching)
}

/// Whether `name` matches `pattern`: `*` stands for any number of bytes, `?` for one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        (Some((b'?', pattern)), Some((_, name))) => matches(pattern, name),
        (Some((wanted, pattern)), Some((found, name))) => wanted == found && matches(pattern, name),
        _ => false,
    }
}

fn children(directory: &Path) -> Result<Vec<PathBuf>, ArchiveError> {
    let doing = "listing a directory to pack";
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(ArchiveError::io(doing))? {
        paths.push(entry.map_err(ArchiveError::io(doing))?.path());
    }
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_names() {
        for (pattern, name) in [
            ("*.json", "a.json"),
            ("a?c*", "abcd"),
            ("*", ""),
            ("a*b*c", "a1b2c"),
        ] {
            assert!(
                matches(pattern.as_bytes(), name.as_bytes()),
                "{pattern} {name}"
            );
        }
        for (pattern, name) in [("*.json", "a.txt"), ("?", ""), ("a*b", "abc")] {
            assert!(
                !matches(pattern.as_bytes(), name.as_bytes()),
                "{pattern} {name}"
            );
        }
    }
}
