//! Files of weights that are not served: what each is, how it is recognized, and what to export instead.
//!
//! One row for each kind in [`UNSERVED`]. A file is recognized by its content where the content says what it is, whatever its
//! name, and else by its name's extension. `archive` reads the file; `docs/exporting.md` has the recipes at length.

use std::fmt;

/// A kind of file that is not served.
#[derive(Debug, PartialEq, Eq)]
pub struct Unserved {
    /// What it is, as in "it is …".
    pub what: &'static str,
    /// Extensions of names, lower-case, that say that it is such a file if its content does not say what it is.
    pub extensions: &'static [&'static str],
    /// What its content has; any of them is enough.
    pub marks: &'static [Mark],
    /// What to do instead.
    pub remedy: Remedy,
}

/// What the content of a file has.
#[derive(Debug, PartialEq, Eq)]
pub enum Mark {
    /// These bytes, there.
    Bytes(usize, &'static [u8]),
    /// Entries of a zip: all of the first names, and none of the second. A name ends an entry's path, or if it ends in a
    /// slash is a folder in it.
    Entries(&'static [&'static str], &'static [&'static str]),
}

/// What to do instead, for whoever packs the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The model is a Python object of `PyTorch`.
    ExportFromPyTorch,
    /// The model is one of TensorFlow or Keras.
    ConvertFromTensorFlow,
    /// The file was compiled from a model for one machine.
    PackTheSource,
    /// Nothing converts it.
    FindTheModel,
}

/// The part of a file that is looked at to recognize it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Glimpse {
    /// The first bytes.
    pub start: Vec<u8>,
    /// Names of the entries, if it is a zip.
    pub entries: Vec<String>,
}

/// All of them. The first that fits counts.
pub const UNSERVED: &[Unserved] = &[
    Unserved {
        what: "a program of torch.export",
        extensions: &["pt2"],
        marks: &[
            Mark::Entries(&["archive_format", "models/"], &[]),
            Mark::Entries(&["serialized_exported_program.json"], &[]),
        ],
        remedy: Remedy::ExportFromPyTorch,
    },
    Unserved {
        what: "a file of PyTorch's Lite Interpreter for phones",
        extensions: &["ptl"],
        marks: &[],
        remedy: Remedy::ExportFromPyTorch,
    },
    Unserved {
        what: "a pickle of torch.save, which holds weights or names a Python class and has no program",
        extensions: &["ckpt"],
        marks: &[
            Mark::Entries(&["data.pkl"], &["code/", "constants.pkl"]),
            Mark::Bytes(
                0,
                b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
            ),
        ],
        remedy: Remedy::ExportFromPyTorch,
    },
    Unserved {
        what: "a Python pickle, which is not opened here",
        extensions: &["pkl", "pickle", "joblib"],
        marks: &[
            Mark::Bytes(0, b"\x80\x02"),
            Mark::Bytes(0, b"\x80\x03"),
            Mark::Bytes(0, b"\x80\x04"),
            Mark::Bytes(0, b"\x80\x05"),
        ],
        remedy: Remedy::ExportFromPyTorch,
    },
    Unserved {
        what: "a file of safetensors, which holds weights and no program",
        extensions: &["safetensors"],
        // The end of a length, which is never that large, and the beginning of an object.
        marks: &[Mark::Bytes(5, b"\0\0\0{\""), Mark::Bytes(5, b"\0\0\0{ ")],
        remedy: Remedy::ExportFromPyTorch,
    },
    Unserved {
        what: "an engine of TensorRT, which fits one GPU and one release",
        extensions: &["engine", "plan", "trt"],
        marks: &[Mark::Bytes(0, b"ptrt"), Mark::Bytes(0, b"ftrt")],
        remedy: Remedy::PackTheSource,
    },
    Unserved {
        what: "a native library, such as AOTInductor makes",
        extensions: &["so"],
        marks: &[Mark::Bytes(0, b"\x7fELF")],
        remedy: Remedy::PackTheSource,
    },
    Unserved {
        what: "a model of Keras",
        extensions: &["h5", "hdf5", "keras"],
        marks: &[
            Mark::Bytes(0, b"\x89HDF\r\n\x1a\n"),
            Mark::Entries(&["model.weights.h5"], &[]),
        ],
        remedy: Remedy::ConvertFromTensorFlow,
    },
    Unserved {
        what: "a model of TensorFlow Lite",
        extensions: &["tflite"],
        marks: &[Mark::Bytes(4, b"TFL3")],
        remedy: Remedy::ConvertFromTensorFlow,
    },
    Unserved {
        what: "a graph of TensorFlow",
        extensions: &["pb"],
        marks: &[],
        remedy: Remedy::ConvertFromTensorFlow,
    },
    Unserved {
        what: "a file of GGUF, which holds weights and no program",
        extensions: &["gguf"],
        marks: &[Mark::Bytes(0, b"GGUF")],
        remedy: Remedy::FindTheModel,
    },
    Unserved {
        what: "a file of bare weights, which has no program",
        extensions: &["bin"],
        marks: &[],
        remedy: Remedy::ExportFromPyTorch,
    },
];

