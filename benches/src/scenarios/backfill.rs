//! A client on a bad line who reads a long history while messages come: what the history does to the messages.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use talaria_chaos::{Chaos, Config, DropReason, Faults};
use talaria_protocol::{
    ids::ConversationId,
    message::{
        Cursor, Direction,
        client::{History, Request},
        content::Content,
        server::ServerFrame,
    },
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::dialer;
use crate::{
    client::{Client, Ended, Transport},
    latency::{Recorder, stamp_of, stamped},
    node::Node,
    report::Report,
    time::{instant_at, since_start},
    traffic::{caught_up, direct_with},
};

/// Text bytes of a message of the history.
const HISTORY_TEXT_BYTES: usize = 2_000;
/// Sends that wait for their answers while the history is written.
const SENDS_IN_FLIGHT: usize = 48;
/// How long writing the history may take.
const PREPARE_MAX: Duration = Duration::from_secs(120);
/// How long one phase may take.
const PHASE_MAX: Duration = Duration::from_secs(240);
/// How long what was sent may take to arrive.
const SETTLE_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Live messages, in each phase at least.
    #[arg(long, default_value_t = 1_000)]
    messages: u64,
    /// Live messages a second.
    #[arg(long, default_value_t = 40.0)]
    rate: f64,
    /// Bytes of history to read, at least; it is read again and again while live messages are to come.
    #[arg(long, default_value_t = 10_000_000)]
    bytes: u64,
    /// Percent lost, each way.
    #[arg(long, default_value_t = 5.0)]
    loss: f64,
    /// Round trip, ms.
    #[arg(long, default_value_t = 50)]
    rtt_ms: u64,
    /// Bytes per second of the line, each way; 0: no limit.
    #[arg(long, default_value_t = 0)]
    line_rate: u64,
    /// Messages of a page of the history, 2 KB each. A page is one frame: on one stream, nothing passes it.
    #[arg(long, default_value_t = 100)]
    page_entries: u64,
    /// Pages asked for at once.
    #[arg(long, default_value_t = 2)]
    pages: usize,
    /// Of the line's dice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) async fn run(node: &mut Node, transport: Transport, args: &Args) -> anyhow::Result<Report> {
    let direct = dialer(node, transport)?;
    let faults = Faults {
        rate_bytes_per_s: args.line_rate,
        ..Faults::half_of(Duration::from_millis(args.rtt_ms), args.loss)
    };
    let life_max = 2 * PHASE_MAX + PREPARE_MAX + Duration::from_secs(60);
    let chaos = Chaos::start(Config {
        up: faults,
        down: faults,
        seed: args.seed,
        life_max,
        ..Config::new(node.address)
    })?;
    let reader_account = direct.account("reader", 1)?;
    // Known before anybody names it.
    drop(Client::open(&direct, &reader_account).await?);
    let (mut writer, _) = Client::open(&direct, &direct.account("writer", 2)?).await?;
    let entries = args.bytes.div_ceil(HISTORY_TEXT_BYTES as u64);
    let written = timeout(PREPARE_MAX, write_history(&mut writer, entries)).await;
    let history = written.context("the history took too long to write")??;
    let (mut sender, _) = Client::open(&direct, &direct.account("sender", 3)?).await?;
    let live = direct_with(&mut sender, "reader1").await?;
    let (mut client, _) = Client::open(&direct.by_way_of(chaos.address())?, &reader_account).await?;
    client.resume(&[(live, Cursor::START)]);
    caught_up(&mut client).await?;
    let reader = Reader::start(
        client,
        History {
            conversation: history,
            from: 1,
            direction: Direction::Forward,
            entries_max: args.page_entries as usize,
        },
        entries,
        args.pages,
    );

    let mut report = Report::new(format!(
        "live messages beside a backfill over {transport}, {} % loss, {} ms round trip",
        args.loss, args.rtt_ms
    ));
    reader.recorder.begin("quiet");
    talk(&mut sender, live, &reader, args, 0).await?;
    let (before, began) = (reader.bytes(), since_start());
    reader.backfills.send_replace(true);
    reader.recorder.begin("backfill");
    talk(&mut sender, live, &reader, args, args.bytes).await?;
    let took = since_start() - began;
    reader.backfills.send_replace(false);
    say(&mut report, &reader, (reader.bytes() - before, took));
    say_line(&mut report, &chaos);
    let ended = reader.task.is_finished();
    reader.task.abort();
    report.fail_if(ended, "the reader's connection ended");
    report.fail_if(
        reader.recorder.outstanding() > 0,
        format!("{} not delivered", reader.recorder.outstanding()),
    );
    Ok(report)
}

fn say(report: &mut Report, reader: &Reader, (bytes, took): (u64, Duration)) {
    let (quiet, beside) = (reader.recorder.summary("quiet"), reader.recorder.summary("backfill"));
    if let (Some(quiet), Some(beside)) = (&quiet, &beside) {
        report.figure("p99 beside the backfill to p99 without", beside.p99_ms / quiet.p99_ms, "");
        report.figure("p50 likewise", beside.p50_ms / quiet.p50_ms, "");
    }
    report.latency("send→deliver, quiet", quiet);
    report.latency("send→deliver, beside the backfill", beside);
    report.figure("history read", bytes as f64 / 1e6, "MB");
    report.figure("at", bytes as f64 / 1e3 / took.as_secs_f64(), "KB/s");
    report.count("pages refused", reader.refused.load(Ordering::Relaxed));
}

