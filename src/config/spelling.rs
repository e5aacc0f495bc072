//! The known key that a misspelt one was probably meant to be.

/// The nearest of `known` to `given`, if it is near enough to be worth saying: an edit in three characters.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    // A key that is not of a key's length is nobody's typing error, and would cost time to compare.
    if given.len() > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|key| (distance(&given, &key.to_lowercase()), key))
        .filter(|(edits, key)| edits * 3 <= key.len().max(3))
        .min()
        .map(|(_, key)| key)
}

/// Says what is wrong with an unknown key.
pub fn unknown<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(given, known) {
        Some(key) => format!("is not a known key; did you mean {key}?"),
        None => "is not a known key".to_owned(),
    }
}

/// Levenshtein's distance in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 3] = ["batchSize", "maxBatchDelay", "minWorkers"];

    #[test]
    fn near_keys_are_found() {
        assert_eq!(nearest("batchsize", KEYS), Some("batchSize"));
        assert_eq!(nearest("maxBatchDely", KEYS), Some("maxBatchDelay"));
        assert_eq!(nearest("min_workers", KEYS), Some("minWorkers"));
    }

    #[test]
    fn far_keys_are_not() {
        assert_eq!(nearest("learningRate", KEYS), None);
        assert_eq!(nearest("", KEYS), None);
        assert_eq!(nearest(&"b".repeat(1 << 20), KEYS), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
