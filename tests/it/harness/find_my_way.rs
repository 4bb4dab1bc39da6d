//! The router of the Fastify that is installed in tests/fastify.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use http::Method;
use serde_json::{Value, json};

const FASTIFY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fastify");

/// What the routers find of each question. Asserts that it was asked of the Fastify that the documents name, and that
/// its options are those that it is said to have.
pub fn ask(routers: &Value, questions: &[(Method, String)]) -> Vec<Vec<Option<usize>>> {
    let mut node = Command::new("node")
        .arg("router.js")
        .current_dir(FASTIFY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node");
    let mut asked = format!("{routers}\n");
    for (method, target) in questions {
        writeln!(asked, "{}", json!([method.as_str(), target])).expect("a string");
    }
    // It reads everything before it writes anything.
    node.stdin.take().expect("a pipe").write_all(asked.as_bytes()).expect("node reads");
    let lines = BufReader::new(node.stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map(|line| line.expect("a line"));
    let said: Value = serde_json::from_str(&lines.next().expect("or see what node said")).expect("JSON");
    let defaults = json!({ "allowUnsafeRegex": false, "caseSensitive": true, "ignoreDuplicateSlashes": false,
                           "ignoreTrailingSlash": false, "maxParamLength": 100, "useSemicolonDelimiter": false });
    let [fastify, find_my_way] = versions();
    assert_eq!(said, json!({ "fastify": fastify, "findMyWay": find_my_way, "defaults": defaults }));
    let found: Vec<_> = lines.map(|line| serde_json::from_str(&line).expect("ids")).collect();
    assert!(node.wait().expect("an end").success());
    assert_eq!(found.len(), questions.len());
    found
}

/// Of Fastify and find-my-way, as they are installed.
pub fn versions() -> [String; 2] {
    let lock = std::fs::read_to_string(format!("{FASTIFY}/package-lock.json")).expect("the lock file");
    let lock: Value = serde_json::from_str(&lock).expect("JSON");
    ["fastify", "find-my-way"].map(|name| {
        let version = &lock["packages"][format!("node_modules/{name}")]["version"];
        version.as_str().expect("a version").to_owned()
    })
}
