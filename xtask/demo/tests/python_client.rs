//! The client in plain Python, which was written from the specification alone, against a real node: it chats with
//! `talaria-chat`, which is made of the SDK, both at once. And its own tests. Needs python3; nothing else of Python.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use support::Place;
use talaria_demo::node::program;

/// What alice says in Python.
const OF_ALICE: [&str; 5] = [
    "Good morrow, cousin.",
    "Ἄνδρα μοι ἔννεπε, Μοῦσα",
    "死生契闊，與子成說",
    "إذا غامَرْتَ في شَرَفٍ مَرُومِ",
    "👩‍👩‍👧 “Is the day so young?”",
];
/// What bob says in the SDK.
const OF_BOB: [&str; 4] = [
    "But new struck nine.",
    "धर्मक्षेत्रे कुरुक्षेत्रे",
    "Я вас любил: любовь ещё, быть может",
    "古池や蛙飛び込む水の音",
];
/// Seconds that the chats may take.
const CHAT_S: u64 = 8;

fn python_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spec/examples/python")
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.current_dir(python_dir()).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONIOENCODING", "utf-8");
    command.stdin(Stdio::null());
    command
}

/// A program under way, whose output goes to files; killed when it is dropped.
struct Running {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    fn start(mut command: Command, place: &Place, name: &str) -> Self {
        let (out, err) = (place.scratch(&format!("{name}.out")), place.scratch(&format!("{name}.err")));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let child = command.spawn().unwrap_or_else(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            panic!("{program} cannot be run ({error}): install it (apt-get install python3; 3.11 or newer)")
        });
        Self { name: name.to_owned(), child, out, err }
    }

    /// Waits until it ends, and returns what it printed. It must end with 0.
    fn output(mut self, seconds_max: u64) -> String {
        let status = self.wait(Instant::now() + Duration::from_secs(seconds_max));
        let [out, err] = [&self.out, &self.err].map(|path| std::fs::read_to_string(path).unwrap());
        let name = &self.name;
        let status =
            status.unwrap_or_else(|| panic!("{name} does not end in {seconds_max} s:\n{out}\n{err}"));
        assert!(status.success(), "{name} ended with {status}:\n{out}\n{err}");
        out
    }

    fn wait(&mut self, deadline: Instant) -> Option<ExitStatus> {
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn alice(place: &Place, address: &str) -> Running {
    let mut command = python();
    command.args(["chat.py", "--server", address, "--with", "bob", "--expect", &OF_BOB.len().to_string()]);
    command.arg("--ca").arg(place.ca()).args(["--token", &place.token("alice")]);
    command.args(["--timeout", &CHAT_S.to_string()]).arg("--device-file").arg(place.scratch("alice.device"));
    command.args(OF_ALICE.iter().flat_map(|text| ["--send", text]));
    Running::start(command, place, "alice")
}

fn bob(place: &Place, address: &str) -> Running {
    let mut command = Command::new(program("talaria-chat").unwrap());
    command.args(["--server", address, "--with", "alice", "--expect", &OF_ALICE.len().to_string()]);
    command.arg("--ca").arg(place.ca()).args(["--token", &place.token("bob")]);
    command.args(["--for", &CHAT_S.to_string()]).arg("--device-file").arg(place.scratch("bob.device"));
    command.stdin(Stdio::piped());
    let mut running = Running::start(command, place, "bob");
    let mut stdin = running.child.stdin.take().unwrap();
    OF_BOB.iter().for_each(|text| writeln!(stdin, "{text}").unwrap());
    running
}

#[test]
fn python_and_the_sdk_chat() {
    let place = Place::new();
    let node = place.start();
    let (alice, bob) = (alice(&place, &node.address), bob(&place, &node.address));
    let (alice, bob) = (alice.output(CHAT_S + 2), bob.output(CHAT_S + 2));
    node.stop().unwrap();

    let lines: Vec<Value> = alice.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &'static str| lines.iter().filter(move |line| line["event"] == event);
    let heard: Vec<&str> = of("message")
        .filter(|line| line["from"] == "bob")
        .map(|line| line["text"].as_str().unwrap())
        .collect();
    assert_eq!(heard, OF_BOB, "what Python shows of bob:\n{alice}");
    assert_eq!(of("sent").count(), OF_ALICE.len(), "{alice}");
    let verified: Vec<&Value> = of("verified").collect();
    assert_eq!(verified.len(), 1, "the chain of one conversation is verified:\n{alice}");
    assert!(verified[0]["entries"].as_u64().unwrap() > OF_BOB.len() as u64, "{alice}");

    let heard: Vec<&str> =
        bob.lines().filter_map(|line| line.split_once("] alice: ").map(|(_, text)| text)).collect();
    assert_eq!(heard, OF_ALICE, "what talaria-chat shows of alice:\n{bob}");
    assert_eq!(bob.lines().filter(|line| line.starts_with('✓')).count(), OF_BOB.len(), "{bob}");
}

#[test]
fn the_python_clients_own_tests_pass() {
    let place = Place::new();
    let mut command = python();
    command.args(["-m", "unittest", "test_vectors", "test_client"]);
    drop(Running::start(command, &place, "unittest").output(60));
    let report = std::fs::read_to_string(place.scratch("unittest.err")).unwrap();
    assert!(report.contains("\nOK"), "{report}");
}
