//! Clients that take or claim too much: acknowledgements and credit beyond what was sent, readers that do not read,
//! and thousands who never say Hello.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use talaria_protocol::{
    error_code::ErrorCode,
    ids::ConversationId,
    limits::{CREDIT_BYTES_MAX, CREDIT_ENTRIES_MAX},
    message::{Credit, Cursor, client::ClientFrame, server::ServerFrame},
};

use talaria_server::limits::TRANSMIT_BYTES_HIGH;

use crate::support::{
    client::{Client, text_to},
    honest::Honest,
    http,
    node::TestNode,
    process::Process,
};

#[test]
fn ack_beyond_what_was_sent() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    let mut client = node.session("mallory");
    let conversation = client.direct_with("bob");
    client.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)]));
    client.wait_for(|frame| matches!(frame, ServerFrame::CaughtUp { .. }).then_some(()));
    client.send(&ClientFrame::Ack { conversation, up_to: 1 });
    client.send(&ClientFrame::Ack { conversation, up_to: 2 });
    assert_eq!(client.end(), ErrorCode::ProtocolViolation);
    honest.go_on();
}

#[test]
fn credit_beyond_its_limit() {
    let node = TestNode::start();
    let mut honest = Honest::on(&node);
    for credit in [
        Credit { entries: CREDIT_ENTRIES_MAX + 1, bytes: 1 },
        Credit { entries: 1, bytes: CREDIT_BYTES_MAX + 1 },
        Credit { entries: u64::MAX, bytes: u64::MAX },
    ] {
        let mut late = node.session("mallory");
        late.send(&ClientFrame::Credit(credit));
        assert_eq!(late.end(), ErrorCode::ProtocolViolation, "{credit:?}");
        let mut early = node.connect();
        let mut hello = Client::hello_frame(&node.token("mallory"), 1);
        hello.credit = credit;
        early.send(&ClientFrame::Hello(Box::new(hello)));
        assert_eq!(early.end(), ErrorCode::ProtocolViolation, "{credit:?} in Hello");
    }
    honest.go_on();
}

/// A TLS connection with a small receive buffer: what it does not read stays with the node.
fn narrow(node: &TestNode) -> Client {
    let tcp = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    tcp.set_recv_buffer_size(8 * 1024).unwrap();
    tcp.connect(&node.tcp_addr.into()).unwrap();
    Client::over(TcpStream::from(tcp), &node.tls)
}

/// A client that grants all it may and has 8 MB coming, of which 4 MiB may be sent.
fn greedy(node: &TestNode) -> (Client, ConversationId) {
    let mut sender = node.session("sender");
    let conversation = sender.direct_with("mallory");
    let mut mallory = narrow(node);
    let mut hello = Client::hello_frame(&node.token("mallory"), 1);
    hello.credit = Credit { entries: CREDIT_ENTRIES_MAX, bytes: CREDIT_BYTES_MAX };
    mallory.send(&ClientFrame::Hello(Box::new(hello)));
    assert!(matches!(mallory.frame(), ServerFrame::Welcome(_)));
    mallory.send(&ClientFrame::Resume(vec![(conversation, Cursor::START)]));
    let text = "x".repeat(64_000);
    for _ in 0..130 {
        sender.request(text_to(conversation, &text));
    }
    (mallory, conversation)
}

const SLOW: &str = "talaria_connections_dropped_total{reason=\"slow_consumer\"}";

fn wait_until_dropped(node: &TestNode, meanwhile: &mut impl FnMut()) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.metric(SLOW) == 0.0 {
        assert!(Instant::now() < deadline, "not dropped");
        let waiting = node.metric("talaria_transmit_queue_bytes");
        assert!(waiting < (CREDIT_BYTES_MAX + 1024 * 1024) as f64, "{waiting} bytes wait");
        meanwhile();
        std::thread::sleep(Duration::from_millis(50));
    }
    node.assert_metric("talaria_sessions_ended_total{code=\"SLOW_CONSUMER\"}", 1.0);
}

#[test]
fn a_client_that_never_reads() {
    let node = TestNode::start_with(|config| config.keepalive_seconds = 2);
    let mut honest = Honest::on(&node);
    let (mallory, _) = greedy(&node);
    wait_until_dropped(&node, &mut || honest.go_on());
    node.assert_metric("talaria_transmit_queue_bytes", 0.0);
    honest.go_on();
    drop(mallory);
}

#[test]
fn a_client_that_reads_a_byte_a_second() {
    let node = TestNode::start_with(|config| config.keepalive_seconds = 2);
    let mut honest = Honest::on(&node);
    let (mut mallory, _) = greedy(&node);
    let mut read_at = Instant::now();
    wait_until_dropped(&node, &mut || {
        honest.go_on();
        if read_at.elapsed() >= Duration::from_secs(1) {
            read_at = Instant::now();
            mallory.stream.sock.read_exact(&mut [0]).unwrap();
        }
    });
    honest.go_on();
}

