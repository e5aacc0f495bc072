//! What is done about batching, and what was found out about an archive.

use crate::runtime::{Batching, Grounds, Verdict};

use super::{FAILURE_TEXT, messages, truncated};

/// What is done.
pub fn batching_to_wire(batching: &Batching) -> messages::Batching {
    match batching {
        Batching::Single => messages::Batching::Single,
        Batching::On(grounds) => messages::Batching::On(grounds_to_wire(*grounds)),
        Batching::OnByOwner => messages::Batching::OnByOwner,
        Batching::Trial => messages::Batching::Trial,
        Batching::Off(reason) => {
            messages::Batching::Off(truncated(reason, FAILURE_TEXT).to_owned())
        }
    }
}

/// What is done; reasons cut to what `describe` shows.
pub fn batching_from_wire(batching: messages::Batching) -> Batching {
    match batching {
        messages::Batching::Single => Batching::Single,
        messages::Batching::On(grounds) => Batching::On(grounds_from_wire(grounds)),
        messages::Batching::OnByOwner => Batching::OnByOwner,
        messages::Batching::Trial => Batching::Trial,
        messages::Batching::Off(reason) => {
            Batching::Off(truncated(&reason, FAILURE_TEXT).to_owned())
        }
    }
}

/// What was found out.
pub fn verdict_to_wire(verdict: &Verdict) -> messages::Verdict {
    match verdict {
        Verdict::Confirmed(grounds) => messages::Verdict::Confirmed(grounds_to_wire(*grounds)),
        Verdict::Refuted(reason) => {
            messages::Verdict::Refuted(truncated(reason, FAILURE_TEXT).to_owned())
        }
    }
}

/// What was found out.
pub fn verdict_from_wire(verdict: messages::Verdict) -> Verdict {
    match verdict {
        messages::Verdict::Confirmed(grounds) => Verdict::Confirmed(grounds_from_wire(grounds)),
        messages::Verdict::Refuted(reason) => {
            Verdict::Refuted(truncated(&reason, FAILURE_TEXT).to_owned())
        }
    }
}

const fn grounds_to_wire(grounds: Grounds) -> messages::Grounds {
    match grounds {
        Grounds::Samples => messages::Grounds::Samples,
        Grounds::Rounded => messages::Grounds::Rounded,
        Grounds::Requests => messages::Grounds::Requests,
    }
}

const fn grounds_from_wire(grounds: messages::Grounds) -> Grounds {
    match grounds {
        messages::Grounds::Samples => Grounds::Samples,
        messages::Grounds::Rounded => Grounds::Rounded,
        messages::Grounds::Requests => Grounds::Requests,
    }
}
