//! Admission: whether a request to append is answered at once, joins a pending one, waits, or is given a seq.
//! The order of the checks matters. Who has no row learns nothing. A retry is recognised before its sender's
//! rights and its id's time are looked at, since it may have been accepted while both were good.

use bytes::Bytes;
use talaria_protocol::{
    entry::{EntryKind, Urgency},
    error_code::ErrorCode,
    ids::{ClientMessageId, UserId},
    limits::{DEDUP_WINDOW, ID_FUTURE_MAX},
    message::{
        ConversationKind,
        content::{Body, Content},
    },
};

use super::{
    AppendKind, AppendRequest, Appended, Bar, Conversation, Refusal, Sender, Stamp, Waiter,
    assign::Draft,
    dedup::Known,
    durable::Pending,
    membership::{self, Change},
};
use crate::log::{Accepted, Append};

/// A request and its surroundings.
#[derive(Debug)]
pub struct Admit<'a> {
    /// Who asks.
    pub sender: &'a Sender,
    /// Who is answered.
    pub waiter: Waiter,
    /// What for.
    pub request: &'a AppendRequest,
    /// The log queue has room.
    pub room: bool,
    /// For the entry.
    pub stamp: Stamp,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Admission {
    /// Commit this; the waiter is answered by [`Conversation::on_durable`].
    Append(Box<Append>),
    /// The same request is pending: the waiter is answered with it.
    Joined,
    /// Answer now.
    Answer(Result<Appended, Refusal>),
    /// Read these ids of the sender, give them to [`Conversation::on_dedup`], then admit again.
    Lookup(Vec<ClientMessageId>),
    /// Admit again when the conversation is no longer barred.
    Park,
}

impl From<Refusal> for Admission {
    fn from(refusal: Refusal) -> Self {
        Self::Answer(Err(refusal))
    }
}

/// What a request makes, before it has a seq.
enum Plan {
    Message { content: Bytes, urgency: Urgency, expires_ms: u64 },
    Membership { change: Change, begins: Option<(ConversationKind, String)> },
}

impl Conversation {
    /// Decides on a request. Only [`Admission::Append`] changes the conversation beyond its own bookkeeping.
    pub fn admit(&mut self, ask: &Admit<'_>) -> Admission {
        let user = ask.sender.peer.user;
        let creates = ask.request.kind.creates();
        if (!self.exists() && !creates) || (self.exists() && !self.members.contains_key(&user)) {
            return if self.is_joining(user) { Admission::Park } else { Refusal::not_found().into() };
        }
        let clock_ms = ask.stamp.hlc.unix_ms();
        if let Err(refusal) = check_not_expired(ask.request.id, clock_ms) {
            return refusal.into();
        }
        if self.bar.is_some() {
            return Admission::Park;
        }
        if !self.exists() && self.pending.is_empty() {
            self.dedup.begin(user);
        }
        let digest = ask.request.kind.digest();
        if let Some(seq) = self.pending_ids.get(&(user, ask.request.id)) {
            return self.join(*seq, ask.waiter, digest);
        }
        if self.exists() && matches!(ask.request.kind, AppendKind::Direct(_)) {
            return Admission::Answer(Ok(Appended::default()));
        }
        match self.dedup.lookup(user, ask.request.id) {
            Known::Accepted(accepted) => return recognised(&accepted, digest),
            Known::AskLog => return self.look_up(user, ask.request),
            Known::New => {}
        }
        if let Err(refusal) = check_not_from_future(ask.request.id, clock_ms) {
            return refusal.into();
        }
        match self.predecessor(user, ask.request.after) {
            Known::Accepted(_) => {}
            Known::AskLog => return self.look_up(user, ask.request),
            Known::New => {
                return Refusal::new(ErrorCode::OutOfOrder, "after: that send was not accepted").into();
            }
        }
        match self.plan(ask) {
            Err(refusal) => refusal.into(),
            Ok(Plan::Membership { change, .. }) if change.rows.is_empty() => {
                Admission::Answer(Ok(Appended::default()))
            }
            Ok(_) if !ask.room => Refusal::busy("the log queue is full").into(),
            Ok(plan) => Admission::Append(Box::new(self.append(ask, digest, plan))),
        }
    }

