//! ONNX models made in a test: the sum of any number of inputs.

/// Element type `float`.
const FLOAT: u64 = 1;
const IR_VERSION: u64 = 8;
const OPSET: u64 = 17;

/// A model of opset 17 that adds up its inputs, fp32 of `[n, 1, .., 1]`, and gives `total`.
pub struct Sum {
    names: Vec<String>,
    rank: usize,
    ir_version: u64,
}

impl Sum {
    /// With `count` inputs whose names have `length` bytes: their numbers, with zeros in front.
    pub fn of(count: usize, length: usize) -> Self {
        Self {
            names: (0..count)
                .map(|index| format!("{index:0>length$}"))
                .collect(),
            rank: 2,
            ir_version: IR_VERSION,
        }
    }

    /// In a release of the format that nothing reads yet.
    pub fn of_the_future(self) -> Self {
        Self {
            ir_version: 9999,
            ..self
        }
    }

    /// With so many axes.
    pub fn rank(self, rank: usize) -> Self {
        Self { rank, ..self }
    }

    /// Names of its inputs.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        [
            number(1, self.ir_version),
            bytes(8, &[bytes(1, b""), number(2, OPSET)].concat()),
            bytes(7, &self.graph()),
        ]
        .concat()
    }

    fn graph(&self) -> Vec<u8> {
        let arguments = self.names.iter().map(|name| bytes(1, name.as_bytes()));
        let node = arguments.chain([bytes(2, b"total"), bytes(4, b"Sum")]);
        let node = node.collect::<Vec<_>>().concat();
        let inputs = self.names.iter().map(|name| bytes(11, &self.value(name)));
        let graph = [bytes(1, &node), bytes(2, b"sum")]
            .into_iter()
            .chain(inputs);
        graph
            .chain([bytes(12, &self.value("total"))])
            .collect::<Vec<_>>()
            .concat()
    }

    fn value(&self, name: &str) -> Vec<u8> {
        let varies = bytes(1, &bytes(2, b"n"));
        let ones = std::iter::repeat_n(bytes(1, &number(1, 1)), self.rank - 1);
        let shape = [varies]
            .into_iter()
            .chain(ones)
            .collect::<Vec<_>>()
            .concat();
        let tensor = [number(1, FLOAT), bytes(2, &shape)].concat();
        [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
    }
}

/// A field of protobuf that is a number.
fn number(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3], varint(value)].concat()
}

/// A field of protobuf that is bytes.
fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    [
        vec![field << 3 | 2],
        varint(value.len() as u64),
        value.to_vec(),
    ]
    .concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut written = Vec::new();
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            written.push(low);
            return written;
        }
        written.push(low | 0x80);
    }
}
