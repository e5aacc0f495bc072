//! `tenants.yaml`, the file that `lantern_tenants` names: which tenants there are, their keys and their quotas.
//!
//! It is read as a whole: with one problem nothing of it holds, and every problem is reported at once, with its line. What becomes of
//! tenants is the business of `tenants`.
//!
//! ```yaml
//! tenants:
//!   acme:
//!     keys:
//!       - {sha256: 9f86d0…, label: ci, scopes: [predict, manage], models: [digits], expires: 2027-01-01T00:00:00Z}
//!     weight: 3
//!     quotas: {models: 5, versions: 10, workers: 8, handler_time_per_second: 500ms}
//!     signers: [ed25519:Gb9ECW…]
//! operator: {weight: 2}
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::model::{Fields, LimitOptions, limits_of};
use super::server::CheckUrls;
use super::yaml::{self, Extent, Node, Value};
use super::{Problem, Problems};
use crate::model::{ModelName, TenantName};
use crate::place;
use crate::signing::{Signer, Signers};
use crate::token::{KeyDigest, TenantKey, TenantScope};

/// How large the file may be: twice what 1,000 tenants with 10,000 keys take.
const EXTENT: Extent = Extent {
    bytes: 8 << 20,
    nodes: 400_000,
};
/// Bytes of a label.
const LONGEST_LABEL: usize = 64;
/// What is wrong with a key that says nothing.
const NOTHING: &str = "must have a value";
/// Most that a quota may say.
const MOST: i128 = 1_000_000;
/// Most that a weight may be.
const HEAVIEST: i128 = 1000;

const OF_FILE: [&str; 2] = ["tenants", "operator"];
const OF_OPERATOR: [&str; 1] = ["weight"];
#[rustfmt::skip]
const OF_TENANT: [&str; 7] = ["keys", "limits", "quotas", "signers", "sources", "suspended", "weight"];
const OF_KEY: [&str; 5] = ["sha256", "label", "scopes", "models", "expires"];
const OF_QUOTAS: [&str; 12] = [
    "archive_bytes",
    "models",
    "versions",
    "workers",
    "worker_memory",
    "requests_in_flight",
    "requests_queued",
    "requests_per_second",
    "requests_burst",
    "body_bytes_per_second",
    "handler_time_per_second",
    "inference_time_per_second",
];

/// What a file says of one tenant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantSettings {
    /// Whether its calls are refused for now. Nothing of it is unloaded.
    pub is_suspended: bool,
    /// Its keys.
    pub keys: Vec<TenantKey>,
    /// What it may have.
    pub quotas: Quotas,
    /// Its part of the machine beside others' while there is more to do than the machine can; 1 if nothing is said.
    pub weight: Option<u32>,
    /// The most that a handler and a process of its may be given; what the operator's settings say where nothing is said.
    pub limits: LimitOptions,
    /// Whose archives it may register.
    pub signers: Signers,
    /// What archives may be fetched from, as items of `allowed_urls`; nothing where nothing is said.
    pub sources: Vec<String>,
}

/// How much a tenant may have at a time; any number where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Quotas {
    /// Models.
    pub models: Option<usize>,
    /// Versions of all its models.
    pub versions: Option<usize>,
    /// Workers of all its versions, as many as each may have at most.
    pub workers: Option<usize>,
    /// Bytes of memory of all its worker processes.
    pub worker_memory: Option<usize>,
    /// Requests that were admitted and not answered.
    pub requests_in_flight: Option<usize>,
    /// Requests that wait for the tenant's turn.
    pub requests_queued: Option<usize>,
    /// Bytes of the archives in its directory.
    pub archive_bytes: Option<usize>,
    /// Requests a second.
    pub requests_per_second: Option<usize>,
    /// Requests that may come at once, after a while without any; as many as in a second if nothing is said.
    pub requests_burst: Option<usize>,
    /// Bytes of requests' bodies a second. A body of more may come after a while without any.
    pub body_bytes_per_second: Option<usize>,
    /// CPU time of its handlers in a second. What a request takes is known when it is over, so that it is those after it that are refused.
    #[serde(serialize_with = "written_out")]
    pub handler_time_per_second: Option<Duration>,
    /// Time of its models' runs in a second, as above.
    #[serde(serialize_with = "written_out")]
    pub inference_time_per_second: Option<Duration>,
}

