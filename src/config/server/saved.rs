//! The settings as a snapshot keeps them.

use std::collections::BTreeMap;

use super::ServerConfig;
use super::keys::{self, Role};

/// What a snapshot says anew.
const REPLACED: [&str; 2] = ["model_snapshot", "load_models"];

impl ServerConfig {
    /// Every setting that was typed, wherever, so that the next start needs nothing but the snapshot. Secrets are left
    /// out, and what came out of variables is the variable's name.
    pub fn to_save(&self) -> BTreeMap<String, String> {
        let is_saved = |key: &str| {
            let role = keys::find(key).map(|key| key.role);
            role == Some(Role::Setting) && !REPLACED.contains(&key)
        };
        let typed = self.typed.iter().filter(|(key, _)| is_saved(key));
        let mut saved: BTreeMap<String, String> = typed
            .map(|(key, entry)| {
                let value = self.written.get(key).unwrap_or(&entry.value);
                (key.clone(), value.clone())
            })
            .collect();
        let stores = [
            ("model_store", &self.values.model_store),
            ("workflow_store", &self.values.workflow_store),
        ];
        for (key, store) in stores {
            // The next start may be elsewhere.
            let store = store.as_ref().filter(|_| !self.written.contains_key(key));
            saved.extend(store.map(|path| (key.to_owned(), path.display().to_string())));
        }
        let file = self.file.as_ref().map(|path| path.display().to_string());
        saved.extend(file.map(|file| ("tsConfigFile".to_owned(), file)));
        saved.insert("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        saved
    }
}
