//! A light client: the protocol's session machine over TCP or QUIC, and no store. Takes what is delivered off its own
//! hands at once (credit), acknowledges in batches, and gives each frame to its scenario.

mod dial;
mod link;
mod quic;
mod tcp;

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use talaria_protocol::{
    ids::{ClientMessageId, ConversationId},
    message::{
        Cursor, RequestId,
        client::{Request, Send},
        content::Content,
        server::{GoAway, Refused, ServerFrame, Welcome},
    },
    session::client::{ClientEvent, ClientSession, CloseReason, TooManyRequests},
};
use tokio::time::{Sleep, sleep_until};

pub(crate) use dial::{Account, Dialer, ENDPOINTS, Transport, random_below};
use link::Link;

use crate::time::{instant_of, millis};

/// What came is acknowledged at most this late: an app's store commits in batches, too.
const ACK_DELAY: Duration = Duration::from_millis(100);
/// A timer that is not needed.
const FAR: Duration = Duration::from_secs(3600);

/// See the module.
pub(crate) struct Client {
    session: ClientSession,
    link: Link,
    timer: Pin<Box<Sleep>>,
    acks: Acks,
    /// Whether TLS was resumed.
    pub(crate) tls_resumed: bool,
    pub(crate) counts: Counts,
}

/// What came over the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) frames: u64,
    pub(crate) entries: u64,
}

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("refused with {}: {}, again after {} ms", .0.code, .0.message, .0.retry_after_ms)]
    Refused(Refused),
    #[error("sent away with {}: {}, again after {} ms", .0.code, .0.message, .0.reconnect_after_ms)]
    GoAway(GoAway),
    #[error("given up: {0}")]
    Closed(CloseReason),
    #[error("connection lost: {0}")]
    Lost(String),
}

impl Ended {
    /// What the server asks to wait.
    pub(crate) fn retry_after_ms(&self) -> u32 {
        match self {
            Self::Refused(refused) => refused.retry_after_ms,
            Self::GoAway(go_away) => go_away.reconnect_after_ms,
            Self::Closed(_) | Self::Lost(_) => 0,
        }
    }

    /// A few words to count by.
    pub(crate) fn kind(&self) -> String {
        use talaria_protocol::error_code::ErrorCode;
        let name = |code| ErrorCode::from_wire(code).map_or("?", ErrorCode::name);
        match self {
            Self::Refused(refused) => format!("refused {}", name(refused.code)),
            Self::GoAway(go_away) => format!("sent away {}", name(go_away.code)),
            Self::Closed(reason) => format!("given up: {reason}"),
            Self::Lost(reason) => format!("lost: {reason}"),
        }
    }
}

/// Acknowledgements that wait for their batch.
#[derive(Debug, Default)]
struct Acks {
    due: Option<Instant>,
    up_to: Vec<(ConversationId, u64)>,
}

impl Acks {
    fn note(&mut self, conversation: ConversationId, seq: u64) {
        self.due.get_or_insert_with(|| Instant::now() + ACK_DELAY);
        match self.up_to.iter_mut().find(|(other, _)| *other == conversation) {
            Some((_, up_to)) => *up_to = seq.max(*up_to),
            None => self.up_to.push((conversation, seq)),
        }
    }
}

impl Client {
    /// Connects, says Hello and waits for Welcome.
    pub(crate) async fn open(dialer: &Dialer, account: &Account) -> Result<(Self, Welcome), Ended> {
        let (link, tls_resumed) =
            dialer.dial(account).await.map_err(|error| Ended::Lost(error.to_string()))?;
        let mut client = Self {
            session: ClientSession::new(millis(), account.hello(), Default::default()),
            link,
            timer: Box::pin(sleep_until((Instant::now() + FAR).into())),
            acks: Acks::default(),
            tls_resumed,
            counts: Counts::default(),
        };
        match client.next_event().await? {
            ClientEvent::Welcome(welcome) => Ok((client, *welcome)),
            other => Err(ended_by(other)),
        }
    }

    /// The next frame of the server. Cancel-safe. Everything else of the client happens in here, too.
    pub(crate) async fn next(&mut self) -> Result<ServerFrame, Ended> {
        match self.next_event().await? {
            ClientEvent::Frame(frame) => {
                self.take(&frame);
                Ok(frame)
            }
            other => Err(ended_by(other)),
        }
    }

