//! TCP through the proxy: a connection to the server for each of a client, and a pump for each direction. A pump takes no
//! more than the sender's window allows, keeps it for the delay, and lets a loss stall what follows.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::timeout,
};

use crate::{
    congestion::{Congestion, SEGMENT_BYTES, SEGMENTS_TO_NOTICE, TIMEOUT_MIN},
    faults::{CutStyle, Direction, Transport},
    limits::{CHUNK_BYTES, CONNECT_MAX, CONNECTIONS_MAX, RECEIVE_BUFFER_BYTES},
    link::Link,
    proxy::Shared,
    stats::DropReason,
};

/// Streams of decisions of TCP, apart from those of UDP.
const TCP_STREAMS: u64 = 1 << 32;

/// See the module.
pub(crate) struct TcpProxy {
    shared: Arc<Shared>,
    listener: TcpListener,
}

impl TcpProxy {
    pub(crate) fn new(shared: Arc<Shared>, listener: TcpListener) -> Self {
        Self { shared, listener }
    }

    /// Until it is dropped, its connections with it.
    pub(crate) async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = self.listener.accept().await;
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((client, _)) if connections.len() < CONNECTIONS_MAX => {
                    let number = self.shared.counters.tcp_connections.get();
                    self.shared.counters.tcp_connections.add(1);
                    connections.spawn_local(serve(self.shared.clone(), client, number));
                }
                Ok((client, _)) => {
                    self.shared.counters.drop_one(DropReason::TableFull);
                    reset(&client);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

fn reset(stream: &TcpStream) {
    // Closed with a reset when it is dropped.
    let _refused = stream.set_zero_linger();
}

async fn serve(shared: Arc<Shared>, client: TcpStream, number: u64) {
    let mut resets = shared.resets.subscribe();
    if let Some((CutStyle::Reset, _)) = shared.cut_of(Transport::Tcp) {
        shared.counters.tcp_resets.add(1);
        return reset(&client);
    }
    let opened = async {
        wait_for_cut(&shared).await;
        // The client's system believes that it is connected; its first bytes leave a round trip later.
        tokio::time::sleep(shared.round_trip()).await;
        timeout(CONNECT_MAX, connect(shared.upstream)).await
    };
    let server = tokio::select! {
        Ok(Ok(server)) = opened => server,
        _ = resets.changed() => {
            shared.counters.tcp_resets.add(1);
            return reset(&client);
        }
        else => {
            shared.counters.drop_one(DropReason::Socket);
            return reset(&client);
        }
    };
    let _delayed = client.set_nodelay(true);
    let pumps = async {
        let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
        let stream = TCP_STREAMS + 2 * number;
        let up = Pump::new(&shared, Direction::Up, stream).run(client_in, server_out);
        let down = Pump::new(&shared, Direction::Down, stream + 1).run(server_in, client_out);
        let mut reset_now = resets.clone();
        tokio::select! {
            // An error of one direction ends both: dropped halves reset or close.
            ended = async { tokio::try_join!(up, down) } => ended.map(|_| false),
            _ = reset_now.changed() => Ok(true),
        }
    };
    if let Ok(true) = pumps.await {
        shared.counters.tcp_resets.add(1);
    }
}

async fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn wait_for_cut(shared: &Shared) {
    while let Some((_, until)) = shared.cut_of(Transport::Tcp) {
        shared.sleep_until(until).await;
    }
}

/// One direction of a connection.
struct Pump<'a> {
    shared: &'a Shared,
    direction: Direction,
    link: Link,
    congestion: Congestion,
    /// On its way, in order.
    queue: VecDeque<Chunk>,
    /// Arrived, its acknowledgement on its way: when it comes, and of how many bytes.
    unacknowledged: VecDeque<(Duration, usize)>,
    /// Bytes of both.
    under_way: usize,
    /// The window was full since the last acknowledgement: it may grow.
    was_full: bool,
    at_end: bool,
}

struct Chunk {
    at: Duration,
    bytes: Vec<u8>,
}

/// What happened in a pump.
enum Event {
    Read(io::Result<usize>),
    Arrived,
    Acknowledged,
}

impl<'a> Pump<'a> {
    fn new(shared: &'a Shared, direction: Direction, stream: u64) -> Self {
        Self {
            shared,
            direction,
            link: Link::new(shared.seed, stream),
            congestion: Congestion::new(),
            queue: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            under_way: 0,
            was_full: false,
            at_end: false,
        }
    }

    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let room = self.congestion.window().saturating_sub(self.under_way).min(CHUNK_BYTES);
            self.was_full |= room == 0;
            let arrives = self.queue.front().map(|chunk| chunk.at);
            let acknowledged = self.unacknowledged.front().map(|(at, _)| *at);
            let event = tokio::select! {
                read = from.read(&mut buffer[..room]), if room > 0 && !self.at_end => Event::Read(read),
                () = self.shared.sleep_until(arrives.unwrap_or_default()), if arrives.is_some() => Event::Arrived,
                () = self.shared.sleep_until(acknowledged.unwrap_or_default()), if acknowledged.is_some() => {
                    Event::Acknowledged
                }
            };
            match event {
                Event::Read(read) => match read? {
                    0 => self.at_end = true,
                    count => self.take(&buffer[..count]),
                },
                Event::Arrived => self.arrive(&mut to).await?,
                Event::Acknowledged => self.acknowledge(),
            }
            if self.at_end && self.queue.is_empty() {
                return to.shutdown().await;
            }
        }
    }

    /// Bytes of the sender: decides when they arrive.
    fn take(&mut self, bytes: &[u8]) {
        let now = self.shared.now();
        let faults = self.shared.faults(self.direction);
        let segments = bytes.len().div_ceil(SEGMENT_BYTES);
        let busy = !self.queue.is_empty();
        self.under_way += bytes.len();
        let (lost, at) = self.link.decide_segments(now, bytes.len(), segments, &faults);
        let Some(lost) = lost else { return self.push(at, bytes) };
        let round_trip = self.shared.round_trip();
        let is_timeout = !busy && lost + SEGMENTS_TO_NOTICE >= segments;
        self.shared.counters.tcp_losses.add(1);
        self.shared.counters.tcp_timeouts.add(u64::from(is_timeout));
        self.congestion.on_loss(now, round_trip, is_timeout);
        let (before, behind) = bytes.split_at(lost * SEGMENT_BYTES);
        self.push(at, before);
        let stall = if is_timeout { round_trip + TIMEOUT_MIN } else { round_trip };
        let at = self.link.stall_until(at + stall);
        self.push(at, behind);
    }

    fn push(&mut self, at: Duration, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.queue.push_back(Chunk { at, bytes: bytes.to_vec() });
        }
    }

    async fn arrive(&mut self, to: &mut OwnedWriteHalf) -> io::Result<()> {
        wait_for_cut(self.shared).await;
        let Some(chunk) = self.queue.pop_front() else { return Ok(()) };
        to.write_all(&chunk.bytes).await?;
        self.shared.counters.tcp_bytes.add(chunk.bytes.len() as u64);
        let back = match self.direction {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        };
        let at = self.shared.now() + self.shared.faults(back).delay;
        self.unacknowledged.push_back((at, chunk.bytes.len()));
        Ok(())
    }

    fn acknowledge(&mut self) {
        let Some((_, bytes)) = self.unacknowledged.pop_front() else { return };
        self.under_way -= bytes;
        if self.was_full {
            self.congestion.on_acknowledged(bytes);
        }
        if self.under_way < self.congestion.window() / 2 {
            self.was_full = false;
        }
    }
}
