//! What the fuzzer calls: keystores in Java's own format, and the keys in them.

use sha1::{Digest as _, Sha1};

use super::super::{Identity, private_key};
use super::jks::{self, WHITENER};

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

const PASSWORD: &str = "changeit";
const DIGEST: usize = 20;

/// Names of the targets and their functions.
pub(crate) const TARGETS: [Target; 1] = [("keystore", keystore)];

/// The digest at the end is made right first, so that the fuzzer need not.
fn keystore(bytes: &[u8]) {
    let contents = &bytes[..bytes.len().saturating_sub(DIGEST)];
    let password: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let digest = Sha1::new()
        .chain_update(password)
        .chain_update(WHITENER)
        .chain_update(contents)
        .finalize();
    let sealed = [contents, &digest].concat();
    let Ok(Identity { chain, key }) = jks::identity(&sealed, PASSWORD) else {
        return;
    };
    assert!(!chain.is_empty());
    let length: usize = chain.iter().map(|certificate| certificate.len()).sum();
    assert!(length + key.secret_der().len() <= sealed.len());
    private_key::describe(&key);
    private_key::completed(key, &chain[0]);
}
