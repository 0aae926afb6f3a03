//! QUIC: a control stream both ways, and what the server opens for live and bulk. spec/quic.md.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use talaria_protocol::session::client::ClientSession;

use super::link::{Incoming, Outgoing};

/// The type of the control stream, its first byte.
const CONTROL: u8 = 1;

type Accept = Pin<Box<dyn Future<Output = Result<RecvStream, ConnectionError>> + Send>>;

pub(super) struct QuicLink {
    connection: Connection,
    control_out: SendStream,
    control_in: RecvStream,
    control: Option<Incoming>,
    out: Outgoing,
    streams: Vec<(RecvStream, Incoming)>,
    accept: Accept,
}

impl QuicLink {
    /// On a connection whose handshake is complete.
    pub(super) async fn open(connection: Connection) -> io::Result<Self> {
        let (control_out, control_in) = connection.open_bi().await?;
        Ok(Self {
            accept: accept(&connection),
            connection,
            control_out,
            control_in,
            control: None,
            out: Outgoing::beginning_with(&[CONTROL]),
            streams: Vec::new(),
        })
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, session: &mut ClientSession) -> io::Result<()> {
        self.out.poll_write(cx, &mut self.control_out, session).map_err(|error| self.reason(error))
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut ClientSession,
    ) -> Poll<io::Result<usize>> {
        while let Poll::Ready(stream) = self.accept.as_mut().poll(cx) {
            self.streams.push((stream?, Incoming::new(session, true)));
            self.accept = accept(&self.connection);
        }
        let mut frames = 0;
        let control = self.control.get_or_insert_with(|| Incoming::new(session, false));
        match control.poll_read(cx, &mut self.control_in, session) {
            Poll::Ready(Ok(0)) => {
                let reason = self.connection.close_reason();
                let reason =
                    reason.map_or_else(|| "closed by the server".to_owned(), |reason| reason.to_string());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
            }
            Poll::Ready(Ok(count)) => frames += count,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.reason(error))),
            Poll::Pending => {}
        }
        let mut index = 0;
        while let Some((stream, incoming)) = self.streams.get_mut(index) {
            match incoming.poll_read(cx, stream, session) {
                Poll::Ready(Ok(0)) => {
                    self.streams.swap_remove(index);
                    continue;
                }
                Poll::Ready(Ok(count)) => frames += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.reason(error))),
                Poll::Pending => {}
            }
            index += 1;
        }
        if frames > 0 { Poll::Ready(Ok(frames)) } else { Poll::Pending }
    }

    /// The connection's own words, where a stream's error only says that it is gone.
    fn reason(&self, error: io::Error) -> io::Error {
        match self.connection.close_reason() {
            Some(reason) => io::Error::new(error.kind(), reason.to_string()),
            None => error,
        }
    }
}

fn accept(connection: &Connection) -> Accept {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_uni().await })
}
