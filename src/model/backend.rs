//! The frameworks that run artifacts, and what the rest of the server has to know of each.
//!
//! A framework is one variant of [`BackendKind`] and one [`BackendInfo`]. Settings, archives, the process protocol, the
//! launcher and the protocols of clients read that row; only the program that hosts a framework names it in code, to
//! construct it.

/// Which framework runs the artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// TorchScript, hosted by `lantern-torch`.
    Torch,
    /// ONNX, hosted by `lantern`.
    Onnx,
    /// No weights in the archive: the handler answers by itself.
    None,
    /// A backend for tests and benches: outputs are its inputs.
    Fake,
}

/// The program that hosts a framework in worker processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `lantern worker`.
    Lantern,
    /// `lantern-torch`, which links libtorch.
    LanternTorch,
}

impl Program {
    /// The name of its file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lantern => "lantern",
            Self::LanternTorch => "lantern-torch",
        }
    }
}

/// Facts about a framework.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    /// The name in settings, messages, logs and on the process protocol.
    pub name: &'static str,
    /// What its artifacts are called in messages.
    pub format: &'static str,
    /// Extensions of its artifacts' names, the usual one first; none if it has no artifacts.
    pub extensions: &'static [&'static str],
    /// The program that hosts it.
    pub program: Program,
    /// Whether it is for tests alone, so that no message offers it.
    pub is_for_tests: bool,
    /// Whether it may run in the server's process and in tools: which says nothing of trust: weights are loaded with the rights of the process.
    pub may_be_inline: bool,
    /// What must be true of an artifact that loads, in words of its framework: the end of a message.
    pub loads_if: &'static str,
    /// `platform` in the metadata of Open Inference Protocol, `PROJECT_FORMAT`.
    pub platform: &'static str,
    /// `platform` and `backend` in a model's configuration, as Triton names them.
    pub triton: (&'static str, &'static str),
}

impl BackendKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Torch, Self::Onnx, Self::None, Self::Fake];

    /// What is known of it.
    pub const fn info(self) -> &'static BackendInfo {
        match self {
            Self::Torch => &BackendInfo {
                name: "torch",
                format: "TorchScript",
                extensions: &["pt", "pth", "ts", "torchscript"],
                program: Program::LanternTorch,
                is_for_tests: false,
                may_be_inline: false,
                loads_if: "torch.jit.load opens it in Python, in the release of PyTorch that the server has",
                platform: "pytorch_torchscript",
                triton: ("pytorch_libtorch", "pytorch"),
            },
            Self::Onnx => &BackendInfo {
                name: "onnx",
                format: "ONNX",
                extensions: &["onnx"],
                program: Program::Lantern,
                is_for_tests: false,
                may_be_inline: true,
                loads_if: "onnxruntime.InferenceSession opens it in Python, in the release of ONNX Runtime that the server has",
                platform: "onnx_onnxv1",
                triton: ("onnxruntime_onnx", "onnxruntime"),
            },
            Self::None => &BackendInfo {
                name: "none",
                format: "a handler without weights",
                extensions: &[],
                program: Program::Lantern,
                is_for_tests: false,
                may_be_inline: true,
                loads_if: "its handler needs no model",
                platform: "lantern_wasm",
                triton: ("lantern_wasm", "lantern"),
            },
            Self::Fake => &BackendInfo {
                name: "fake",
                format: "the backend for tests",
                extensions: &[],
                program: Program::Lantern,
                is_for_tests: true,
                may_be_inline: false,
                loads_if: "the test means it to load",
                platform: "lantern_fake",
                triton: ("lantern_fake", "lantern"),
            },
        }
    }

    /// The name in settings, messages and logs.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// The framework of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The framework whose artifacts have names that end like this one.
    pub fn of_artifact(name: &str) -> Option<Self> {
        let extension = name.rsplit('.').next()?;
        Self::ALL
            .into_iter()
            .find(|kind| kind.info().extensions.contains(&extension))
    }

    /// The names that settings may have, as `a, b or c`.
    pub fn choices() -> String {
        let offered = Self::ALL.map(Self::info).into_iter();
        either(
            offered
                .filter(|info| !info.is_for_tests)
                .map(|info| info.name.to_owned()),
        )
    }

    /// How to say which framework runs an artifact, for whoever packs the archive.
    pub fn advice() -> String {
        let infos = || {
            let all = Self::ALL.into_iter().map(Self::info);
            all.filter_map(|info| Some((info.name, info.extensions.first()?)))
        };
        let extensions = either(infos().map(|(_, extension)| format!(".{extension}")));
        let names = either(infos().map(|(name, _)| name.to_owned()));
        format!("name it {extensions}, or set `lantern: {{backend: NAME}}` to {names}")
    }

    /// Whether an archive must bring an artifact for it.
    pub const fn needs_artifact(self) -> bool {
        !self.info().extensions.is_empty()
    }
}

/// Words as `a, b or c`.
fn either(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<_> = words.collect();
    let last = words.pop().unwrap_or_default();
    if words.is_empty() {
        return last;
    }
    format!("{} or {last}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_backend_is_found_by_its_name_and_by_its_extensions() {
        for kind in BackendKind::ALL {
            assert_eq!(BackendKind::named(kind.name()), Some(kind));
            for extension in kind.info().extensions {
                let found = BackendKind::of_artifact(&format!("model.v1.{extension}"));
                assert_eq!(found, Some(kind), "{extension}");
            }
        }
        assert_eq!(BackendKind::named("tensorflow"), None);
        assert_eq!(BackendKind::of_artifact("model.bin"), None);
    }

    #[test]
    fn no_name_or_extension_belongs_to_two_backends() {
        let infos = BackendKind::ALL.map(BackendKind::info);
        let names: HashSet<_> = infos.iter().map(|info| info.name).collect();
        assert_eq!(names.len(), infos.len());
        let all: Vec<_> = infos.iter().flat_map(|info| info.extensions).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn messages_offer_what_is_not_for_tests() {
        assert_eq!(BackendKind::choices(), "torch, onnx or none");
        assert_eq!(
            BackendKind::advice(),
            "name it .pt or .onnx, or set `lantern: {backend: NAME}` to torch or onnx"
        );
    }
}
