//! `scopegate keys`, as a person runs it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Its end, with this on standard input.
pub fn keys(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_scopegate"))
        .arg("keys")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    // It may have ended before it would have read.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("an end")
}

/// What it says on standard output, where it ends well.
pub fn good(arguments: &[&str], input: &str) -> String {
    let output = keys(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    text(&output.stdout).trim().to_owned()
}

/// What it says on standard error, where it does not.
pub fn bad(arguments: &[&str], input: &str) -> String {
    let output = keys(arguments, input);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    text(&output.stderr)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
