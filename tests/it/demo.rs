//! What the demo prints is true.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

#[test]
fn every_line_to_paste_gets_the_answer_that_it_names() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: there is no curl");
        return;
    }
    let mut demo = Command::new(env!("CARGO_BIN_EXE_scopegate"))
        .arg("demo")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program");
    let mut printed = BufReader::new(demo.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let text: Vec<String> = printed.by_ref().take_while(|line| line != "Ctrl-C ends it.").collect();
    let lines: Vec<_> = text.iter().filter(|line| line.starts_with("curl -si ")).collect();
    assert!(lines.len() >= 12, "{} lines to paste", lines.len());
    for line in lines {
        let (_, wanted) = line.rsplit_once(" # ").expect("the answer");
        let ran = Command::new("sh").args(["-c", line]).stderr(Stdio::null()).output().expect("a shell");
        let head = String::from_utf8_lossy(&ran.stdout).into_owned();
        let head: Vec<_> = head.lines().take_while(|line| !line.is_empty()).collect();
        let status = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("none");
        let reason = head.iter().find_map(|line| line.strip_prefix("scopegate-reason: ")).unwrap_or_default();
        assert_eq!(format!("{status} {reason}").trim(), wanted, "{line}");
    }
    let folder =
        text.iter().find_map(|line| line.trim().strip_suffix("/scopegate.yaml")).expect("the folder");
    Command::new("kill").args(["-INT", &demo.id().to_string()]).status().expect("kill");
    assert!(demo.wait().expect("an end").success());
    std::fs::remove_dir_all(folder).expect("the demo's folder");
}