fn say_line(report: &mut Report, chaos: &Chaos) {
    let stats = chaos.stats();
    report.count("line: UDP packets", stats.udp_up + stats.udp_down);
    report.count("line: UDP packets lost", stats.dropped(DropReason::Loss));
    let other: u64 = stats.dropped.iter().sum::<u64>() - stats.dropped(DropReason::Loss);
    report.count("line: dropped otherwise", other);
    report.count("line: TCP bytes", stats.tcp_bytes);
    report.count("line: TCP losses", stats.tcp_losses);
}

/// A conversation of so many messages.
async fn write_history(writer: &mut Client, entries: u64) -> anyhow::Result<ConversationId> {
    let conversation = direct_with(writer, "reader1").await?;
    let content = Content::text("h".repeat(HISTORY_TEXT_BYTES));
    let (mut asked, mut sent) = (0, 0);
    while sent < entries {
        while asked < entries && writer.requests_in_flight() < SENDS_IN_FLIGHT {
            let message = writer.message(conversation, &content);
            asked += u64::from(writer.request(message).is_ok());
        }
        match writer.next().await? {
            ServerFrame::Sent(_) => sent += 1,
            ServerFrame::Error { code, message, .. } => bail!("not written: {code} {message}"),
            _ => {}
        }
    }
    Ok(conversation)
}

/// Who is on the bad line.
struct Reader {
    recorder: Arc<Recorder>,
    backfills: watch::Sender<bool>,
    bytes: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Reader {
    fn start(client: Client, page: History, entries: u64, pages: usize) -> Self {
        let (recorder, bytes, refused) = (Arc::default(), Arc::default(), Arc::default());
        let backfills = watch::Sender::new(false);
        let reading = Reading {
            client,
            page,
            entries,
            pages,
            recorder: Arc::clone(&recorder),
            bytes: Arc::clone(&bytes),
            refused: Arc::clone(&refused),
        };
        let on = backfills.subscribe();
        let task = tokio::spawn(async move {
            if let Err(ended) = reading.run(on).await {
                tracing::warn!(%ended, "the reader");
            }
        });
        Self { recorder, backfills, bytes, refused, task }
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

struct Reading {
    client: Client,
    /// The next one.
    page: History,
    entries: u64,
    /// In flight at once.
    pages: usize,
    recorder: Arc<Recorder>,
    bytes: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Reading {
    async fn run(mut self, mut on: watch::Receiver<bool>) -> Result<(), Ended> {
        loop {
            while *on.borrow_and_update() && self.client.requests_in_flight() < self.pages {
                self.ask_for_page();
            }
            tokio::select! {
                frame = self.client.next() => self.take(&frame?),
                changed = on.changed() => if changed.is_err() {
                    return Ok(());
                },
            }
        }
    }

    fn ask_for_page(&mut self) {
        if self.client.request(Request::History(self.page)).is_ok() {
            let entries = self.page.entries_max as u64;
            self.page.from += entries;
            if self.page.from + entries > self.entries {
                self.page.from = 1;
            }
        }
    }

    fn take(&self, frame: &ServerFrame) {
        match frame {
            ServerFrame::Deliver { entry, .. } => {
                if let Some(intended) = stamp_of(entry) {
                    self.recorder.delivered(intended);
                }
            }
            ServerFrame::HistoryPage(page) => {
                let bytes = page.entries.iter().map(|entry| entry.encoded_len() as u64).sum();
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            ServerFrame::Error { .. } => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

/// Sends at its pace until both are enough, messages and bytes of history; then waits until all have arrived.
async fn talk(
    sender: &mut Client,
    conversation: ConversationId,
    reader: &Reader,
    args: &Args,
    bytes: u64,
) -> anyhow::Result<()> {
    let every = Duration::from_secs_f64(1.0 / args.rate);
    let (begin, target) = (since_start(), reader.bytes() + bytes);
    let mut next = begin;
    let mut messages = 0;
    while (messages < args.messages || reader.bytes() < target) && since_start() < begin + PHASE_MAX {
        tokio::select! {
            frame = sender.next() => if let ServerFrame::Error { code, message, .. } = frame? {
                bail!("not sent: {code} {message}");
            },
            () = tokio::time::sleep_until(instant_at(next).into()) => {
                let message = sender.message(conversation, &stamped(next, 120));
                if sender.request(message).is_ok() {
                    reader.recorder.sent(next);
                    messages += 1;
                }
                next += every;
            }
        }
    }
    let deadline = since_start() + SETTLE_MAX;
    while reader.recorder.outstanding() > 0 && since_start() < deadline {
        if let Ok(frame) = timeout(Duration::from_millis(20), sender.next()).await {
            frame?;
        }
    }
    Ok(())
}
