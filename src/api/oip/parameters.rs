//! Parameters: a flat map of names to texts, numbers and flags, and what the server itself reads from it.
//!
//! Names that the protocol's extensions reserve are checked; others are the client's own and mean nothing here.

use std::time::{Duration, Instant};

use crate::error::{Error, Kind};
use crate::payload::{Priority, Schedule};

/// Parameters that one map may have.
pub(in crate::api) const LIMIT: usize = 128;
/// Names that only the server may use.
const SERVERS_OWN: &str = "triton_";
/// But for this one, which NVIDIA's clients send along: whether they want an empty response after the last. A request
/// has one response here, so that there is nothing to do.
const CLIENTS_OWN: &str = "triton_enable_empty_final_response";
/// Microseconds that a request may be willing to wait, at most; more is as good as no limit.
const LONGEST_WAIT: u64 = 24 * 3600 * 1_000_000;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::api) enum Parameter {
    /// A flag.
    Flag(bool),
    /// A whole number.
    Integer(i128),
    /// Another number.
    Number(f64),
    /// A text.
    Text(String),
}

/// Names and values in the order they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::api) struct Parameters(Vec<(String, Parameter)>);

impl Parameters {
    /// From names and values; a name may come once.
    pub(in crate::api) fn new(pairs: Vec<(String, Parameter)>) -> Result<Self, Error> {
        for (index, (name, _)) in pairs.iter().enumerate() {
            if pairs[..index].iter().any(|(before, _)| before == name) {
                return Err(refused(name, "came twice"));
            }
        }
        Ok(Self(pairs))
    }

    fn get(&self, name: &str) -> Option<&Parameter> {
        let mut pairs = self.0.iter();
        pairs.find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// A flag, if it is there.
    pub(in crate::api) fn flag(&self, name: &str) -> Result<Option<bool>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Parameter::Flag(flag)) => Ok(Some(*flag)),
            Some(_) => Err(refused(name, "must be true or false")),
        }
    }

    /// A whole number that is not negative, if it is there.
    pub(in crate::api) fn count(&self, name: &str) -> Result<Option<u64>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Parameter::Integer(count)) if u64::try_from(*count).is_ok() => {
                Ok(u64::try_from(*count).ok())
            }
            Some(_) => Err(refused(name, "must be a whole number from 0 on")),
        }
    }

    /// Refuses what this server cannot do: tensors in shared memory.
    pub(in crate::api) fn check_of_tensor(&self) -> Result<(), Error> {
        let is_shared = |(name, _): &&(String, Parameter)| name.starts_with("shared_memory_");
        match self.0.iter().find(is_shared) {
            Some((name, _)) => Err(refused(name, "is not supported: send the tensor's data")),
            None => Ok(()),
        }
    }

    /// When a request that arrived then is to be run. Refuses reserved names that ask for more than there is.
    pub(in crate::api) fn schedule(&self, arrival: Instant) -> Result<Schedule, Error> {
        for (name, value) in &self.0 {
            check_of_request(name, value)?;
        }
        let begin_by = self.count("timeout")?.filter(|timeout| *timeout > 0);
        Ok(Schedule {
            priority: self.priority()?,
            begin_by: begin_by
                .map(|timeout| arrival + Duration::from_micros(timeout.min(LONGEST_WAIT))),
        })
    }

    /// `priority`: 1 is the highest, 0 the default.
    fn priority(&self) -> Result<Priority, Error> {
        match self.count("priority")? {
            None | Some(0) => Ok(Priority::default()),
            Some(level) => {
                let level = usize::try_from(level - 1).ok();
                let priority = level.and_then(|level| Priority::ALL.get(level));
                priority.copied().ok_or_else(|| {
                    let rule = format!("must be from 0 to {}", Priority::ALL.len());
                    refused("priority", &rule)
                })
            }
        }
    }
}

fn check_of_request(name: &str, value: &Parameter) -> Result<(), Error> {
    if name.starts_with(SERVERS_OWN) && name != CLIENTS_OWN {
        return Err(refused(name, "begins with triton_, which is reserved"));
    }
    let is_none = match value {
        Parameter::Integer(id) => *id == 0,
        Parameter::Text(id) => id.is_empty(),
        Parameter::Flag(flag) => !flag,
        Parameter::Number(_) => false,
    };
    match name {
        "sequence_id" | "sequence_start" | "sequence_end" if !is_none => Err(refused(
            name,
            "is not supported: requests of a sequence are not kept together",
        )),
        "headers" => Err(refused(name, "is reserved")),
        _ => Ok(()),
    }
}

fn refused(name: &str, rule: &str) -> Error {
    let name = super::shown(name);
    Error::new(Kind::BadRequest, format!("parameter {name} {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: Parameter) -> Parameters {
        Parameters::new(vec![(name.to_owned(), value)]).unwrap()
    }

    fn refusal(name: &str, value: Parameter) -> String {
        let error = of(name, value).schedule(Instant::now()).unwrap_err();
        assert_eq!(error.kind(), Kind::BadRequest);
        error.message().to_owned()
    }

    #[test]
    fn priority_and_timeout_become_a_schedule() {
        let now = Instant::now();
        let schedule = |name, value| of(name, Parameter::Integer(value)).schedule(now).unwrap();
        assert_eq!(schedule("priority", 0), Schedule::default());
        assert_eq!(schedule("priority", 1).priority, Priority::High);
        assert_eq!(schedule("priority", 3).priority, Priority::Low);
        assert_eq!(schedule("timeout", 0), Schedule::default());
        let wait = Duration::from_micros(1500);
        assert_eq!(schedule("timeout", 1500).begin_by, Some(now + wait));
        let longest = schedule("timeout", i128::from(u64::MAX)).begin_by.unwrap();
        assert_eq!(longest - now, Duration::from_micros(LONGEST_WAIT));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let text = |text: &str| Parameter::Text(text.to_owned());
        for (name, value, says) in [
            ("priority", Parameter::Integer(4), "from 0 to 3"),
            ("priority", Parameter::Integer(i128::MAX), "whole number"),
            ("priority", Parameter::Number(1.0), "whole number"),
            ("timeout", Parameter::Integer(-1), "whole number"),
            ("timeout", text("5"), "whole number"),
            ("sequence_id", Parameter::Integer(7), "not supported"),
            ("sequence_id", text("a"), "not supported"),
            ("sequence_start", Parameter::Flag(true), "not supported"),
            ("triton_final_response", Parameter::Flag(true), "reserved"),
            ("headers", text("x"), "reserved"),
        ] {
            let message = refusal(name, value);
            assert!(
                message.contains(name) && message.contains(says),
                "{message}"
            );
        }
    }

    #[test]
    fn a_request_outside_a_sequence_says_so_in_many_ways() {
        for value in [
            Parameter::Integer(0),
            Parameter::Text(String::new()),
            Parameter::Flag(false),
        ] {
            of("sequence_id", value).schedule(Instant::now()).unwrap();
        }
        let own = of("my_own", Parameter::Number(0.5));
        assert_eq!(own.schedule(Instant::now()).unwrap(), Schedule::default());
    }

    #[test]
    fn a_name_comes_once_and_tensors_are_sent() {
        let twice = vec![("a".to_owned(), Parameter::Flag(true)); 2];
        assert!(
            Parameters::new(twice)
                .unwrap_err()
                .message()
                .contains("twice")
        );
        let region = of("shared_memory_region", Parameter::Text("r".to_owned()));
        assert!(region.check_of_tensor().is_err());
    }
}
