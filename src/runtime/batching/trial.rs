//! The trial of a version: how many of its first batches agreed.

/// This many batches have to agree.
pub(super) const AGREEMENTS: usize = 8;
/// They need this many different numbers of rows, where the batch size allows as many.
const SIZES: usize = 2;

/// The batches that gave the same both ways.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    agreed: usize,
    /// One bit for each number of rows seen.
    sizes: u64,
}

impl Trial {
    /// Adds a batch of `rows` rows that agreed, where a batch may have `most`. Returns whether that is enough. A batch in which
    /// a row in the wrong place would not have shown does not count.
    pub(super) fn note(&mut self, is_telling: bool, rows: usize, most: usize) -> bool {
        if is_telling {
            self.agreed += 1;
            self.sizes |= 1 << rows.min(63);
        }
        let wanted = SIZES.min(most.saturating_sub(1));
        self.agreed >= AGREEMENTS && self.sizes.count_ones() as usize >= wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_batches_of_different_sizes_have_to_agree() {
        let mut trial = Trial::default();
        let needed = (1..100).find(|_| trial.note(true, 2, 4));
        assert_eq!(needed, None, "one size is not enough");
        assert!(trial.note(true, 3, 4));
        let mut pairs = Trial::default();
        let needed = (1..100).find(|_| pairs.note(true, 2, 2));
        assert_eq!(needed, Some(AGREEMENTS), "of pairs there is one size");
    }

    #[test]
    fn batches_that_tell_nothing_do_not_count() {
        let mut trial = Trial::default();
        assert!(!(0..100).any(|rows| trial.note(false, rows, 4)));
    }
}