/// A duration as the file may say it.
#[expect(clippy::ref_option, reason = "serde calls it so")]
fn written_out<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    let text = time.map(|time| format!("{}us", time.as_micros()));
    text.serialize(to)
}

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantsFile {
    /// The tenants, by name.
    pub tenants: BTreeMap<TenantName, TenantSettings>,
    /// The operator's own part of the machine; 1 if nothing is said.
    pub operator_weight: Option<u32>,
}

/// Reads the file at `path`; `check_urls` says what is wrong with sources.
pub fn load(path: &Path, check_urls: CheckUrls) -> Result<TenantsFile, Problems> {
    let origin = path.display().to_string();
    match contents(path) {
        Ok(bytes) => parse(&origin, &bytes, check_urls),
        Err(error) => Err(Problem::plain(origin, "", format!("cannot be read: {error}")).into()),
    }
}

/// One byte more than there may be, so that a file that is too large is noticed.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    place::regular_file(path)?
        .take(EXTENT.bytes as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a document; `origin` is what problems call it.
pub fn parse(origin: &str, bytes: &[u8], check_urls: CheckUrls) -> Result<TenantsFile, Problems> {
    let document = yaml::parse_within(EXTENT, origin, bytes)?;
    let mut reader = Reader {
        fields: Fields::new(origin),
        seen: HashMap::new(),
        check_urls,
    };
    let (mut tenants, mut operator_weight) = (None, None);
    for (key, node) in reader.fields.map("the document", &document) {
        match key.as_str() {
            "tenants" => tenants = Some(reader.tenants(node)),
            "operator" => operator_weight = reader.operator(node),
            _ => reader.fields.unknown(key, node, key, OF_FILE),
        }
    }
    // A file that somebody is still writing would remove every tenant.
    let Some(tenants) = tenants else {
        let rule = "must have `tenants`, which may be {}";
        reader.fields.key_problem("", &document, rule);
        return Problems::or(reader.fields.finish().0, TenantsFile::default());
    };
    let file = TenantsFile {
        tenants,
        operator_weight,
    };
    Problems::or(reader.fields.finish().0, file)
}

struct Reader {
    fields: Fields,
    /// Where each key was first.
    seen: HashMap<KeyDigest, String>,
    check_urls: CheckUrls,
}

impl Reader {
    fn operator(&mut self, node: &Node) -> Option<u32> {
        let mut weight = None;
        for (key, node) in self.entries("operator", node) {
            let path = format!("operator.{key}");
            match key.as_str() {
                "weight" => weight = self.weight(&path, node),
                _ => self.fields.unknown(&path, node, key, OF_OPERATOR),
            }
        }
        weight
    }

    fn weight(&mut self, path: &str, node: &Node) -> Option<u32> {
        self.fields.number(path, node, 1, HEAVIEST)
    }

    fn tenants(&mut self, node: &Node) -> BTreeMap<TenantName, TenantSettings> {
        let mut tenants = BTreeMap::new();
        for (name, node) in self.entries("tenants", node) {
            let path = format!("tenants.{name}");
            match TenantName::new(name) {
                Ok(name) => drop(tenants.insert(name, self.tenant(&path, node))),
                Err(error) => self.fields.key_problem("tenants", node, error.to_string()),
            }
        }
        tenants
    }

    /// The entries of a mapping. One without a value is a problem, and so is nothing in place of the mapping: what a template left out would
    /// open more than was meant.
    fn entries<'a>(&mut self, path: &str, node: &'a Node) -> &'a [(String, Node)] {
        let entries = self.fields.map(path, node);
        if node.value == Value::Null {
            self.fields.key_problem(path, node, NOTHING);
        }
        for (key, node) in entries {
            // What is in a mapping of its own says so itself.
            if node.value == Value::Null && path != "tenants" && key != "quotas" {
                let path = format!("{path}.{key}");
                self.fields.key_problem(&path, node, NOTHING);
            }
        }
        entries
    }

    fn tenant(&mut self, path: &str, node: &Node) -> TenantSettings {
        let mut settings = TenantSettings::default();
        for (key, node) in self.entries(path, node) {
            let path = format!("{path}.{key}");
            match key.as_str() {
                "suspended" => {
                    settings.is_suspended = self.fields.truth(&path, node).unwrap_or_default();
                }
                "keys" => {
                    let keys = self.fields.list(&path, node).iter().enumerate();
                    let keys = keys
                        .filter_map(|(index, node)| self.key(&format!("{path}[{index}]"), node));
                    settings.keys = keys.collect();
                }
                "quotas" => settings.quotas = self.quotas(&path, node),
                "weight" => settings.weight = self.weight(&path, node),
                // That it has no value is said already.
                "limits" if node.value == Value::Null => {}
                "limits" => {
                    self.entries(&path, node);
                    settings.limits = limits_of(&mut self.fields, &path, node);
                }
                "sources" => settings.sources = self.sources(&path, node),
                "signers" => settings.signers = self.signers(&path, node),
                _ => self.fields.unknown(&path, node, key, OF_TENANT),
            }
        }
        settings
    }

    fn key(&mut self, path: &str, node: &Node) -> Option<TenantKey> {
        let (mut digest, mut label, mut scopes) = (None, None, BTreeSet::new());
        let (mut models, mut expires) = (None, None);
        for (key, node) in self.entries(path, node) {
            let path = format!("{path}.{key}");
            match key.as_str() {
                "sha256" => digest = self.digest(&path, node),
                "label" => label = self.label(&path, node),
                "scopes" => scopes = self.scopes(&path, node),
                "models" => models = Some(self.models(&path, node)),
                "expires" => expires = self.time(&path, node),
                _ => self.fields.unknown(&path, node, key, OF_KEY),
            }
        }
        if digest.is_none() {
            let rule = "must have a sha256, which `lantern tenants key` makes";
            self.fields.key_problem(path, node, rule);
        }
        if scopes.is_empty() {
            let rule = "must have scopes, of predict, manage and observe";
            self.fields.key_problem(path, node, rule);
        }
        if models.is_some() && scopes.contains(&TenantScope::Observe) {
            let rule = "must not have models beside observe, which shows metrics of all models";
            self.fields.key_problem(path, node, rule);
        }
        let digest = digest?;
        if let Some(first) = self.seen.insert(digest, path.to_owned()) {
            let rule = format!("is the key that {first} is: each key opens one tenant");
            self.fields.key_problem(path, node, rule);
        }
        Some(TenantKey {
            digest,
            label,
            scopes,
            models,
            expires,
        })
    }

    /// Those that are named: a file with problems is not in force, so that none of them is left out.
    fn signers(&mut self, path: &str, node: &Node) -> Signers {
        let items = self.fields.list(path, node);
        if items.is_empty() && matches!(node.value, Value::List(_)) {
            let rule = "must name a signer; without `signers` no signature is asked for";
            self.fields.key_problem(path, node, rule);
        }
        let mut signers = BTreeSet::new();
        for item in items {
            let text = self.fields.text(path, item);
            match text.as_deref().map(str::parse::<Signer>) {
                Some(Ok(signer)) => drop(signers.insert(signer)),
                // The value is not repeated: somebody may have pasted a private key.
                Some(Err(error)) => self.fields.key_problem(path, item, error.to_string()),
                None if item.value == Value::Null => {
                    self.fields.key_problem(path, item, NOTHING);
                }
                None => {}
            }
        }
        Signers::only(signers)
    }

    fn sources(&mut self, path: &str, node: &Node) -> Vec<String> {
        let mut sources = Vec::new();
        for item in self.fields.list(path, node) {
            let Some(text) = self.fields.text(path, item) else {
                continue;
            };
            if text.contains(',') {
                let rule = "must not hold a comma: each source is an item of its own";
                self.fields.problem(path, item, rule);
            }
            for rule in (self.check_urls)(&text, false) {
                self.fields.problem(path, item, rule);
            }
            sources.push(text);
        }
        sources
    }

    fn digest(&mut self, path: &str, node: &Node) -> Option<KeyDigest> {
        let text = self.fields.text(path, node)?;
        let digest = KeyDigest::from_hex(&text);
        if digest.is_none() {
            // The value is not repeated: somebody may have pasted the key.
            let rule = "must be 64 hexadecimal digits in quotation marks, the SHA-256 of a key";
            self.fields.key_problem(path, node, rule);
        }
        digest
    }

    fn label(&mut self, path: &str, node: &Node) -> Option<String> {
        let label = self.fields.text(path, node)?;
        if label.len() > LONGEST_LABEL || label.chars().any(char::is_control) {
            let rule = format!("must be one line of at most {LONGEST_LABEL} bytes");
            self.fields.problem(path, node, rule);
            return None;
        }
        Some(label)
    }

    fn scopes(&mut self, path: &str, node: &Node) -> BTreeSet<TenantScope> {
        let mut scopes = BTreeSet::new();
        for item in self.fields.list(path, node) {
            let Some(word) = self.fields.text(path, item) else {
                continue;
            };
            match TenantScope::named(&word) {
                Some(scope) => drop(scopes.insert(scope)),
                None => self
                    .fields
                    .problem(path, item, "must be of predict, manage and observe"),
            }
        }
        scopes
    }

    fn models(&mut self, path: &str, node: &Node) -> BTreeSet<ModelName> {
        let mut models = BTreeSet::new();
        for item in self.fields.list(path, node) {
            let Some(name) = self.fields.text(path, item) else {
                continue;
            };
            match ModelName::new(&name) {
                Ok(name) => drop(models.insert(name)),
                Err(error) => self.fields.key_problem(path, item, error.to_string()),
            }
        }
        models
    }

    fn time(&mut self, path: &str, node: &Node) -> Option<SystemTime> {
        let text = self.fields.text(path, node)?;
        let time: Result<Timestamp, _> = text.parse();
        if time.is_err() {
            let rule = "must be a time such as 2027-01-01T00:00:00Z";
            self.fields.problem(path, node, rule);
        }
        time.ok().map(SystemTime::from)
    }

    fn quotas(&mut self, path: &str, node: &Node) -> Quotas {
        let mut quotas = Quotas::default();
        for (key, node) in self.entries(path, node) {
            let path = format!("{path}.{key}");
            let size = match key.as_str() {
                "archive_bytes" => Some(&mut quotas.archive_bytes),
                "body_bytes_per_second" => Some(&mut quotas.body_bytes_per_second),
                "worker_memory" => Some(&mut quotas.worker_memory),
                _ => None,
            };
            if let Some(size) = size {
                *size = self.fields.size(&path, node);
                continue;
            }
            let time = match key.as_str() {
                "handler_time_per_second" => Some(&mut quotas.handler_time_per_second),
                "inference_time_per_second" => Some(&mut quotas.inference_time_per_second),
                _ => None,
            };
            if let Some(time) = time {
                *time = self.fields.duration(&path, node);
                continue;
            }
            let (quota, least) = match key.as_str() {
                "requests_per_second" => (&mut quotas.requests_per_second, 1),
                "requests_burst" => (&mut quotas.requests_burst, 1),
                "models" => (&mut quotas.models, 0),
                "versions" => (&mut quotas.versions, 0),
                "workers" => (&mut quotas.workers, 0),
                "requests_in_flight" => (&mut quotas.requests_in_flight, 0),
                "requests_queued" => (&mut quotas.requests_queued, 0),
                _ => {
                    self.fields.unknown(&path, node, key, OF_QUOTAS);
                    continue;
                }
            };
            *quota = self.fields.number(&path, node, least, MOST);
        }
        if quotas.requests_burst.is_some() && quotas.requests_per_second.is_none() {
            let rule = "has requests_burst, which means nothing without requests_per_second";
            self.fields.key_problem(path, node, rule);
        }
        quotas
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::model::Limits;

    const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    /// In place of those who fetch.
    fn check_urls(text: &str, _: bool) -> Vec<String> {
        let is_one = text.starts_with("https://");
        if is_one {
            Vec::new()
        } else {
            vec!["must be a URL".to_owned()]
        }
    }

    #[test]
    fn sources_are_urls_each_an_item_of_its_own() {
        let file =
            read("tenants: {acme: {sources: [https://a.org/, 'https://b.org/.*']}}").unwrap();
        assert_eq!(
            file.tenants["acme"].sources,
            ["https://a.org/", "https://b.org/.*"]
        );
        for (sources, says) in [
            ("['https://a.org/,https://b.org/']", "must not hold a comma"),
            ("[ftp://a]", "must be a URL"),
            ("[1]", "must be a text"),
            ("https://a.org/", "must be a list"),
            ("~", "must have a value"),
        ] {
            let text = format!("tenants: {{acme: {{sources: {sources}}}}}");
            assert!(
                read(&text).unwrap_err().contains(says),
                "{sources}: {:?}",
                read(&text)
            );
        }
    }

    fn read(text: &str) -> Result<TenantsFile, String> {
        parse("t.yaml", text.as_bytes(), check_urls).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_tenant_is_what_its_file_says() {
        let text = format!(
            "tenants:\n  acme:\n    keys:\n      - {{sha256: {DIGEST}, label: ci, scopes: [predict, manage], models: [digits], \
             expires: 2027-01-01T00:00:00Z}}\n    quotas: {{models: 5, requests_in_flight: 7, handler_time_per_second: 500ms}}\n    \
             weight: 3\n    limits: {{memory: 1MiB, cpu: 10s}}\n  globex:\n    suspended: true\noperator: {{weight: 2}}\n"
        );
        let file = read(&text).unwrap();
        let (tenants, operator) = (file.tenants, file.operator_weight);
        let acme = &tenants["acme"];
        assert_eq!(
            (acme.weight, tenants["globex"].weight, operator),
            (Some(3), None, Some(2))
        );
        let ceilings = acme.limits.lower(&Limits::default());
        assert_eq!(ceilings.memory, 1 << 20);
        // Nothing is raised.
        assert_eq!(
            Limits {
                memory: Limits::default().memory,
                ..ceilings
            },
            Limits::default()
        );
        let handlers = acme.quotas.handler_time_per_second;
        assert_eq!(handlers, Some(Duration::from_millis(500)));
        let [key] = &acme.keys[..] else {
            panic!("{acme:?}");
        };
        assert_eq!(key.digest, KeyDigest::of(b"test"));
        assert_eq!(key.label.as_deref(), Some("ci"));
        let now = SystemTime::UNIX_EPOCH;
        let opens = |scope| key.opens(scope, now);
        assert_eq!(TenantScope::ALL.map(opens), [true, true, false]);
        assert!(!key.opens(
            TenantScope::Predict,
            now + std::time::Duration::from_secs(4_000_000_000)
        ));
        assert_eq!(key.models.as_ref().unwrap().len(), 1);
        assert_eq!(
            (acme.quotas.models, acme.quotas.requests_in_flight),
            (Some(5), Some(7))
        );
        assert!(!acme.is_suspended && tenants["globex"].is_suspended);
    }

    #[test]
    fn no_file_that_was_cut_off_is_one() {
        assert_eq!(read("tenants: {}\n"), Ok(TenantsFile::default()));
        for text in [
            "",
            "\n",
            "{}",
            "ten",
            "tenants:\n",
            "tenants:\n  acme:\n",
            "tenants:\n  acme:\n    keys:\n",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_says_nothing_is_a_problem_and_lifts_no_limit() {
        for field in [
            "suspended:",
            "quotas:",
            "quotas: {models: }",
            "quotas: {models: ~}",
            "keys: ~",
            "weight: ",
            "limits: {memory: }",
            "limits: ~",
        ] {
            let text = format!("tenants:\n  acme:\n    {field}\n");
            let told = read(&text).unwrap_err();
            assert!(told.contains("tenants.acme."), "{told}");
            assert_eq!(told.matches("must have a value").count(), 1, "{told}");
        }
        let text = "tenants: {acme: {limits: {memory: 1MiB, memmory: 1}}}";
        assert!(
            read(text).unwrap_err().contains("did you mean"),
            "{:?}",
            read(text)
        );
        for field in ["expires: ~", "models: ~", "models: ", "scopes: "] {
            let text = format!(
                "tenants: {{acme: {{keys: [{{sha256: {DIGEST}, scopes: [predict], {field}}}]}}}}"
            );
            assert!(read(&text).is_err(), "{field}");
        }
        let text = format!(
            "tenants: {{acme: {{keys: [{{sha256: {DIGEST}, scopes: [observe], models: [a]}}]}}}}"
        );
        assert!(read(&text).unwrap_err().contains("beside observe"));
    }

    #[test]
    fn signers_are_asked_for_where_they_are_named() {
        let signer = "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        for text in [
            format!("tenants: {{acme: {{signers: [{signer}]}}}}"),
            format!("tenants:\n  acme:\n    signers:\n      - {signer} # the release\n"),
        ] {
            let expected = Signers::only([signer.parse().unwrap()].into());
            assert_eq!(
                read(&text).unwrap().tenants["acme"].signers,
                expected,
                "{text}"
            );
        }
        let none = read("tenants: {acme: {}}").unwrap();
        assert_eq!(none.tenants["acme"].signers, Signers::default());
    }

    #[test]
    fn no_mistake_lifts_what_is_asked_of_signers() {
        let zeros = format!("[ed25519:{}=]", "A".repeat(43));
        for (signers, says) in [
            ("", "must have a value"),
            ("~", "must have a value"),
            ("[]", "must name a signer"),
            ("[~]", "must have a value"),
            ("['']", "must be a text"),
            ("[1]", "must be a text"),
            ("{}", "must be a list"),
            (
                "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
                "must be a list",
            ),
            ("[ed25519:hunter2]", "must be ed25519: and 44 characters"),
            ("[hunter2]", "must be ed25519: and 44 characters"),
            (&zeros, "anybody can sign"),
        ] {
            let text = format!("tenants: {{acme: {{signers: {signers}}}}}");
            let problems = read(&text).unwrap_err();
            assert!(problems.contains(says), "{signers}: {problems}");
            assert!(!problems.contains("hunter2"), "{problems}");
        }
    }

    #[test]
    fn every_problem_is_told_with_its_line_and_no_key_is_repeated() {
        let text = format!(
            "tenants:\n  Acme: {{}}\n  acme:\n    keys:\n      - {{sha256: hunter2hunter2, scopes: [all]}}\n      - {{scopes: [predict]}}\n      \
             - {{sha256: {DIGEST}, scopes: [predict], expires: tomorrow, colour: red}}\n      - {{sha256: {DIGEST}, scopes: [manage]}}\n    \
             quotas: {{modells: 5, workers: -1}}\n    weigth: 2\nothers: 1\n"
        );
        let problems = read(&text).unwrap_err();
        assert!(!problems.contains("hunter2"), "{problems}");
        insta::assert_snapshot!(problems);
    }

    #[test]
    fn what_is_no_such_document_is_refused() {
        for text in [
            "a",
            "[]",
            "tenants: []",
            "tenants: {acme: 1}",
            "tenants: {a: {keys: {}}}",
            "a: [",
            "tenants: {a: {}, a: {}}",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_thousand_tenants_with_ten_thousand_keys_fit() {
        let mut text = "tenants:\n".to_owned();
        for tenant in 0..1000 {
            let _ = writeln!(text, "  tenant-{tenant}:\n    keys:");
            for key in 0..10 {
                let digest = KeyDigest::of(format!("{tenant} {key}").as_bytes()).hex();
                let _ = writeln!(
                    text,
                    "      - {{sha256: {digest}, label: key {key}, scopes: [predict, manage], models: [a, b], \
                     expires: 2027-01-01T00:00:00Z}}"
                );
            }
        }
        let tenants = read(&text).unwrap().tenants;
        assert_eq!(
            tenants.values().map(|one| one.keys.len()).sum::<usize>(),
            10_000
        );
    }
}
