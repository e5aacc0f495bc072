//! Metrics as lines of a log, which is what they are in the modes `log` and `legacy`: written, and read back from
//! commands that print them.
//!
//! `Requests2XX.Count:1.0|#Level:Host|#hostname:vm,timestamp:1795188336`

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use super::encode::number::push_java;
use super::listing::HOSTNAME;

/// Takes metrics as lines, without time stamp and line break. Called for every request: must not block.
#[derive(Clone)]
pub struct MetricLog(Arc<dyn Fn(&str) + Send + Sync>);

impl MetricLog {
    /// A log that hands lines to `write`.
    pub fn new(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }
}

impl Default for MetricLog {
    /// A log that drops every line.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl std::fmt::Debug for MetricLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MetricLog")
    }
}

/// One series in a log: what its lines have in common.
pub(super) struct Template {
    /// Until the value.
    head: String,
    /// From the value to the request.
    tail: String,
    log: MetricLog,
}

impl Template {
    /// Lines of the metric `name` in `unit`. The value of the label that is called for the host goes to the end.
    pub(super) fn new<'a>(
        name: &str,
        unit: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        log: MetricLog,
    ) -> Self {
        let (hosts, labels): (Vec<_>, Vec<_>) =
            labels.partition(|(label, _)| label.eq_ignore_ascii_case(HOSTNAME));
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, value)| format!("{label}:{}", OneLine(value)))
            .collect();
        let host = hosts.first().map_or("", |(_, host)| host);
        Self {
            head: format!("{name}.{}:", OneLine(unit)),
            tail: format!("|#{}|#hostname:{host},", labels.join(",")),
            log,
        }
    }

    /// Writes a line; `request` is the id of the request that it was measured for, empty if there is none.
    pub(super) fn write(&self, value: f64, request: &str) {
        let mut line = String::with_capacity(self.head.len() + self.tail.len() + 96);
        line.push_str(&self.head);
        push_java(&mut line, value);
        line.push_str(&self.tail);
        if !request.is_empty() {
            let _ = write!(line, "requestID:{},", OneLine(request));
        }
        let _ = write!(line, "timestamp:{}", unix_seconds());
        (self.log.0)(&line);
    }
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// Foreign text that stays on its line, and between the separators of one.
struct OneLine<'a>(&'a str);

impl std::fmt::Display for OneLine<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
                write!(formatter, "{}", character.escape_default())?;
            } else if matches!(character, ',' | '|') {
                write!(formatter, "{}", character.escape_unicode())?;
            } else {
                formatter.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// A line that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parsed<'a> {
    /// Name of the metric.
    pub(super) name: &'a str,
    /// Its value.
    pub(super) value: f64,
    /// Values of its labels, the host's last.
    pub(super) label_values: Vec<&'a str>,
}

/// Reads `Name.Unit:value|#Label:value,…|#type:GAUGE|#hostname:host,…`; the type may be missing. `None` if it is none.
pub(super) fn parse(line: &str) -> Option<Parsed<'_>> {
    let (metric, rest) = line.trim().split_once("|#")?;
    let (name, rest_of_metric) = metric.split_once('.')?;
    let (_unit, value) = rest_of_metric.split_once(':')?;
    let value: f64 = value.trim().parse().ok()?;
    let (labels, host) = rest.rsplit_once("|#hostname:")?;
    let labels = labels.split("|#type:").next()?;
    let host = host.split(',').next()?;
    let pairs = labels.split(',').filter(|pair| !pair.is_empty());
    let values: Option<Vec<&str>> = pairs.map(|pair| Some(pair.split_once(':')?.1)).collect();
    let mut label_values = values?;
    label_values.push(host);
    let is_sound = !name.is_empty() && !host.is_empty() && value.is_finite();
    is_sound.then_some(Parsed {
        name,
        value,
        label_values,
    })
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;

    fn line_of(labels: &[(&str, &str)], request: &str) -> String {
        let written = Arc::new(Mutex::new(String::new()));
        let lines = Arc::clone(&written);
        let log = MetricLog::new(move |line| lines.lock().push_str(line));
        Template::new("CustCnt", "Count", labels.iter().copied(), log).write(3.0, request);
        let line = written.lock().clone();
        let (line, seconds) = line.split_once("timestamp:").unwrap();
        assert!(seconds.parse::<u64>().unwrap() > 1_700_000_000);
        line.to_owned()
    }

    #[test]
    fn lines_are_torchserves() {
        let labels = [("ModelName", "m"), ("Level", "Model"), ("Hostname", "vm")];
        assert_eq!(
            line_of(&labels, "1f0e"),
            "CustCnt.Count:3.0|#ModelName:m,Level:Model|#hostname:vm,requestID:1f0e,"
        );
        assert_eq!(
            line_of(&labels[1..], ""),
            "CustCnt.Count:3.0|#Level:Model|#hostname:vm,"
        );
        assert_eq!(
            line_of(&[("hostname", "vm")], ""),
            "CustCnt.Count:3.0|#|#hostname:vm,"
        );
    }

    #[test]
    fn foreign_text_cannot_begin_a_line() {
        let line = line_of(&[("a", "x\n2026 - y\r\u{1b}[2J\u{2028}")], "id\nz");
        assert_eq!(
            line,
            "CustCnt.Count:3.0|#a:x\\n2026 - y\\r\\u{1b}[2J\\u{2028}|#hostname:,requestID:id\\nz,"
        );
    }

    #[test]
    fn foreign_text_cannot_add_a_label() {
        let line = line_of(&[("ModelName", "a,b|#hostname:c")], "");
        let expected = "CustCnt.Count:3.0|#ModelName:a\\u{2c}b\\u{7c}#hostname:c|#hostname:,";
        assert_eq!(line, expected);
        assert_eq!(
            parse("A.B:1|#ModelName:a\\u{2c}b|#hostname:h,1")
                .unwrap()
                .label_values
                .len(),
            2
        );
    }

    #[test]
    fn lines_of_torchserves_collector_are_read() {
        let read = |line| parse(line).unwrap();
        let plain = read("CPUUtilization.Percent:7.5|#Level:Host|#hostname:vm,1795188336");
        assert_eq!(
            plain,
            Parsed {
                name: "CPUUtilization",
                value: 7.5,
                label_values: vec!["Host", "vm"]
            }
        );
        let typed =
            read("GPUUtilization.Percent:1|#Level:Host,device_id:0|#type:GAUGE|#hostname:vm,1,r");
        assert_eq!(typed.label_values, ["Host", "0", "vm"]);
        assert_eq!(
            read(" A.B:1e3|#|#hostname:vm,1\n").value.to_bits(),
            1000f64.to_bits()
        );
    }

    #[test]
    fn other_lines_are_not() {
        for line in [
            "",
            "hello",
            "A.B:1",
            "A.B:x|#Level:Host|#hostname:vm,1",
            "A.B:NaN|#Level:Host|#hostname:vm,1",
            "A.B:inf|#Level:Host|#hostname:vm,1",
            "A:1|#Level:Host|#hostname:vm,1",
            ".B:1|#Level:Host|#hostname:vm,1",
            "A.B:1|#Level|#hostname:vm,1",
            "A.B:1|#Level:Host|#hostname:",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_not(line in "[A-Za-z.:|#,0-9\\n ]{0,60}") {
            let _ = parse(&line);
        }
    }
}
