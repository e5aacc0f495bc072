//! How the end of a compiling process is understood.

use super::*;
use crate::sandbox::{Demands, Users};

fn setup(program: &str) -> Setup {
    Setup {
        program: program.into(),
        limits: CompileLimits::default(),
        demands: Demands::default(),
        users: Users::default(),
    }
}

fn ended_by(signal: Signal) -> ExitStatus {
    ExitStatus::from_raw(signal.as_raw())
}

fn exited(status: i32) -> ExitStatus {
    ExitStatus::from_raw(status << 8)
}

#[test]
fn each_way_to_end_has_its_meaning() {
    let crash = |how: &str| Refusal::Crash(how.to_owned(), String::new());
    for (status, report, expected) in [
        (exited(0), "", Ok(())),
        (
            exited(1),
            "is odd",
            Err(Refusal::Component("is odd".into())),
        ),
        (ended_by(Signal::XCPU), "", Err(Refusal::Cpu)),
        (ended_by(Signal::XFSZ), "", Err(Refusal::Output)),
        (ended_by(Signal::KILL), "", Err(Refusal::Memory)),
        (
            ended_by(Signal::ABORT),
            "memory allocation of 26306674704 bytes failed",
            Err(Refusal::Memory),
        ),
        (
            exited(1),
            "does not compile: mmap failed: Cannot allocate memory (os error 12)",
            Err(Refusal::Memory),
        ),
        (
            ended_by(Signal::ABORT),
            "",
            Err(crash("was ended by signal 6")),
        ),
        (exited(101), "", Err(crash("exited with status 101"))),
    ] {
        assert_eq!(judge(status, report.to_owned()), expected, "{status}");
    }
}

#[test]
fn what_is_written_to_stderr_is_one_line_of_limited_length() {
    use std::io::Write as _;
    let mut report = report_file().unwrap();
    report.write_all(b"one\n\x1b[31mtwo\n").unwrap();
    assert_eq!(text_of(&report).unwrap(), "one  [31mtwo");
    assert!(report.write_all(&[b'x'; 2 * REPORT]).is_err());
    assert_eq!(text_of(&report).unwrap().len(), REPORT);
}

#[test]
fn a_program_that_is_not_there_is_named_in_the_detail() {
    let component = Sealed::of("test", b"wasm").unwrap();
    let refusal = compile(&setup("/no/such/program"), &component).unwrap_err();
    let Refusal::Start(detail) = &refusal else {
        panic!("{refusal:?}");
    };
    assert!(detail.contains("/no/such/program"), "{detail}");
}

#[test]
fn a_program_that_gives_no_code_is_a_failure() {
    let component = Sealed::of("test", b"wasm").unwrap();
    let refusal = compile(&setup("/bin/true"), &component).unwrap_err();
    assert!(matches!(refusal, Refusal::Crash(..)), "{refusal:?}");
}