/// The node stops reading from a client that does not read, so that its answers cannot pile up.
#[test]
fn a_client_that_asks_and_never_reads() {
    let node = TestNode::start_with(|config| config.keepalive_seconds = 2);
    let mut honest = Honest::on(&node);
    let mut mallory = narrow(&node);
    mallory.hello(&node.token("mallory"), 1);
    mallory.stream.sock.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let pings: Vec<u8> = (0..10_000).flat_map(|nonce| ClientFrame::Ping(nonce).encode()).collect();
    let mut sent = 0;
    while mallory.stream.write_all(&pings).is_ok() {
        sent += pings.len();
        assert!(sent < 64 * 1024 * 1024, "the node reads for ever");
        let waiting = node.metric("talaria_transmit_queue_bytes");
        assert!(waiting < 2.0 * TRANSMIT_BYTES_HIGH as f64, "{waiting} bytes wait");
    }
    wait_until_dropped(&node, &mut || honest.go_on());
}

#[test]
fn a_client_that_reads_slowly_but_reads_is_served() {
    let node = TestNode::start_with(|config| config.keepalive_seconds = 2);
    let (mut mallory, _) = greedy(&node);
    let started = Instant::now();
    let mut received = 0;
    // About 200 KB/s for longer than a silent client would be left alone.
    while started.elapsed() < Duration::from_secs(6) {
        let ServerFrame::Deliver { .. } = mallory.frame() else { continue };
        received += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(received > 20, "{received}");
    node.assert_metric(SLOW, 0.0);
}

/// Lets this process have as many files as the system lets; gives how many.
fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.unwrap_or(1 << 20)
}

#[test]
fn five_thousand_connections_without_hello() {
    let (count, files) = (5_000, raise_file_limit());
    assert!(
        files >= 6_200,
        "this test needs 6,200 open files, the system lets it have {files}: raise `ulimit -Hn`"
    );
    let dir = tempfile::tempdir().unwrap();
    let node = Process::start(dir.path(), &[]);
    let mut honest = Honest::of(node.session("alice"), node.session("bob"));
    honest.go_on();
    let memory_before = node.memory_bytes();
    let silent: Vec<TcpStream> = (0..count)
        .map(|number| {
            if number % 500 == 0 {
                honest.go_on();
            }
            TcpStream::connect(node.tcp_addr).unwrap()
        })
        .collect();
    let mut late = Honest::of(node.session("carol"), node.session("bob"));
    late.go_on();
    let metrics = http::get(node.admin_addr, "/metrics").1;
    let waiting = http::metric_in(&metrics, "talaria_connections_without_hello");
    assert!(waiting <= 4096.0, "{waiting} connections without Hello");
    let evicted =
        http::metric_in(&metrics, "talaria_connections_dropped_total{reason=\"without_hello_max\"}");
    assert!(evicted >= f64::from(count - 4_096), "{evicted} evicted");
    let grown = node.memory_bytes().saturating_sub(memory_before);
    assert!(grown < 128 * 1024 * 1024, "{grown} bytes for {count} connections");
    wait_until_all_are_gone(&node);
    late.go_on();
    drop(silent);
}

/// The log must have its files, whoever connects.
#[test]
fn more_connections_than_the_system_has_files_for() {
    raise_file_limit();
    let dir = tempfile::tempdir().unwrap();
    let node = Process::start_with_files(dir.path(), 800);
    assert!(node.stderr().contains("only 800 files, so it takes 1"), "{}", node.stderr());
    let mut honest = Honest::of(node.session("alice"), node.session("bob"));
    let silent: Vec<TcpStream> = (0..1_000).map(|_| TcpStream::connect(node.tcp_addr).unwrap()).collect();
    let mut second_device = node.connect();
    second_device.hello(&node.token("bob"), 2);
    let mut late = Honest::of(node.session("carol"), second_device);
    for _ in 0..20 {
        honest.go_on();
        late.go_on();
    }
    assert_eq!(http::get(node.admin_addr, "/readyz").0, 200);
    let metrics = http::get(node.admin_addr, "/metrics").1;
    let evicted = http::metric_in(&metrics, "talaria_connections_dropped_total{reason=\"connections_max\"}");
    assert!(evicted >= 840.0, "{evicted} evicted");
    drop(silent);
}

/// Hello has 10 s.
fn wait_until_all_are_gone(node: &Process) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let metrics = http::get(node.admin_addr, "/metrics").1;
        if http::metric_in(&metrics, "talaria_connections_without_hello") == 0.0 {
            return;
        }
        assert!(Instant::now() < deadline, "they stay");
        std::thread::sleep(Duration::from_millis(100));
    }
}