    /// Runs until the answer comes; frames before it are dropped.
    pub(crate) async fn answer(&mut self, id: RequestId) -> Result<ServerFrame, Ended> {
        loop {
            let frame = self.next().await?;
            if frame.request_id() == Some(id) {
                return Ok(frame);
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask(&mut self, request: Request) -> Result<ServerFrame, Ended> {
        let id = self.request(request).map_err(|error| Ended::Lost(error.to_string()))?;
        self.answer(id).await
    }

    /// Sends a request.
    pub(crate) fn request(&mut self, request: Request) -> Result<RequestId, TooManyRequests> {
        self.session.request(millis(), request)
    }

    /// A message as a request; its id is of now.
    pub(crate) fn message(&self, conversation: ConversationId, content: &Content) -> Request {
        Request::Send(Send {
            conversation,
            client_message_id: self.new_message_id(),
            content: content.encode(),
            after: None,
            seen: 0,
            urgency: Default::default(),
            expires_ms: 0,
        })
    }

    /// An id of the server's now.
    pub(crate) fn new_message_id(&self) -> ClientMessageId {
        let unix_ms = self.session.server_unix_ms(millis()).unwrap_or_default();
        ClientMessageId::from_parts(unix_ms, dial::random())
    }

    pub(crate) fn resume(&mut self, cursors: &[(ConversationId, Cursor)]) {
        self.session.resume(millis(), cursors);
    }

    pub(crate) fn requests_in_flight(&self) -> usize {
        self.session.requests_in_flight()
    }

    async fn next_event(&mut self) -> Result<ClientEvent, Ended> {
        loop {
            if let Some(event) = self.session.poll_event() {
                return Ok(event);
            }
            poll_fn(|cx| self.poll_turn(cx)).await?;
        }
    }

    /// Ready when there may be an event.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        loop {
            self.link.poll_write(cx, &mut self.session).map_err(lost)?;
            if let Poll::Ready(frames) = self.link.poll_read(cx, &mut self.session).map_err(lost)? {
                self.counts.frames += frames as u64;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_timer(cx));
            self.on_time();
            if self.session.is_closed() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let session = self.session.poll_timeout().map(instant_of);
        let due = [session, self.acks.due].into_iter().flatten().min();
        let due = due.unwrap_or_else(|| Instant::now() + FAR);
        let armed = self.timer.deadline().into_std();
        // One that fires early costs a turn; resetting it for every frame costs more.
        if due < armed || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due.into());
        }
        self.timer.as_mut().poll(cx)
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if self.acks.due.is_some_and(|due| due <= now) {
            self.acks.due = None;
            for (conversation, up_to) in self.acks.up_to.drain(..) {
                self.session.ack(millis(), conversation, up_to);
            }
        }
        if self.session.poll_timeout().is_some_and(|due| due <= millis()) {
            self.session.handle_timeout(millis());
        }
    }

    /// Entries cost credit, and are acknowledged when they were delivered.
    fn take(&mut self, frame: &ServerFrame) {
        match frame {
            ServerFrame::Deliver { conversation, entry } => {
                self.counts.entries += 1;
                self.session.consumed(millis(), 1, entry.encoded_len() as u64);
                self.acks.note(*conversation, entry.seq);
            }
            ServerFrame::HistoryPage(page) => {
                let bytes = page.entries.iter().map(|entry| entry.encoded_len() as u64).sum();
                self.session.consumed(millis(), page.entries.len() as u64, bytes);
            }
            _ => {}
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn lost(error: std::io::Error) -> Ended {
    Ended::Lost(error.to_string())
}

fn ended_by(event: ClientEvent) -> Ended {
    match event {
        ClientEvent::Refused(refused) => Ended::Refused(refused),
        ClientEvent::GoAway(go_away) => Ended::GoAway(go_away),
        ClientEvent::Closed { reason } => Ended::Closed(reason),
        ClientEvent::Welcome(_) | ClientEvent::Frame(_) => Ended::Lost("a frame out of place".to_owned()),
    }
}
