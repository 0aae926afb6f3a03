//! A large group, all members online: what one delivery costs.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use talaria_protocol::{
    ids::ConversationId,
    limits::MEMBERS_PER_REQUEST_MAX,
    message::{
        Cursor, UserRef,
        client::{ChangeMembers, Request},
        server::ServerFrame,
    },
};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{dialer, seconds};
use crate::{
    client::{Client, Counts, Dialer, Transport},
    latency::{Recorder, stamp_of, stamped},
    node::Node,
    report::Report,
    time::{instant_at, since_start},
};

/// How long the members may take to come.
const GATHER_MAX: Duration = Duration::from_secs(120);
/// How long what was sent may take to arrive.
const SETTLE_MAX: Duration = Duration::from_secs(20);
/// Members that connect at once.
const AT_ONCE: usize = 64;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// All members, the one who sends included.
    #[arg(long, default_value_t = 1000)]
    members: u64,
    /// Messages a second.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// How long.
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
}

pub(crate) async fn run(node: &mut Node, transport: Transport, args: &Args) -> anyhow::Result<Report> {
    let dialer = dialer(node, transport)?;
    let recorder = Arc::new(Recorder::default());
    let stop = watch::Sender::new(false);
    let gathered = timeout(GATHER_MAX, gather(&dialer, args.members, &recorder, &stop)).await;
    let (mut owner, conversation, mut members) = gathered.context("the group did not gather")??;
    let (cpu, before) = (node.process.cpu()?, node.metrics().await?);
    recorder.begin("talk");
    let sent = talk(&mut owner, conversation, &recorder, args).await?;
    // Every message has a receiver more than the recorder knows of.
    let expected = sent * (args.members - 1);
    let deadline = since_start() + SETTLE_MAX;
    let delivered = || recorder.summary("talk").map_or(0, |summary| summary.delivered);
    while delivered() < expected && since_start() < deadline {
        let _frame = timeout(Duration::from_millis(20), owner.next()).await;
    }
    let cpu = node.process.cpu()?.saturating_sub(cpu);
    let after = node.metrics().await?;
    stop.send_replace(true);
    let (mut counts, mut ended) = (Counts::default(), 0);
    while let Some(member) = members.join_next().await {
        let (of_one, is_ended) = member?;
        counts.frames += of_one.frames;
        counts.entries += of_one.entries;
        ended += u64::from(is_ended);
    }
    let mut report = Report::new(format!(
        "a group of {} online members over {transport}, {} messages a second",
        args.members, args.rate
    ));
    let deliveries = delivered();
    let each = |value: f64| value / deliveries.max(1) as f64;
    report.latency(
        "send→deliver",
        recorder.summary("talk").map(|all| crate::latency::Summary { sent: expected, ..all }),
    );
    report.count("messages", sent);
    report.count("deliveries", deliveries);
    report.figure("frames to members a delivery", each(counts.frames as f64), "");
    report.figure("server CPU a delivery", each(cpu.as_micros() as f64), "µs");
    report.figure("server CPU a message", cpu.as_micros() as f64 / sent.max(1) as f64, "µs");
    let growth = |name| after.growth(&before, name);
    report.maybe("bytes sent a delivery", growth("talaria_sent_bytes_total").map(each), "");
    report.maybe("entries delivered, by the node's count", growth("talaria_entries_delivered_total"), "");
    report.maybe("allocations a delivery", growth("allocations_total").map(each), "");
    for (name, change) in after.changes_since(&before, of_interest) {
        report.figure(&format!("{name}, a message"), change / sent.max(1) as f64, "");
    }
    report.count("connections ended", ended);
    report.fail_if(ended > 0, format!("{ended} members lost their connection"));
    report.fail_if(deliveries != expected, format!("{deliveries} of {expected} deliveries"));
    Ok(report)
}

/// Counters that are worth a look per message: mailboxes between shards.
fn of_interest(name: &str) -> bool {
    let counts = name.contains("_total") || name.ends_with("_count");
    counts && ["mailbox", "peer"].iter().any(|part| name.contains(part))
}

type Members = JoinSet<(Counts, bool)>;

