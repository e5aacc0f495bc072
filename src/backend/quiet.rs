//! What keeps native libraries from telling others about this machine.

/// Variables of the environment of every process that opens a library, before it does.
///
/// ONNX Runtime queues events in a database among the user's files, and looks up and calls its maker's host, from the
/// moment that its environment is made: its switch for that comes too late, and the variable is all that is heeded.
pub const NO_TELEMETRY: [(&str, &str); 1] = [("ORT_DISABLE_TELEMETRY", "1")];