impl Unserved {
    /// What the content of a file says that it is.
    pub fn by_content(glimpse: &Glimpse) -> Option<&'static Self> {
        let mut all = UNSERVED.iter();
        all.find(|kind| kind.marks.iter().any(|mark| mark.is_in(glimpse)))
    }

    /// What a file's name says that it is.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        let (_, extension) = name.rsplit_once('.')?;
        let extension = extension.to_ascii_lowercase();
        let mut all = UNSERVED.iter();
        all.find(|kind| kind.extensions.contains(&extension.as_str()))
    }
}

/// What it is and what to do instead, for a sentence that begins with a file's name.
impl fmt::Display for Unserved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, remedy) = (self.what, self.remedy.text());
        write!(
            formatter,
            "is not served: it is {what}. Served are TorchScript and ONNX: {remedy} (docs/exporting.md has recipes)"
        )
    }
}

impl Remedy {
    const fn text(self) -> &'static str {
        match self {
            Self::ExportFromPyTorch => {
                "export the model from Python with torch.jit.script(model).save(\"model.pt\"), \
                 torch.jit.trace(model, example).save(\"model.pt\") or torch.onnx.export(model, (example,), \"model.onnx\")"
            }
            Self::ConvertFromTensorFlow => {
                "convert the model with python -m tf2onnx.convert --output model.onnx"
            }
            Self::PackTheSource => {
                "pack the ONNX or TorchScript file that it was made from, or export the model again with \
                 torch.onnx.export(model, (example,), \"model.onnx\")"
            }
            Self::FindTheModel => {
                "export the model that the weights belong to from PyTorch, with torch.onnx.export(model, (example,), \"model.onnx\")"
            }
        }
    }
}

impl Mark {
    fn is_in(&self, glimpse: &Glimpse) -> bool {
        match self {
            Self::Bytes(at, bytes) => {
                let end = at + bytes.len();
                glimpse.start.get(*at..end) == Some(bytes)
            }
            Self::Entries(present, absent) => {
                present.iter().all(|name| glimpse.has(name))
                    && !absent.iter().any(|name| glimpse.has(name))
            }
        }
    }
}

impl Glimpse {
    /// How many first bytes are looked at.
    pub const START: usize = 16;

    fn has(&self, name: &str) -> bool {
        let is_folder = name.ends_with('/');
        self.entries.iter().any(|entry| {
            entry.match_indices(name).any(|(at, _)| {
                let begins = at == 0 || entry[..at].ends_with('/');
                begins && (is_folder || entry.len() == at + name.len())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::BackendKind;

    fn zip(entries: &[&str]) -> Glimpse {
        Glimpse {
            start: b"PK\x03\x04".to_vec(),
            entries: entries.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn no_extension_is_said_to_be_two_things() {
        let unserved = UNSERVED.iter().flat_map(|kind| kind.extensions);
        let served = BackendKind::ALL
            .into_iter()
            .flat_map(|kind| kind.info().extensions);
        let all: Vec<_> = unserved.chain(served).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn zips_are_told_apart_by_what_is_in_them() {
        let script = [
            "m/data.pkl",
            "m/code/__torch__.py",
            "m/constants.pkl",
            "m/version",
        ];
        assert_eq!(Unserved::by_content(&zip(&script)), None);
        for (entries, what) in [
            (&["m/data.pkl", "m/version", "m/data/0"][..], "torch.save"),
            (
                &["m/archive_format", "m/models/model.json", "m/data/x.pt"],
                "torch.export",
            ),
            (&["serialized_exported_program.json"], "torch.export"),
            (&["metadata.json", "model.weights.h5"], "Keras"),
        ] {
            let found = Unserved::by_content(&zip(entries)).map(|kind| kind.what);
            assert!(
                found.is_some_and(|found| found.contains(what)),
                "{entries:?}: {found:?}"
            );
        }
        for other in [&["a/xdata.pkl"][..], &["data.pkl.txt"], &[]] {
            assert_eq!(Unserved::by_content(&zip(other)), None, "{other:?}");
        }
    }

    #[test]
    fn every_kind_is_recognized_and_says_what_to_do() {
        for kind in UNSERVED {
            for extension in kind.extensions {
                let name = format!("m.{}", extension.to_uppercase());
                assert_eq!(Unserved::by_name(&name), Some(kind));
            }
            for mark in kind.marks {
                let glimpse = match mark {
                    Mark::Bytes(at, bytes) => Glimpse {
                        start: [vec![1; *at], bytes.to_vec()].concat(),
                        entries: Vec::new(),
                    },
                    Mark::Entries(present, _) => {
                        let entries = present.iter().map(|name| format!("m/{name}"));
                        let entries = entries.map(|name| {
                            if name.ends_with('/') {
                                name + "x"
                            } else {
                                name
                            }
                        });
                        Glimpse {
                            start: Vec::new(),
                            entries: entries.collect(),
                        }
                    }
                };
                assert!(glimpse.start.len() <= Glimpse::START);
                assert_eq!(Unserved::by_content(&glimpse), Some(kind), "{mark:?}");
            }
            assert!(kind.to_string().contains("docs/exporting.md"));
        }
        assert_eq!(Unserved::by_name("model.pt"), None);
        assert_eq!(Unserved::by_name("pkl"), None);
    }
}