    /// What the log said of ids that [`Admission::Lookup`] asked for.
    pub fn on_dedup(
        &mut self,
        user: UserId,
        asked: &[ClientMessageId],
        highest: Option<ClientMessageId>,
        found: &[(ClientMessageId, Accepted)],
    ) {
        self.dedup.on_answer(user, asked, highest, found);
        self.on_dedup_failed();
    }

    /// The log could not be asked.
    pub fn on_dedup_failed(&mut self) {
        if self.bar == Some(Bar::Dedup) {
            self.bar = None;
        }
    }

    /// Asks for those ids only of which nothing is known: what the log says of a pending one may be out of date
    /// when it comes. None of these can be given a seq meanwhile, since appends are barred.
    fn look_up(&mut self, user: UserId, request: &AppendRequest) -> Admission {
        self.bar = Some(Bar::Dedup);
        let mut ids: Vec<ClientMessageId> = [request.id].into_iter().chain(request.after).collect();
        ids.retain(|id| {
            !self.pending_ids.contains_key(&(user, *id)) && self.dedup.lookup(user, *id) == Known::AskLog
        });
        Admission::Lookup(ids)
    }

    fn join(&mut self, seq: u64, waiter: Waiter, digest: [u8; 32]) -> Admission {
        let first = self.pending.front().map_or(seq, |pending| pending.entry.seq);
        if let Some(pending) = usize::try_from(seq - first).ok().and_then(|n| self.pending.get_mut(n)) {
            let same = pending.accepted.digest == digest;
            pending.waiters.push((waiter, if same { Waits::Again } else { Waits::Conflict }));
        }
        Admission::Joined
    }

    /// `Accepted` also when nothing has to come before.
    fn predecessor(&self, user: UserId, after: Option<ClientMessageId>) -> Known {
        let nothing =
            Known::Accepted(Accepted { seq: 0, epoch: 0, hlc: Default::default(), digest: [0; 32] });
        match after {
            None => nothing,
            Some(after) if self.pending_ids.contains_key(&(user, after)) => nothing,
            Some(after) => self.dedup.lookup(user, after),
        }
    }

    fn plan(&self, ask: &Admit<'_>) -> Result<Plan, Refusal> {
        let seq = self.assigned.head + 1;
        let (heads, rows, sender) = (&self.durable, &self.members, ask.sender);
        let change = match &ask.request.kind {
            AppendKind::Send { content, urgency, expires_ms } => {
                if !rows.get(&sender.peer.user).is_some_and(crate::log::MemberRow::is_member) {
                    return Err(Refusal::new(ErrorCode::Forbidden, "not a member any more"));
                }
                return Ok(Plan::Message {
                    content: content.clone(),
                    urgency: *urgency,
                    expires_ms: *expires_ms,
                });
            }
            AppendKind::Direct(peer) => {
                let begins = Some((ConversationKind::Direct, String::new()));
                return Ok(Plan::Membership { change: membership::direct(sender, peer), begins });
            }
            AppendKind::CreateGroup { .. } if self.exists() => {
                return Err(Refusal::new(ErrorCode::Conflict, "client_message_id: it made another group"));
            }
            AppendKind::CreateGroup { title, members } => {
                let change = membership::create_group(sender, title, members)?;
                return Ok(Plan::Membership {
                    change,
                    begins: Some((ConversationKind::Group, title.clone())),
                });
            }
            AppendKind::AddMembers(peers) => membership::add(heads, rows, sender, peers, seq)?,
            AppendKind::RemoveMembers(users) => membership::remove(heads, rows, sender, users, seq)?,
            AppendKind::Leave => membership::leave(heads, rows, sender, seq)?,
        };
        Ok(Plan::Membership { change, begins: None })
    }

