//! Lines in the model's log: [`info!`](crate::info) and its siblings.

pub use crate::bindings::lantern::handler::logging::Level;
use crate::imports;

/// Whether a line of `level` is kept. The macros ask before they format.
pub fn is_enabled(level: Level) -> bool {
    imports::log_enabled(level)
}

/// Writes one line.
pub fn write(level: Level, message: &str) {
    imports::log(level, message, &[]);
}

/// Writes one line with fields, each a name and a value.
pub fn write_with(level: Level, message: &str, fields: &[(&str, &str)]) {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    let fields: Vec<(String, String)> = fields.iter().map(owned).collect();
    imports::log(level, message, &fields);
}

/// Logs at a level: `log!(Level::Info, "{} rows", rows)`.
#[macro_export]
macro_rules! log {
    ($level:expr, $($argument:tt)+) => {{
        let level = $level;
        if $crate::log::is_enabled(level) {
            $crate::log::write(level, &::std::format!($($argument)+));
        }
    }};
}

/// Logs at level trace, with the arguments of [`format!`].
#[macro_export]
macro_rules! trace {
    ($($argument:tt)+) => { $crate::log!($crate::log::Level::Trace, $($argument)+) };
}

/// Logs at level debug, with the arguments of [`format!`].
#[macro_export]
macro_rules! debug {
    ($($argument:tt)+) => { $crate::log!($crate::log::Level::Debug, $($argument)+) };
}

/// Logs at level info, with the arguments of [`format!`].
#[macro_export]
macro_rules! info {
    ($($argument:tt)+) => { $crate::log!($crate::log::Level::Info, $($argument)+) };
}

/// Logs at level warn, with the arguments of [`format!`].
#[macro_export]
macro_rules! warn {
    ($($argument:tt)+) => { $crate::log!($crate::log::Level::Warn, $($argument)+) };
}

/// Logs at level error, with the arguments of [`format!`].
#[macro_export]
macro_rules! error {
    ($($argument:tt)+) => { $crate::log!($crate::log::Level::Error, $($argument)+) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Host;

    #[test]
    fn lines_arrive_with_level_and_fields() {
        let host = Host::new();
        crate::warn!("{} rows", 3);
        crate::trace!("not kept");
        write_with(Level::Error, "cut", &[("at", "7")]);
        let lines = host.lines();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (lines[0].level, lines[0].message.as_str()),
            (Level::Warn, "3 rows")
        );
        assert_eq!(lines[1].fields, [("at".to_owned(), "7".to_owned())]);
    }
}
