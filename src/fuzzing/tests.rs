//! Seeds are replayed as they are and damaged: a finding of the fuzzer is kept as a seed of its target.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// Damaged copies of each seed that are replayed.
const DAMAGED: usize = 24;

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let entries = fs::read_dir(directory.join(target));
    let entries = entries.unwrap_or_else(|_| panic!("{target} has no seeds"));
    let mut seeds: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

/// The seed with a byte changed, cut off, or a piece of it left out or repeated.
fn damaged(seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let (from, length) = (numbers.below(seed.len()), 1 + numbers.below(8));
    let to = (from + length).min(seed.len());
    let mut bytes = seed.to_vec();
    match numbers.below(5) {
        0 => bytes.truncate(from),
        1 => drop(bytes.drain(from..to)),
        2 => bytes.extend_from_within(from..to),
        3 => bytes[from..to].fill(0xff),
        _ => bytes[from..to]
            .iter_mut()
            .for_each(|byte| *byte ^= 1 << (length - 1)),
    }
    bytes
}

#[test]
fn every_target_holds_on_its_seeds() {
    for (name, run) in targets() {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (path, seed) in seeds {
            println!("{}", path.display());
            run(&seed);
        }
    }
}

#[test]
fn every_target_holds_on_damaged_seeds() {
    for (name, run) in targets() {
        let mut numbers = Numbers(1);
        run(&[]);
        for (path, seed) in seeds(name).into_iter().filter(|(_, seed)| !seed.is_empty()) {
            for round in 0..DAMAGED {
                let bytes = damaged(&seed, &mut numbers);
                println!("{} in round {round}", path.display());
                run(&bytes);
            }
        }
    }
}

#[test]
fn targets_have_names_of_their_own_and_no_seeds_are_left_over() {
    let mut names: Vec<_> = targets().iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut found: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(names, found);
}

#[test]
fn a_target_is_found_by_its_name_alone() {
    assert!(target("manifest").is_some());
    assert!(target("manifests").is_none());
}
