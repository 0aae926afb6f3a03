//! TCP through the proxy on real sockets: no byte is lost, changed or out of place, whatever the faults.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use talaria_chaos::{Chaos, Config, Cut, CutStyle, Faults, Transport};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server that sends back what it gets, and closes when its client has.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut from = stream.unwrap();
            thread::spawn(move || std::io::copy(&mut from.try_clone().unwrap(), &mut from));
        }
    });
    address
}

fn chaos_with(faults: Faults) -> Chaos {
    Chaos::start(Config { up: faults, down: faults, seed: 3, ..Config::new(echo()) }).unwrap()
}

fn connect(chaos: &Chaos) -> TcpStream {
    let stream = TcpStream::connect(chaos.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Sends, closes, and gives what comes back until the end.
fn round(mut stream: &TcpStream, sent: Vec<u8>) -> Vec<u8> {
    let mut out = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        out.write_all(&sent).unwrap();
        out.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writer.join().unwrap();
    back
}

#[test]
fn bytes_stay_what_they_were_under_loss() {
    let faults = Faults {
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(2),
        loss_percent: 2.0,
        ..Faults::default()
    };
    let chaos = chaos_with(faults);
    let sent = bytes(600_000);
    let back = round(&connect(&chaos), sent.clone());
    assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    let stats = chaos.stats();
    assert!(stats.tcp_losses > 5, "{stats:?}");
    assert_eq!(stats.tcp_bytes, 2 * sent.len() as u64);
}

#[test]
fn a_line_without_faults_is_whole_too() {
    let chaos = chaos_with(Faults::default());
    let sent = bytes(3_000_000);
    assert!(round(&connect(&chaos), sent.clone()) == sent);
    assert_eq!(chaos.stats().tcp_losses, 0);
}

#[test]
fn a_loss_stalls_the_stream() {
    let chaos = chaos_with(Faults { loss_percent: 100.0, ..Faults::default() });
    let sent = Instant::now();
    assert_eq!(round(&connect(&chaos), vec![1]), [1]);
    // One timeout there and one back.
    assert!(sent.elapsed() >= Duration::from_millis(400), "{:?}", sent.elapsed());
    assert_eq!(chaos.stats().tcp_timeouts, 2);
}

#[test]
fn a_rate_is_kept() {
    let chaos = chaos_with(Faults { rate_bytes_per_s: 200_000, ..Faults::default() });
    let sent = Instant::now();
    assert!(round(&connect(&chaos), bytes(60_000)) == bytes(60_000));
    assert!(sent.elapsed() >= Duration::from_millis(280), "{:?}", sent.elapsed());
}

#[test]
fn a_reset_ends_connections_and_refuses_new_ones_until_it_heals() {
    let chaos = chaos_with(Faults::default());
    let mut old = connect(&chaos);
    old.write_all(b"x").unwrap();
    old.read_exact(&mut [0]).unwrap();
    chaos.cut(Cut { transport: Transport::Tcp, style: CutStyle::Reset, duration: PATIENCE });
    assert!(!matches!(old.read(&mut [0]), Ok(1..)), "it ends");
    assert!(!matches!(connect(&chaos).read(&mut [0]), Ok(1..)), "and so does a new one");
    assert_eq!(chaos.stats().tcp_resets, 2);
    chaos.heal();
    assert_eq!(round(&connect(&chaos), vec![7]), [7]);
}

#[test]
fn a_silent_cut_only_delays() {
    let chaos = chaos_with(Faults::default());
    let mut stream = connect(&chaos);
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let duration = Duration::from_millis(300);
    let cut_at = Instant::now();
    chaos.cut(Cut { transport: Transport::Both, style: CutStyle::Silent, duration });
    stream.write_all(b"b").unwrap();
    let mut back = [0];
    stream.read_exact(&mut back).unwrap();
    assert!(cut_at.elapsed() >= duration, "{:?}", cut_at.elapsed());
    assert_eq!(&back, b"b");
}
