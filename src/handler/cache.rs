//! The cache of compiled code on disk. Code is loaded only if its MAC shows that it was written under this cache's key.
//!
//! Compiled code is native code and wasmtime loads it unchecked, so each file carries a MAC under a random key that
//! lies beside the folder of code, readable by its owner alone. A file that is cut short, altered or of another version
//! counts as missing, and the component is compiled again. Files appear by renaming, so processes can share a cache.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use wasmtime::Engine;

use crate::place;

const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
/// Most files of code that are kept; those unused for longest are removed first.
const FILES_LIMIT: usize = 256;

/// A cache directory: its folder `code` and its file `key`.
pub(super) struct CodeCache {
    code: PathBuf,
    key: [u8; KEY_BYTES],
    /// Digest of wasmtime's version and settings.
    engine: [u8; 32],
}

/// Name of compiled code: a digest of the component, wasmtime's version and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CodeId(String);

/// Feeds what implements `Hash` to SHA-256: `DefaultHasher` is neither stable nor long enough.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl CodeCache {
    /// Creates the directory, the folder and the key where they are missing. One that can only be read still gives what is
    /// in it.
    pub fn open(directory: &Path, engine: &Engine) -> io::Result<Self> {
        let directory = &place::own(directory)?;
        let code = place::own(&directory.join("code"))?;
        if fs::metadata(&code)?.permissions().mode() & 0o777 != 0o700 {
            fs::set_permissions(&code, Permissions::from_mode(0o700))?;
        }
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            code,
            key: key(directory)?,
            engine: hasher.0.finalize().into(),
        })
    }

    /// The name of the code compiled from `wasm`.
    pub fn id(&self, wasm: &[u8]) -> CodeId {
        let digest = Sha256::new()
            .chain_update(self.engine)
            .chain_update(Sha256::digest(wasm))
            .finalize();
        CodeId(hex(&digest))
    }

    /// The code of that name, as it was given to [`Self::put`]; `None` if it is missing or its MAC does not match.
    pub fn get(&self, id: &CodeId) -> Option<Vec<u8>> {
        let mut file = self.read(id).ok()?;
        let length = file.len().checked_sub(MAC_BYTES)?;
        let mac = file.split_off(length);
        self.mac(id, &file).verify_slice(&mac).ok()?;
        Some(file)
    }

    /// Writes code, and removes old files beyond the limit.
    pub fn put(&self, id: &CodeId, code: &[u8]) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.code)?;
        file.write_all(code)?;
        file.write_all(&self.mac(id, code).finalize().into_bytes())?;
        file.as_file()
            .set_permissions(Permissions::from_mode(0o400))?;
        file.persist(self.path(id))?;
        self.sweep()
    }

    /// Reads a file and sets its time of modification, by which [`Self::sweep`] knows when it was last used.
    fn read(&self, id: &CodeId) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path(id))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // If this fails, the file may be swept early: nothing else depends on it.
        let _ = file.set_modified(SystemTime::now());
        Ok(bytes)
    }

    /// Removes the files unused for longest. Unfinished files of processes that died while writing count as well.
    fn sweep(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.code)? {
            let entry = entry?;
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            files.push((used.unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
        }
        files.sort();
        let excess = files.len().saturating_sub(FILES_LIMIT);
        for (_, path) in &files[..excess] {
            // Another process may have removed it already.
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    fn path(&self, id: &CodeId) -> PathBuf {
        self.code.join(&id.0)
    }

    fn mac(&self, id: &CodeId, code: &[u8]) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.chain_update(id.0.as_bytes()).chain_update(code)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The key of the cache; the first process that needs it creates it.
fn key(directory: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = directory.join("key");
    if let Some(key) = read_key(&path) {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(&key)?;
    match file.persist_noclobber(&path) {
        Ok(_) => Ok(key),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            read_key(&path).map_or_else(|| replace_key(error.file, &path, key), Ok)
        }
        Err(error) => Err(error.error),
    }
}

/// Replaces a key file that is damaged. Code that was written under the old key counts as missing from then on.
fn replace_key(
    file: NamedTempFile,
    path: &Path,
    key: [u8; KEY_BYTES],
) -> io::Result<[u8; KEY_BYTES]> {
    file.persist(path)?;
    Ok(key)
}

fn read_key(path: &Path) -> Option<[u8; KEY_BYTES]> {
    fs::read(path).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(directory: &Path) -> CodeCache {
        CodeCache::open(directory, &Engine::default()).unwrap()
    }

    #[test]
    fn code_comes_back_as_it_was_put_also_to_another_process() {
        let directory = tempfile::tempdir().unwrap();
        let first = cache(directory.path());
        let id = first.id(b"wasm");
        assert_eq!(first.get(&id), None);
        first.put(&id, b"code").unwrap();
        let second = cache(directory.path());
        assert_eq!(second.id(b"wasm"), id);
        assert_eq!(second.get(&id).unwrap(), b"code");
        assert_ne!(second.id(b"other"), id);
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unnoticed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let id = cache.id(b"wasm");
        cache.put(&id, b"code").unwrap();
        let path = cache.path(&id);
        let good = fs::read(&path).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            overwrite(&path, &bad);
            assert_eq!(cache.get(&id), None, "byte {index}");
            overwrite(&path, &good[..index]);
            assert_eq!(cache.get(&id), None, "cut at {index}");
        }
        overwrite(&path, &good);
        assert!(cache.get(&id).is_some());
    }

    #[test]
    fn code_under_another_name_or_key_is_unknown() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let [a, b] = [cache.id(b"a"), cache.id(b"b")];
        cache.put(&a, b"code").unwrap();
        fs::copy(cache.path(&a), cache.path(&b)).unwrap();
        assert_eq!(cache.get(&b), None);
        fs::write(directory.path().join("key"), [1; KEY_BYTES]).unwrap();
        assert_eq!(super::tests::cache(directory.path()).get(&a), None);
    }

    #[test]
    fn files_are_for_their_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let id = cache.id(b"wasm");
        cache.put(&id, b"code").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cache.path(&id)), 0o400);
        assert_eq!(mode(&cache.code), 0o700);
        assert_eq!(mode(&directory.path().join("key")), 0o600);
    }

    #[test]
    fn the_code_unused_for_longest_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let ids: Vec<_> = (0..=FILES_LIMIT)
            .map(|index| cache.id(&index.to_le_bytes()))
            .collect();
        for id in &ids {
            cache.put(id, b"code").unwrap();
            if id != &ids[0] {
                assert!(cache.get(&ids[0]).is_some());
            }
        }
        assert_eq!(fs::read_dir(&cache.code).unwrap().count(), FILES_LIMIT);
        assert!(cache.get(&ids[0]).is_some());
    }

    #[test]
    fn a_broken_key_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("key"), "short").unwrap();
        let first = cache(directory.path());
        let id = first.id(b"wasm");
        first.put(&id, b"code").unwrap();
        assert!(cache(directory.path()).get(&id).is_some());
    }

    fn overwrite(path: &Path, bytes: &[u8]) {
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
