//! The net on sockets that give what the test says.

#![allow(clippy::unwrap_used)]

use std::{collections::VecDeque, sync::atomic::AtomicUsize, task::Wake};

use super::*;
use crate::metrics::Metrics;

/// Gives these buffers, each with the length of its datagrams.
#[derive(Debug, Default)]
struct Script(Mutex<VecDeque<(Vec<u8>, usize)>>);

impl AsyncUdpSocket for Script {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        unreachable!("nothing is sent")
    }
    fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
        unreachable!("nothing is sent")
    }
    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Some((bytes, stride)) = self.0.lock().unwrap().pop_front() else { return Poll::Pending };
        buffers[0][..bytes.len()].copy_from_slice(&bytes);
        metas[0] = RecvMeta { len: bytes.len(), stride, ..RecvMeta::default() };
        Poll::Ready(Ok(1))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Pair {
    steering: Steering,
    net: Arc<Net>,
    scripts: [Arc<Script>; 2],
    sockets: [NetSocket; 2],
    metrics: Metrics,
}

fn pair() -> Pair {
    let metrics = Metrics::new().unwrap();
    let counters = NetCounters {
        misrouted: metrics.quic_misrouted.clone(),
        dropped: metrics.quic_misrouted_dropped.clone(),
    };
    let steering = Steering::new(77, 2);
    let net = Arc::new(Net::new(steering, counters));
    let scripts = [Arc::new(Script::default()), Arc::new(Script::default())];
    let sockets = [0, 1].map(|shard| NetSocket::new(scripts[usize::from(shard)].clone(), net.clone(), shard));
    Pair { steering, net, scripts, sockets, metrics }
}

impl Pair {
    /// A datagram of this length for a shard, its number at the end.
    fn datagram(&self, shard: u16, length: usize, number: u8) -> Vec<u8> {
        let id = (0..=u8::MAX).find(|byte| self.steering.shard_of_id(&[*byte; 4]) == shard).unwrap();
        let mut bytes = vec![id; length];
        bytes[0] = 0x40;
        bytes[length - 1] = number;
        bytes
    }

    /// What an endpoint would see: the last byte of each datagram.
    fn poll(&self, shard: usize, waker: &Arc<Woken>) -> Option<Vec<u8>> {
        let waker = waker.clone().into();
        let mut memory = [[0; 256]; 2];
        let mut buffers = memory.each_mut().map(|buffer| IoSliceMut::new(buffer));
        let mut metas = [RecvMeta::default(); 2];
        let polled =
            self.sockets[shard].poll_recv(&mut Context::from_waker(&waker), &mut buffers, &mut metas);
        let Poll::Ready(count) = polled else { return None };
        let mut seen = Vec::new();
        for (buffer, meta) in buffers.iter().zip(metas).take(count.unwrap()) {
            seen.extend(buffer[..meta.len].chunks(meta.stride).map(|datagram| *datagram.last().unwrap()));
        }
        Some(seen)
    }

    fn count(&self, name: &str) -> String {
        let text = self.metrics.render();
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_default().rsplit(' ').next().unwrap_or_default().to_owned()
    }
}

#[test]
fn a_joined_buffer_is_taken_apart_and_the_other_shard_is_woken() {
    let pair = pair();
    let (here, there) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    assert_eq!(pair.poll(1, &there), None, "it waits");
    let parts = [(0, 1), (1, 2), (1, 3), (0, 4), (1, 5)];
    let mut joined: Vec<u8> =
        parts.iter().flat_map(|(shard, number)| pair.datagram(*shard, 40, *number)).collect();
    joined.extend(pair.datagram(0, 25, 6));
    pair.scripts[0].0.lock().unwrap().push_back((joined, 40));
    assert_eq!(pair.poll(0, &here), Some(vec![1, 4, 6]));
    assert_eq!(there.0.load(Ordering::Relaxed), 1);
    assert_eq!(pair.poll(1, &there), Some(vec![2, 3]));
    assert_eq!(pair.poll(1, &there), Some(vec![5]));
    assert_eq!(pair.poll(1, &there), None);
    assert_eq!(pair.count("talaria_quic_misrouted_total"), "3");
    assert_eq!(pair.count("talaria_quic_misrouted_dropped_total"), "0");
}

#[test]
fn a_full_queue_drops_and_counts() {
    let pair = pair();
    let waker = Arc::new(Woken::default());
    for _ in 0..HANDED_OVER_MAX + 5 {
        let datagram = pair.datagram(1, 30, 9);
        pair.scripts[0].0.lock().unwrap().push_back((datagram, 30));
        assert_eq!(pair.poll(0, &waker), Some(vec![]));
    }
    assert_eq!(pair.count("talaria_quic_misrouted_dropped_total"), "5");
}

#[test]
fn neither_the_socket_nor_the_others_starve() {
    let pair = pair();
    let waker = Arc::new(Woken::default());
    for _ in 0..20 {
        pair.scripts[0].0.lock().unwrap().push_back((pair.datagram(1, 30, 1), 30));
        pair.poll(0, &waker);
        pair.scripts[1].0.lock().unwrap().push_back((pair.datagram(1, 30, 2), 30));
    }
    let seen: Vec<u8> = (0..8).flat_map(|_| pair.poll(1, &waker).unwrap()).collect();
    let of_others = seen.iter().filter(|number| **number == 1).count();
    assert!(of_others > 0 && of_others < seen.len(), "{seen:?}");
}

#[test]
fn off_it_leaves_everything_where_it_came() {
    let pair = pair();
    pair.net.set_enabled(false);
    pair.scripts[0].0.lock().unwrap().push_back((pair.datagram(1, 30, 3), 30));
    assert_eq!(pair.poll(0, &Arc::new(Woken::default())), Some(vec![3]));
}
