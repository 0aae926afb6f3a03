//! Pairs of users who talk: an open loop, in which each message has its time whatever became of the ones before it.
//! Nothing is ever sent again: what a connection loses is counted.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use talaria_protocol::{
    error_code::ErrorCode,
    ids::ConversationId,
    message::{Cursor, UserRef, client::Request, server::ServerFrame},
};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    client::{Account, Client, Dialer, Ended},
    latency::{Recorder, stamp_of, stamped},
    time::{instant_at, since_start},
};

/// Bytes of a message's text.
const TEXT_BYTES: usize = 120;
/// How long a pair may take to meet.
const MEET_MAX: Duration = Duration::from_secs(30);
/// How long what was sent may take to arrive once nothing more is sent.
const SETTLE_MAX: Duration = Duration::from_secs(15);

/// How a sender goes about it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Nothing is sent.
    Rest,
    /// A message every so often, each sender.
    Open(Duration),
    /// The next message when the last one is acknowledged.
    Closed,
}

/// What happened beside deliveries.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: AtomicU64,
    /// `Sent` that says that the message was there already: somebody sent twice.
    pub(crate) duplicates: AtomicU64,
    /// Entries delivered a second time.
    pub(crate) repeated: AtomicU64,
    /// Sends answered by an error.
    pub(crate) errors: AtomicU64,
    /// Connections that ended.
    pub(crate) ended: AtomicU64,
    kinds: Mutex<Vec<String>>,
}

impl Tally {
    pub(crate) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// What errors and ends were called, each once.
    pub(crate) fn kinds(&self) -> Vec<String> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, counter: &AtomicU64, kind: String) {
        counter.fetch_add(1, Ordering::Relaxed);
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.len() < 16 && !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
}

/// See the module. Everything ends when this is dropped.
pub(crate) struct Pairs {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) tally: Arc<Tally>,
    /// All their devices.
    pub(crate) accounts: Vec<Account>,
    pace: watch::Sender<Pace>,
    _tasks: JoinSet<()>,
}

impl Pairs {
    /// So many pairs meet. `roaming`: each client has a socket of its own.
    pub(crate) async fn meet(dialer: &Arc<Dialer>, count: u64, roaming: bool) -> anyhow::Result<Self> {
        let mut pairs = Self {
            recorder: Arc::default(),
            tally: Arc::default(),
            accounts: Vec::new(),
            pace: watch::Sender::new(Pace::Rest),
            _tasks: JoinSet::new(),
        };
        for number in 0..count {
            let account = |prefix, number| {
                if roaming { dialer.roaming_account(prefix, number) } else { dialer.account(prefix, number) }
            };
            let (alice, bob) = (account("alice", 2 * number)?, account("bob", 2 * number + 1)?);
            let met = timeout(MEET_MAX, meet(dialer, &alice, &bob, 2 * number + 1)).await;
            let (sender, receiver, conversation) = met.context("a pair did not meet")??;
            let (recorder, tally, pace) =
                (pairs.recorder.clone(), pairs.tally.clone(), pairs.pace.subscribe());
            // Spread over the interval.
            let phase = number as f64 / count as f64;
            pairs._tasks.spawn(async move {
                let sender = Sender { client: sender, conversation, pace, phase, recorder, tally };
                sender.run().await;
            });
            let (recorder, tally) = (pairs.recorder.clone(), pairs.tally.clone());
            pairs._tasks.spawn(receive(receiver, recorder, tally));
            pairs.accounts.extend([alice, bob]);
        }
        Ok(pairs)
    }

    /// From now on, under this name.
    pub(crate) fn begin(&self, phase: &'static str, pace: Pace) {
        self.recorder.begin(phase);
        self.pace.send_replace(pace);
    }

    /// Sends no more, and waits until all has arrived or too long has passed.
    pub(crate) async fn settle(&self) {
        self.pace.send_replace(Pace::Rest);
        let deadline = since_start() + SETTLE_MAX;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if self.recorder.outstanding() == 0 || since_start() > deadline {
                return;
            }
        }
    }
}

