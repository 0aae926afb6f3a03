//! What a client opens and sends: its control stream, told by its first byte, and streams of types that we do not know,
//! which are refused. All state is here and none on a future's stack, so waiting may be dropped at any time.

use std::{future::poll_fn, task::Poll};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt};

use super::limits::READ_BYTES_MAX;

/// Type of the control stream [QUI-5].
pub(super) const STREAM_CONTROL: u8 = 1;
/// Code of STOP_SENDING and RESET_STREAM for streams of an unknown type [QUI-8].
pub(super) const UNKNOWN_STREAM: VarInt = VarInt::from_u32(0x10);

/// What came.
#[derive(Debug)]
pub(super) enum Arrival {
    /// The client has opened its control stream: our side of it.
    Control(SendStream),
    /// Bytes of the control stream.
    Bytes(Bytes),
    /// The client has ended its side of the control stream.
    Finished,
    /// The client has opened a second one.
    SecondControl,
    /// The connection is gone.
    Lost(ConnectionError),
}

/// See the module.
#[derive(Default)]
pub(super) struct Inbound {
    control: Option<RecvStream>,
    has_control: bool,
    /// Streams whose first byte has not come yet: at most [`super::limits::STREAMS_BIDI_MAX`].
    unnamed: Vec<(SendStream, RecvStream)>,
}

impl Inbound {
    /// The next arrival; bytes only if they are wanted. Cancel-safe.
    pub(super) async fn next(&mut self, connection: &Connection, wants_bytes: bool) -> Arrival {
        loop {
            tokio::select! {
                // What is there already comes before news.
                biased;
                (named, send, receive) = next_named(&mut self.unnamed) => {
                    if let Some(arrival) = self.on_named(named, send, receive) {
                        return arrival;
                    }
                }
                chunk = read(&mut self.control), if wants_bytes => return self.on_read(chunk),
                stream = connection.accept_bi() => match stream {
                    Ok(stream) => self.unnamed.push(stream),
                    Err(error) => return Arrival::Lost(error),
                },
                stream = connection.accept_uni() => match stream {
                    Ok(mut stream) => {
                        // There is no type of ours, so none need be waited for.
                        let _closed_already = stream.stop(UNKNOWN_STREAM);
                    }
                    Err(error) => return Arrival::Lost(error),
                },
            }
        }
    }

    fn on_named(
        &mut self,
        named: Option<u8>,
        mut send: SendStream,
        mut receive: RecvStream,
    ) -> Option<Arrival> {
        if named == Some(STREAM_CONTROL) {
            if std::mem::replace(&mut self.has_control, true) {
                return Some(Arrival::SecondControl);
            }
            self.control = Some(receive);
            return Some(Arrival::Control(send));
        }
        let _closed_already = (send.reset(UNKNOWN_STREAM), receive.stop(UNKNOWN_STREAM));
        None
    }

    fn on_read(&mut self, chunk: Result<Option<Bytes>, ReadError>) -> Arrival {
        match chunk {
            Ok(Some(bytes)) => Arrival::Bytes(bytes),
            Err(ReadError::ConnectionLost(error)) => Arrival::Lost(error),
            Ok(None) | Err(_) => {
                self.control = None;
                Arrival::Finished
            }
        }
    }
}

/// The next bytes of the control stream, once there is one.
async fn read(control: &mut Option<RecvStream>) -> Result<Option<Bytes>, ReadError> {
    let Some(control) = control else { return std::future::pending().await };
    let chunk = control.read_chunk(READ_BYTES_MAX, true).await?;
    Ok(chunk.map(|chunk| chunk.bytes))
}

/// A stream whose first byte has come; `None` where it ended without one.
async fn next_named(unnamed: &mut Vec<(SendStream, RecvStream)>) -> (Option<u8>, SendStream, RecvStream) {
    poll_fn(|cx| {
        for index in 0..unnamed.len() {
            let mut first = [0];
            let polled = unnamed[index].1.poll_read(cx, &mut first);
            if let Poll::Ready(read) = polled {
                let (send, receive) = unnamed.swap_remove(index);
                let named = (read == Ok(1)).then_some(first[0]);
                return Poll::Ready((named, send, receive));
            }
        }
        Poll::Pending
    })
    .await
}
