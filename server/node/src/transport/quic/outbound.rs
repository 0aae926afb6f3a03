//! The lanes of a session on streams of their own: control on the client's stream, live and bulk on streams that we open
//! when there is something for them. QUIC sends what is more urgent first, and each stream takes frames only when it has
//! room, so that what waits, waits in the session's lanes.

use std::{future::poll_fn, pin::pin, task::Poll};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, SendStream, WriteError};
use talaria_protocol::session::Lane;

use super::limits::LANE_CHUNK_BYTES;
use crate::{metrics::Metrics, session_driver::SessionDriver};

/// Frames handed to a stream in one call.
const CHUNKS_MAX: usize = 16;

/// Type of a lane's stream, its first byte [QUI-5].
const fn stream_type(lane: Lane) -> u8 {
    match lane {
        Lane::Control => super::inbound::STREAM_CONTROL,
        Lane::Live => 2,
        Lane::Bulk => 3,
    }
}

/// Greater goes first.
const fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Control => 2,
        Lane::Live => 1,
        Lane::Bulk => 0,
    }
}

/// What a write came to.
#[derive(Debug)]
pub(super) enum Written {
    /// Streams took so many bytes.
    Bytes(usize),
    /// The client refuses to read a stream that the session needs.
    Stopped(Lane),
    /// The connection is gone.
    Lost(ConnectionError),
}

/// See the module.
pub(super) struct Outbound {
    lanes: [LaneStream; 3],
}

struct LaneStream {
    lane: Lane,
    stream: Option<SendStream>,
    /// Frames that were taken from the lane and not by the stream; the first perhaps in part.
    waiting: Vec<Bytes>,
    /// Nobody reads it: what is for it is thrown away.
    stopped: bool,
}

impl Outbound {
    pub(super) fn new() -> Self {
        let lane = |lane| LaneStream { lane, stream: None, waiting: Vec::new(), stopped: false };
        Self { lanes: Lane::ALL.map(lane) }
    }

    /// Our side of the client's control stream.
    pub(super) fn set_control(&mut self, stream: SendStream) {
        let [control, ..] = &mut self.lanes;
        control.open(stream);
    }

    /// Something can be said.
    pub(super) fn has_control(&self) -> bool {
        let [control, ..] = &self.lanes;
        control.stream.is_some() && !control.stopped
    }

    /// Bytes that were taken from the session and not by QUIC.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.lanes.iter().map(LaneStream::waiting_bytes).sum()
    }

    /// Nothing follows on any stream.
    pub(super) fn finish(&mut self) {
        for stream in self.lanes.iter_mut().filter_map(|lane| lane.stream.as_mut()) {
            let _closed_already = stream.finish();
        }
    }

    /// Takes frames from the session as far as the streams take them. Ends when they took something; waits while they take
    /// nothing, or there is nothing. Cancel-safe.
    pub(super) async fn write(
        &mut self,
        connection: &Connection,
        driver: &mut SessionDriver,
        metrics: &Metrics,
    ) -> Written {
        loop {
            let unopened = self.lanes.iter().position(|lane| lane.needs_stream(driver));
            let mut opening = pin!(async {
                match unopened {
                    Some(_) => connection.open_uni().await,
                    None => std::future::pending().await,
                }
            });
            let lanes = &mut self.lanes;
            let opened = poll_fn(|cx| {
                if let Some(written) = poll_lanes(lanes, cx, driver, metrics) {
                    return Poll::Ready(Err(written));
                }
                opening.as_mut().poll(cx).map(Ok)
            });
            match opened.await {
                Err(written) => return written,
                Ok(Err(error)) => return Written::Lost(error),
                Ok(Ok(stream)) => {
                    if let Some(lane) = unopened.and_then(|index| self.lanes.get_mut(index)) {
                        lane.open(stream);
                        lane.waiting.insert(0, Bytes::copy_from_slice(&[stream_type(lane.lane)]));
                    }
                }
            }
        }
    }
}

/// All lanes, the most urgent first.
fn poll_lanes(
    lanes: &mut [LaneStream],
    cx: &mut std::task::Context<'_>,
    driver: &mut SessionDriver,
    metrics: &Metrics,
) -> Option<Written> {
    let mut total = 0;
    for lane in lanes {
        match lane.poll(cx, driver, metrics) {
            Ok(bytes) => total += bytes,
            Err(WriteError::ConnectionLost(error)) => return Some(Written::Lost(error)),
            Err(_) => {
                lane.stopped = true;
                return Some(Written::Stopped(lane.lane));
            }
        }
    }
    (total > 0).then_some(Written::Bytes(total))
}

impl LaneStream {
    fn open(&mut self, stream: SendStream) {
        let _closed_already = stream.set_priority(priority(self.lane));
        self.stream = Some(stream);
    }

    fn needs_stream(&self, driver: &SessionDriver) -> bool {
        self.stream.is_none() && self.lane != Lane::Control && driver.lane_bytes(self.lane) > 0
    }

    fn waiting_bytes(&self) -> usize {
        self.waiting.iter().map(Bytes::len).sum()
    }

    fn fill(&mut self, driver: &mut SessionDriver, metrics: &Metrics) {
        let mut bytes = self.waiting_bytes();
        while bytes < LANE_CHUNK_BYTES && self.waiting.len() < CHUNKS_MAX {
            let Some(frame) = driver.poll_lane(self.lane) else { break };
            metrics.bytes_sent.increment(frame.len() as u64);
            bytes += frame.len();
            self.waiting.push(frame);
        }
    }

    /// Until the lane is empty or the stream takes no more.
    fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
        driver: &mut SessionDriver,
        metrics: &Metrics,
    ) -> Result<usize, WriteError> {
        let mut total = 0;
        if self.stopped {
            self.waiting.clear();
            while driver.poll_lane(self.lane).is_some() {}
            return Ok(0);
        }
        while self.stream.is_some() {
            self.fill(driver, metrics);
            let Some(stream) = self.stream.as_mut().filter(|_| !self.waiting.is_empty()) else { break };
            let polled = pin!(stream.write_chunks(&mut self.waiting)).poll(cx);
            let Poll::Ready(written) = polled else { break };
            let written = written?;
            self.waiting.drain(..written.chunks);
            total += written.bytes;
        }
        if self.waiting.is_empty() && self.waiting.capacity() > 0 {
            self.waiting = Vec::new();
        }
        Ok(total)
    }
}