async fn meet(
    dialer: &Dialer,
    alice: &Account,
    bob: &Account,
    bob_number: u64,
) -> anyhow::Result<(Client, Client, ConversationId)> {
    // Bob first, so that he is known.
    let (mut receiver, _) = Client::open(dialer, bob).await?;
    let (mut sender, _) = Client::open(dialer, alice).await?;
    let conversation = direct_with(&mut sender, &format!("bob{bob_number}")).await?;
    receiver.resume(&[(conversation, Cursor::START)]);
    caught_up(&mut receiver).await?;
    Ok((sender, receiver, conversation))
}

/// The direct conversation with this user.
pub(crate) async fn direct_with(client: &mut Client, subject: &str) -> anyhow::Result<ConversationId> {
    let user = UserRef::Subject(subject.to_owned());
    let request = Request::DirectWith { user, client_message_id: client.new_message_id() };
    match client.ask(request).await? {
        ServerFrame::ConversationResult { conversation, .. } => Ok(conversation.conversation),
        other => bail!("no conversation: {other:?}"),
    }
}

/// Runs until a resumed conversation is live.
pub(crate) async fn caught_up(client: &mut Client) -> anyhow::Result<()> {
    loop {
        match client.next().await? {
            ServerFrame::CaughtUp { .. } => return Ok(()),
            ServerFrame::Error { code, message, .. } => bail!("not resumed: {code} {message}"),
            _ => {}
        }
    }
}

struct Sender {
    client: Client,
    conversation: ConversationId,
    pace: watch::Receiver<Pace>,
    phase: f64,
    recorder: Arc<Recorder>,
    tally: Arc<Tally>,
}

impl Sender {
    async fn run(mut self) {
        let mut next: Option<Duration> = None;
        loop {
            let pace = *self.pace.borrow_and_update();
            let due = match pace {
                Pace::Rest => None,
                Pace::Open(every) => {
                    Some(*next.get_or_insert_with(|| since_start() + every.mul_f64(self.phase)))
                }
                Pace::Closed => (self.client.requests_in_flight() == 0).then(since_start),
            };
            let at = instant_at(due.unwrap_or_default());
            tokio::select! {
                frame = self.client.next() => match frame {
                    Ok(frame) => self.on_frame(&frame),
                    Err(ended) => return self.tally.note(&self.tally.ended, ended.kind()),
                },
                () = tokio::time::sleep_until(at.into()), if due.is_some() => {
                    if let Some(intended) = due && self.send(intended) {
                        next = match pace {
                            Pace::Open(every) => Some(intended + every),
                            _ => None,
                        };
                    } else if self.wait_for_room().await.is_err() {
                        return;
                    }
                }
                changed = self.pace.changed() => {
                    next = None;
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether there was room for one more request.
    fn send(&mut self, intended: Duration) -> bool {
        let message = self.client.message(self.conversation, &stamped(intended, TEXT_BYTES));
        let sent = self.client.request(message).is_ok();
        if sent {
            self.recorder.sent(intended);
        }
        sent
    }

    /// As many requests as may wait do: until one is answered.
    async fn wait_for_room(&mut self) -> Result<(), Ended> {
        match self.client.next().await {
            Ok(frame) => {
                self.on_frame(&frame);
                Ok(())
            }
            Err(ended) => {
                self.tally.note(&self.tally.ended, ended.kind());
                Err(ended)
            }
        }
    }

    fn on_frame(&self, frame: &ServerFrame) {
        match frame {
            ServerFrame::Sent(sent) => {
                self.tally.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.tally.duplicates.fetch_add(u64::from(sent.duplicate), Ordering::Relaxed);
            }
            ServerFrame::Error { code, .. } => {
                let name = ErrorCode::from_wire(*code).map_or("?", ErrorCode::name);
                self.tally.note(&self.tally.errors, format!("error {name}"));
            }
            _ => {}
        }
    }
}

/// Records what is delivered, until the connection ends.
pub(crate) async fn receive(mut client: Client, recorder: Arc<Recorder>, tally: Arc<Tally>) {
    let mut last_seq = 0;
    loop {
        match client.next().await {
            Ok(ServerFrame::Deliver { entry, .. }) => {
                if entry.seq <= last_seq {
                    tally.repeated.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                last_seq = entry.seq;
                if let Some(intended) = stamp_of(&entry) {
                    recorder.delivered(intended);
                }
            }
            Ok(_) => {}
            Err(ended) => return tally.note(&tally.ended, ended.kind()),
        }
    }
}
