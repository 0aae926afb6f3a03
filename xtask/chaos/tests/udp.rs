//! UDP through the proxy on real sockets: each fault by the counters, and by what arrives.
#![allow(clippy::unwrap_used)]

use std::{
    net::{SocketAddr, UdpSocket},
    sync::mpsc,
    time::{Duration, Instant},
};

use talaria_chaos::{
    Chaos, Config, Cut, CutStyle, Direction, DropReason, Fate, Faults, Link, Stats, Transport,
};

const PATIENCE: Duration = Duration::from_secs(10);

struct Bench {
    chaos: Chaos,
    client: UdpSocket,
    server: UdpSocket,
    /// What the server gets; read at once, so that its socket's buffer is never full.
    received: mpsc::Receiver<(u32, SocketAddr)>,
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

impl Bench {
    fn with(up: Faults) -> Self {
        let (client, server) = (socket(), socket());
        let config = Config { up, seed: 7, ..Config::new(server.local_addr().unwrap()) };
        let chaos = Chaos::start(config).unwrap();
        client.connect(chaos.address()).unwrap();
        let (reader, (sender, received)) = (server.try_clone().unwrap(), mpsc::channel());
        std::thread::spawn(move || {
            let mut buffer = [0; 4];
            while let Ok((_, from)) = reader.recv_from(&mut buffer) {
                if sender.send((u32::from_be_bytes(buffer), from)).is_err() {
                    return;
                }
            }
        });
        Self { chaos, client, server, received }
    }

    fn wait_for(&self, what: impl Fn(&Stats) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !what(&self.chaos.stats()) {
            assert!(Instant::now() < deadline, "{:?}", self.chaos.stats());
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Sends numbers, never so many at once that a socket's buffer could be full.
    fn send_numbers(&self, count: u32) {
        for number in 0..count {
            self.client.send(&number.to_be_bytes()).unwrap();
            self.wait_for(|stats| stats.udp_up + 16 > u64::from(number));
        }
        self.wait_for(|stats| stats.udp_up == u64::from(count));
    }

    /// All that arrives at the server of what was sent.
    fn numbers(&self) -> Vec<u32> {
        self.wait_for(|stats| {
            stats.udp_forwarded + stats.dropped.iter().sum::<u64>() == stats.udp_up + stats.duplicated
        });
        (0..self.chaos.stats().udp_forwarded).map(|_| self.receive().0).collect()
    }

    fn receive(&self) -> (u32, SocketAddr) {
        self.received.recv_timeout(PATIENCE).unwrap()
    }
}

#[test]
fn losses_are_those_that_the_seed_says() {
    let faults = Faults { loss_percent: 20.0, ..Faults::default() };
    let bench = Bench::with(faults);
    bench.send_numbers(500);
    let mut link = Link::new(7, 0);
    let mut expected = (0..500).collect::<Vec<u32>>();
    expected.retain(|_| link.decide(Duration::ZERO, 4, &faults) != Fate::Lost);
    assert_eq!(bench.numbers(), expected);
    let stats = bench.chaos.stats();
    assert_eq!(stats.dropped(DropReason::Loss), 500 - expected.len() as u64);
    assert!((50..150).contains(&stats.dropped(DropReason::Loss)), "{stats:?}");
}

#[test]
fn duplicates_and_reordered_ones_arrive_and_are_counted() {
    let faults = Faults { duplicate_percent: 10.0, reorder_percent: 10.0, ..Faults::default() };
    let bench = Bench::with(faults);
    bench.send_numbers(500);
    let numbers = bench.numbers();
    let stats = bench.chaos.stats();
    let late = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(stats.duplicated > 20 && stats.reordered > 20, "{stats:?}");
    assert!(late > 0, "something was passed");
    assert_eq!(numbers.len() as u64, 500 + stats.duplicated);
    let mut once = numbers;
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), 500, "nothing is lost");
}

#[test]
fn delays_are_at_least_what_was_asked_and_mostly_little_more() {
    let delay = Duration::from_millis(20);
    let bench = Bench::with(Faults { delay, ..Faults::default() });
    let mut times: Vec<_> = (0..50)
        .map(|_| {
            let sent = Instant::now();
            bench.client.send(&[0; 4]).unwrap();
            bench.receive();
            sent.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[0] >= delay, "{times:?}");
    assert!(times[25] < 2 * delay, "{times:?}");
}

#[test]
fn a_full_line_drops_what_its_queue_cannot_hold() {
    let faults = Faults { rate_bytes_per_s: 4, queue_bytes: 8, ..Faults::default() };
    let bench = Bench::with(faults);
    bench.send_numbers(10);
    bench.wait_for(|stats| stats.dropped(DropReason::QueueFull) == 8);
    assert_eq!(bench.receive().0, 0, "the first passes");
}

#[test]
fn a_cut_swallows_all_until_it_heals() {
    let bench = Bench::with(Faults::default());
    bench.client.send(&1_u32.to_be_bytes()).unwrap();
    assert_eq!(bench.receive().0, 1);
    bench.chaos.cut(Cut { transport: Transport::Udp, style: CutStyle::Silent, duration: PATIENCE });
    bench.client.send(&2_u32.to_be_bytes()).unwrap();
    bench.wait_for(|stats| stats.dropped(DropReason::Cut) == 1);
    bench.chaos.heal();
    bench.client.send(&3_u32.to_be_bytes()).unwrap();
    assert_eq!(bench.receive().0, 3);
}

#[test]
fn a_rebind_shows_the_server_another_port_and_the_old_one_is_deaf() {
    let bench = Bench::with(Faults::default());
    let mut buffer = [0; 4];
    bench.client.send(&1_u32.to_be_bytes()).unwrap();
    let (_, first) = bench.receive();
    bench.server.send_to(b"back", first).unwrap();
    bench.client.recv(&mut buffer).unwrap();
    bench.chaos.rebind_all();
    bench.wait_for(|stats| stats.rebinds == 1);
    bench.client.send(&2_u32.to_be_bytes()).unwrap();
    let (_, second) = bench.receive();
    assert_ne!(first.port(), second.port());
    bench.server.send_to(b"lost", first).unwrap();
    bench.server.send_to(b"here", second).unwrap();
    bench.client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer, b"here");
    assert_eq!(bench.chaos.stats().udp_down, 2);
}

#[test]
fn faults_can_change_while_it_runs() {
    let bench = Bench::with(Faults { loss_percent: 100.0, ..Faults::default() });
    bench.send_numbers(3);
    bench.wait_for(|stats| stats.dropped(DropReason::Loss) == 3);
    bench.chaos.set(Direction::Up, Faults::default());
    bench.client.send(&9_u32.to_be_bytes()).unwrap();
    assert_eq!(bench.receive().0, 9);
}

#[test]
fn it_ends_by_itself() {
    let server = socket();
    let life_max = Duration::from_millis(50);
    let chaos = Chaos::start(Config { life_max, ..Config::new(server.local_addr().unwrap()) }).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !chaos.is_over() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}