/// The owner, who sends, and all others, who are caught up and only receive.
async fn gather(
    dialer: &Arc<Dialer>,
    count: u64,
    recorder: &Arc<Recorder>,
    stop: &watch::Sender<bool>,
) -> anyhow::Result<(Client, ConversationId, Members)> {
    let mut clients = Vec::new();
    let mut opening = JoinSet::new();
    for number in 1..count {
        while opening.len() >= AT_ONCE {
            clients.extend(opened(&mut opening).await?);
        }
        let (dialer, account) = (dialer.clone(), dialer.account("member", number)?);
        opening.spawn(async move { Client::open(&dialer, &account).await });
    }
    while !opening.is_empty() {
        clients.extend(opened(&mut opening).await?);
    }
    let (mut owner, _) = Client::open(dialer, &dialer.account("owner", 0)?).await?;
    let conversation = create(&mut owner, count).await?;
    let mut joining: JoinSet<anyhow::Result<Client>> = JoinSet::new();
    for mut client in clients {
        joining.spawn(async move {
            client.resume(&[(conversation, Cursor::START)]);
            crate::traffic::caught_up(&mut client).await?;
            client.counts = Counts::default();
            Ok(client)
        });
    }
    let mut members = Members::new();
    while let Some(joined) = joining.join_next().await {
        members.spawn(listen(joined??, recorder.clone(), stop.subscribe()));
    }
    Ok((owner, conversation, members))
}

async fn opened(
    opening: &mut JoinSet<Result<(Client, talaria_protocol::message::server::Welcome), crate::client::Ended>>,
) -> anyhow::Result<Option<Client>> {
    let Some(opened) = opening.join_next().await else { return Ok(None) };
    Ok(Some(opened??.0))
}

async fn create(owner: &mut Client, count: u64) -> anyhow::Result<ConversationId> {
    let subjects: Vec<_> = (1..count).map(|number| UserRef::Subject(format!("member{number}"))).collect();
    let mut parts = subjects.chunks(MEMBERS_PER_REQUEST_MAX);
    let request = Request::CreateGroup {
        client_message_id: owner.new_message_id(),
        title: "a crowd".to_owned(),
        members: parts.next().unwrap_or_default().to_vec(),
    };
    let conversation = changed(owner.ask(request).await?)?;
    for part in parts {
        let change =
            ChangeMembers { client_message_id: owner.new_message_id(), conversation, users: part.to_vec() };
        changed(owner.ask(Request::AddMembers(change)).await?)?;
    }
    Ok(conversation)
}

fn changed(answer: ServerFrame) -> anyhow::Result<ConversationId> {
    match answer {
        ServerFrame::ConversationResult { conversation, .. } => Ok(conversation.conversation),
        other => bail!("the group was not changed: {other:?}"),
    }
}

/// What came, and whether the connection ended.
async fn listen(
    mut client: Client,
    recorder: Arc<Recorder>,
    mut stop: watch::Receiver<bool>,
) -> (Counts, bool) {
    loop {
        tokio::select! {
            frame = client.next() => match frame {
                Ok(ServerFrame::Deliver { entry, .. }) => {
                    if let Some(intended) = stamp_of(&entry) {
                        recorder.delivered(intended);
                    }
                }
                Ok(_) => {}
                Err(ended) => {
                    tracing::warn!(%ended, "a member");
                    return (client.counts, true);
                }
            },
            _ = stop.changed() => return (client.counts, false),
        }
    }
}

/// Sends at its pace; how many were accepted.
async fn talk(
    owner: &mut Client,
    conversation: ConversationId,
    recorder: &Recorder,
    args: &Args,
) -> anyhow::Result<u64> {
    let every = Duration::from_secs_f64(1.0 / args.rate);
    let (mut next, end) = (since_start(), since_start() + seconds(args.seconds));
    let (mut asked, mut sent) = (0, 0);
    while next < end || sent < asked {
        tokio::select! {
            frame = owner.next() => match frame? {
                ServerFrame::Sent(_) => sent += 1,
                ServerFrame::Error { code, message, .. } => bail!("not sent: {code} {message}"),
                _ => {}
            },
            () = tokio::time::sleep_until(instant_at(next).into()), if next < end => {
                let message = owner.message(conversation, &stamped(next, 200));
                if owner.request(message).is_ok() {
                    asked += 1;
                }
                recorder.sent(next);
                next += every;
            }
        }
    }
    Ok(sent)
}
