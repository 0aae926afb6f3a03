//! The safety net: a datagram that came to another shard's socket is handed to its own and counted. It has work where the
//! kernel has no program, while a node starts, and where a network card joins datagrams of several connections that share
//! one client address. Each shard has a bounded queue of such datagrams; full: the datagram is dropped and counted, and
//! QUIC sends it again.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crossbeam::queue::ArrayQueue;
use metrics::Counter;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};

use super::Steering;

/// Datagrams that wait for a shard because others got them, 1.5 KB each. Full: dropped, and counted.
pub const HANDED_OVER_MAX: usize = 1024;

/// What the net counts.
#[derive(Clone)]
pub struct NetCounters {
    /// Datagrams that came to the wrong shard.
    pub misrouted: Counter,
    /// Of them, those that found their shard's queue full.
    pub dropped: Counter,
}

/// What the shards of a node share. See the module.
pub struct Net {
    steering: Steering,
    inlets: Vec<Inlet>,
    counters: NetCounters,
    enabled: AtomicBool,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("steering", &self.steering).finish_non_exhaustive()
    }
}

struct Inlet {
    queue: ArrayQueue<Datagram>,
    /// Of the endpoint that reads it.
    waker: Mutex<Option<Waker>>,
}

struct Datagram {
    bytes: Box<[u8]>,
    from: SocketAddr,
    ecn: Option<EcnCodepoint>,
    to: Option<IpAddr>,
}

impl Net {
    /// For the shards of this rule.
    pub fn new(steering: Steering, counters: NetCounters) -> Self {
        let inlet = |_| Inlet { queue: ArrayQueue::new(HANDED_OVER_MAX), waker: Mutex::default() };
        let inlets = (0..steering.shards()).map(inlet).collect();
        Self { steering, inlets, counters, enabled: AtomicBool::new(true) }
    }

    /// Off, misrouted datagrams stay where they came. Only for tests, which show what the net is good for.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    fn hand_over(&self, shard: u16, datagram: Datagram) {
        self.counters.misrouted.increment(1);
        let Some(inlet) = self.inlets.get(usize::from(shard)) else { return };
        if inlet.queue.push(datagram).is_err() {
            self.counters.dropped.increment(1);
        }
        let waker = inlet.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Inlet {
    fn register(&self, waker: &Waker) {
        let mut slot = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }
}

/// A shard's socket with the net under it.
#[derive(Debug)]
pub struct NetSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    net: Arc<Net>,
    shard: u16,
    /// Whose turn it is to be looked at first: neither starves the other.
    inlet_first: AtomicBool,
}

impl NetSocket {
    /// Of a shard.
    pub fn new(socket: Arc<dyn AsyncUdpSocket>, net: Arc<Net>, shard: u16) -> Self {
        Self { socket, net, shard, inlet_first: AtomicBool::new(false) }
    }

    fn inlet(&self) -> Option<&Inlet> {
        self.net.inlets.get(usize::from(self.shard))
    }

    /// What others have handed over.
    fn take(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let Some(inlet) = self.inlet() else { return 0 };
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some(Datagram { bytes, from, ecn, to }) = inlet.queue.pop() else { break };
            // All endpoints take datagrams of the same length.
            let length = bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&bytes[..length]);
            *meta = RecvMeta { addr: from, len: length, stride: length, ecn, dst_ip: to };
            count += 1;
        }
        count
    }

    /// Hands over what is not ours, and closes the holes.
    fn sort_out(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) {
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let RecvMeta { addr: from, len, stride, ecn, dst_ip: to } = *meta;
            let (mut at, mut kept) = (0, 0);
            while at < len {
                let end = len.min(at + stride.max(1));
                let bytes = &buffer[at..end];
                let shard = self.net.steering.shard_of(bytes);
                if shard == self.shard {
                    buffer.copy_within(at..end, kept);
                    kept += end - at;
                } else {
                    self.net.hand_over(shard, Datagram { bytes: bytes.into(), from, ecn, to });
                }
                at = end;
            }
            // Of no length: quinn passes over it.
            meta.len = kept;
        }
    }

    fn poll_socket(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.socket.poll_recv(cx, buffers, metas);
        if let Poll::Ready(Ok(count)) = polled
            && self.net.steering.shards() > 1
            && self.net.enabled.load(Ordering::Relaxed)
        {
            self.sort_out(&mut buffers[..count], &mut metas[..count]);
        }
        polled
    }
}

impl AsyncUdpSocket for NetSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.inlet_first.fetch_xor(true, Ordering::Relaxed) {
            let count = self.take(buffers, metas);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
        if let Poll::Ready(received) = self.poll_socket(cx, buffers, metas) {
            return Poll::Ready(received);
        }
        if let Some(inlet) = self.inlet() {
            // First the waker, then the look: what is handed over in between wakes us.
            inlet.register(cx.waker());
        }
        match self.take(buffers, metas) {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests;
