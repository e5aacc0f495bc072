//! What was found out about archives, kept so that it is not found out again. Keys are those of [`super::key`].

use std::path::PathBuf;
use std::sync::Arc;

use dashmap::DashMap;
use tokio::runtime::Handle;

use super::{Batching, Grounds};

/// At most this many verdicts are kept in memory. With one more the others are forgotten, which costs a few runs.
const MOST: usize = 10_000;
/// At most this many characters of a reason are kept.
const REASON: usize = 1 << 10;

/// What was found out about one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its requests may be stacked.
    Confirmed(Grounds),
    /// They may not, for this reason.
    Refuted(String),
}

impl Verdict {
    /// What follows for the version's requests.
    pub fn batching(&self) -> Batching {
        match self {
            Self::Confirmed(grounds) => Batching::On(*grounds),
            Self::Refuted(reason) => Batching::Off(reason.clone()),
        }
    }
}

/// Verdicts by key, in memory and, where there is a directory, in files. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Verdicts(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: DashMap<String, Verdict>,
    directory: Option<PathBuf>,
}

impl Verdicts {
    /// Verdicts that are also kept in `directory`, which is created with the first one.
    pub fn in_directory(directory: PathBuf) -> Self {
        Self(Arc::new(Inner {
            known: DashMap::new(),
            directory: Some(directory),
        }))
    }

    /// The verdict of that key.
    pub fn of(&self, key: &str) -> Option<Verdict> {
        if let Some(known) = self.0.known.get(key) {
            return Some(known.clone());
        }
        let text = std::fs::read_to_string(self.file(key)?).ok()?;
        let verdict = parse(&text)?;
        self.remember(key, &verdict);
        Some(verdict)
    }

    /// Keeps a verdict. Blocks while its file is written. If that fails, it is only logged: the archive is tried out again.
    pub fn keep(&self, key: &str, verdict: &Verdict) {
        self.remember(key, verdict);
        let Some(file) = self.file(key) else {
            return;
        };
        if let Err(error) = write(&file, &print(verdict)) {
            tracing::warn!(file = %file.display(), %error, "what was found out about batching is not kept");
        }
    }

    /// Keeps a verdict. A thread of `tasks` for blocking calls writes its file.
    pub fn keep_soon(&self, key: &str, verdict: Verdict, tasks: &Handle) {
        self.remember(key, &verdict);
        let (verdicts, key) = (self.clone(), key.to_owned());
        tasks.spawn_blocking(move || verdicts.keep(&key, &verdict));
    }

    fn remember(&self, key: &str, verdict: &Verdict) {
        if key.is_empty() {
            return;
        }
        let known = &self.0.known;
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key.to_owned(), verdict.clone());
    }

    /// The file of a key; `None` for what is not the key of an archive, as it could name any file.
    fn file(&self, key: &str) -> Option<PathBuf> {
        let (digest, rows) = key.split_once('-')?;
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_rows =
            (1..=10).contains(&rows.len()) && rows.bytes().all(|byte| byte.is_ascii_digit());
        let directory = self.0.directory.as_ref().filter(|_| is_digest && is_rows)?;
        Some(directory.join(key))
    }
}

/// Writes a partial file and renames it, so that no reader sees half of it.
fn write(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    let directory = file.parent().unwrap_or(file);
    std::fs::create_dir_all(directory)?;
    let mut partial = tempfile::NamedTempFile::new_in(directory)?;
    std::io::Write::write_all(&mut partial, text.as_bytes())?;
    partial.persist(file)?;
    Ok(())
}

fn print(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Confirmed(grounds) => format!("on {}\n", word(*grounds)),
        Verdict::Refuted(reason) => {
            format!(
                "off {}\n",
                reason
                    .replace('\n', " ")
                    .chars()
                    .take(REASON)
                    .collect::<String>()
            )
        }
    }
}

fn parse(text: &str) -> Option<Verdict> {
    let (verdict, rest) = text.trim_end().split_once(' ')?;
    match verdict {
        "off" => Some(Verdict::Refuted(rest.chars().take(REASON).collect())),
        "on" => {
            let all = [Grounds::Samples, Grounds::Rounded, Grounds::Requests];
            all.into_iter()
                .find(|grounds| word(*grounds) == rest)
                .map(Verdict::Confirmed)
        }
        _ => None,
    }
}

const fn word(grounds: Grounds) -> &'static str {
    match grounds {
        Grounds::Samples => "samples",
        Grounds::Rounded => "rounded",
        Grounds::Requests => "requests",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_outlive_the_process_and_broken_files_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let key = crate::runtime::batching::key(&"a".repeat(64), 8);
        for verdict in [
            Verdict::Refuted("output \"y\" differs".into()),
            Verdict::Confirmed(Grounds::Samples),
            Verdict::Confirmed(Grounds::Rounded),
            Verdict::Confirmed(Grounds::Requests),
        ] {
            Verdicts::in_directory(directory.path().into()).keep(&key, &verdict);
            let next = Verdicts::in_directory(directory.path().into());
            assert_eq!(next.of(&key), Some(verdict));
        }
        for broken in ["", "on", "on faith", "yes samples", "\u{0}"] {
            std::fs::write(directory.path().join(&key), broken).unwrap();
            assert_eq!(
                Verdicts::in_directory(directory.path().into()).of(&key),
                None,
                "{broken:?}"
            );
        }
    }

    #[test]
    fn only_keys_name_files() {
        let directory = tempfile::tempdir().unwrap();
        let verdicts = Verdicts::in_directory(directory.path().into());
        let digest = "a".repeat(64);
        for name in [
            "",
            "../x",
            "a",
            &"g".repeat(64),
            &digest,
            &format!("{digest}-/"),
            &format!("{digest}-"),
        ] {
            verdicts.keep(name, &Verdict::Confirmed(Grounds::Samples));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