    fn append(&mut self, ask: &Admit<'_>, digest: [u8; 32], plan: Plan) -> Append {
        let (user, id) = (ask.sender.peer.user, ask.request.id);
        let (draft, members) = match plan {
            Plan::Message { content, urgency, expires_ms } => {
                (Draft { id, kind: EntryKind::Message, content, urgency, expires_ms }, vec![])
            }
            Plan::Membership { change, begins } => {
                if let Some((kind, title)) = begins {
                    self.assigned.kind = kind;
                    self.assigned.title = title;
                }
                self.bar = Some(Bar::Membership);
                let content = Content { body: Body::Membership(change.entry), metadata: vec![] }.encode();
                let urgency = Urgency::Normal;
                (Draft { id, kind: EntryKind::Membership, content, urgency, expires_ms: 0 }, change.rows)
            }
        };
        let is_message = draft.kind == EntryKind::Message;
        let entry = self.assign(ask.sender, &ask.stamp, draft);
        let accepted = Accepted {
            seq: entry.seq,
            epoch: self.assigned.epoch_at(entry.seq),
            hlc: self.assigned.hlc,
            digest,
        };
        self.dedup.on_assigned(user, id);
        self.pending_ids.insert((user, id), entry.seq);
        self.pending.push_back(Pending {
            entry: entry.clone(),
            heads: self.assigned.clone(),
            sender: (user, ask.sender.device),
            is_message,
            id,
            accepted,
            members: members.clone(),
            waiters: vec![(ask.waiter, Waits::First)],
        });
        Append {
            conversation: self.id,
            entries: vec![entry],
            heads: self.assigned.clone(),
            accepted: vec![(user, id, accepted)],
            members,
        }
    }
}

/// How a waiter stands to its pending append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Its request made it.
    First,
    /// A retry of the same.
    Again,
    /// The same id with other content.
    Conflict,
}

impl Waits {
    /// The answer once the entry is durable.
    pub(super) fn answer(self, accepted: &Accepted) -> Result<Appended, Refusal> {
        let Accepted { seq, epoch, hlc, .. } = *accepted;
        match self {
            Self::First => Ok(Appended { seq, epoch, hlc, duplicate: false }),
            Self::Again => Ok(Appended { seq, epoch, hlc, duplicate: true }),
            Self::Conflict => Err(conflict()),
        }
    }
}

fn conflict() -> Refusal {
    Refusal::new(ErrorCode::Conflict, "client_message_id: it was used before, with other content")
}

fn recognised(accepted: &Accepted, digest: [u8; 32]) -> Admission {
    let waits = if accepted.digest == digest { Waits::Again } else { Waits::Conflict };
    Admission::Answer(waits.answer(accepted))
}

/// The id's own time is within the dedup window ([DLV-2]). The clock is the one that clients are told, the HLC:
/// it never goes back, so that ids minted by it stay good when the node's does.
fn check_not_expired(id: ClientMessageId, clock_ms: u64) -> Result<(), Refusal> {
    if id.unix_ms().saturating_add(DEDUP_WINDOW.as_millis() as u64) < clock_ms {
        return Err(Refusal::new(
            ErrorCode::IdExpired,
            "client_message_id: older than Limits.dedup_window_ms; look for it in the history before sending anew",
        ));
    }
    Ok(())
}

/// Nor is it far ahead ([DLV-3]). Asked after an accepted id was recognised: its client must not hear that nothing
/// happened, whatever this node's clock says now ([ERR-7]).
fn check_not_from_future(id: ClientMessageId, clock_ms: u64) -> Result<(), Refusal> {
    if id.unix_ms() > clock_ms.saturating_add(ID_FUTURE_MAX.as_millis() as u64) {
        return Err(Refusal::new(
            ErrorCode::IdFromFuture,
            "client_message_id: its time is ahead of the server's; mint it from server-corrected time",
        ));
    }
    Ok(())
}
