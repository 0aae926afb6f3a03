//! The chat itself: lines in, events in, text out. All waiting is in one loop.
#![allow(clippy::print_stdout, reason = "a chat client prints")]

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::bail;
use talaria_client::{
    Client, Connection, Conversation, ConversationId, Direction, EntryKind, EntryView, Event, Events,
    LocalId, MemberRole, StopReason,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    args::{Args, parse_conversation},
    command::{HELP, Line, parse},
    names::Names,
};

/// Entries that `/history` shows.
const HISTORY_ENTRIES: usize = 20;
/// How long acknowledgements and `--expect` are waited for, without `--for`.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// One run of the program.
pub(crate) struct Chat {
    client: Client,
    events: Events,
    is_terminal: bool,
    names: Names,
    current: Option<Conversation>,
    /// Conversations that have been live: what this device sends there is marked, not repeated.
    caught_up: HashSet<ConversationId>,
    unacknowledged: HashSet<LocalId>,
    /// Messages of others, by conversation.
    received: HashMap<ConversationId, usize>,
    /// Last seq that was shown when a conversation was entered.
    shown: HashMap<ConversationId, u64>,
    failed: bool,
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Line,
    Quit,
}

impl Chat {
    pub(crate) fn new(client: Client, is_terminal: bool) -> Self {
        Self {
            events: client.events(),
            client,
            is_terminal,
            names: Names::default(),
            current: None,
            caught_up: HashSet::new(),
            unacknowledged: HashSet::new(),
            received: HashMap::new(),
            shown: HashMap::new(),
            failed: false,
        }
    }

    /// Opens what the command line says.
    pub(crate) async fn open(&mut self, args: &Args) -> anyhow::Result<()> {
        let opened = if let Some(user) = &args.with {
            Some(self.client.direct_with(user).await?)
        } else if let Some(title) = &args.group {
            Some(self.client.create_group(title, &args.members).await?)
        } else {
            args.conversation.map(|id| self.client.conversation(id))
        };
        if let Some(conversation) = opened {
            self.enter(conversation).await;
        }
        self.note(&self.introduction());
        Ok(())
    }

    fn introduction(&self) -> String {
        let me = self.client.me().map(|me| me.subject).unwrap_or_default();
        let over = self.over();
        match &self.current {
            Some(conversation) => {
                let id = conversation.id();
                format!("you are {me}{over}, in {} ({id})", self.names.conversation(id))
            }
            None => format!("you are {me}{over}; /with USER begins a chat, /help says more"),
        }
    }

    async fn enter(&mut self, conversation: Conversation) {
        if let Ok(states) = self.client.conversations().await {
            states.iter().for_each(|state| self.names.learn_conversation(state));
        }
        self.current = Some(conversation);
    }

    /// For the person at the terminal; a tool's output stays clean.
    fn note(&self, text: &str) {
        eprintln!("-- {text}");
    }

    // ---- the loop ----

    pub(crate) async fn run(&mut self, args: &Args) -> anyhow::Result<()> {
        let mut lines = Some(read_lines());
        let mut connection = self.client.connection();
        let mut end: Option<Instant> = None;
        loop {
            if lines.is_none() && self.is_done(args, end) {
                break;
            }
            tokio::select! {
                line = next_line(&mut lines) => match line {
                    Some(line) => {
                        if self.on_line(&line).await == Next::Quit {
                            lines = None;
                            end = Some(Instant::now() + WAIT_DEFAULT);
                            if self.is_terminal && self.unacknowledged.is_empty() {
                                break;
                            }
                        }
                    }
                    None => {
                        lines = None;
                        let wait = args.for_seconds.map_or(WAIT_DEFAULT, Duration::from_secs);
                        end = Some(Instant::now() + wait);
                    }
                },
                event = self.events.next() => match event {
                    Some(event) => self.on_event(event).await,
                    // The client has stopped; why, its state says.
                    None => {
                        let state = connection.borrow().clone();
                        self.on_connection(&state)?;
                        break;
                    }
                },
                Ok(()) = connection.changed() => {
                    let state = connection.borrow_and_update().clone();
                    self.on_connection(&state)?;
                }
                () = until(end) => break,
            }
        }
        self.verdict(args)
    }

    /// After the input's end: nothing is left to wait for.
    fn is_done(&self, args: &Args, end: Option<Instant>) -> bool {
        if end.is_some_and(|end| Instant::now() >= end) {
            return true;
        }
        let stays = args.for_seconds.is_some() && args.expect.is_none();
        self.unacknowledged.is_empty() && self.missing(args) == 0 && !stays
    }

    fn missing(&self, args: &Args) -> usize {
        let id = self.current.as_ref().map(Conversation::id);
        let received = id.and_then(|id| self.received.get(&id)).copied().unwrap_or(0);
        args.expect.unwrap_or(0).saturating_sub(received)
    }

    fn verdict(&self, args: &Args) -> anyhow::Result<()> {
        let (waiting, missing) = (self.unacknowledged.len(), self.missing(args));
        if waiting > 0 {
            bail!("{waiting} messages were not acknowledged in time: they may or may not be delivered");
        }
        if missing > 0 && !self.is_terminal {
            bail!("{missing} messages of others did not come in time");
        }
        if self.failed && !self.is_terminal {
            bail!("not everything was done, see above");
        }
        Ok(())
    }

    // ---- events ----

    async fn on_event(&mut self, event: Event) {
        match event {
            Event::Entry(entry) => self.on_entry(&entry).await,
            Event::Acknowledged(sent) => {
                if self.unacknowledged.remove(&sent.local_id) {
                    println!("✓ [{}]", sent.seq);
                }
            }
            Event::Failed { local_id, failure, .. } => {
                self.unacknowledged.remove(&local_id);
                self.fail(&failure.to_string());
            }
            Event::Conversation(state) => self.names.learn_conversation(&state),
            Event::CaughtUp { conversation, .. } => {
                self.caught_up.insert(conversation);
            }
            Event::Skipped { conversation, from, to } if self.is_current(conversation) => {
                self.note(&format!("entries {from} to {to} are left out; /history {from} shows them"));
            }
            Event::Truncated { conversation, first_seq } if self.is_current(conversation) => {
                self.note(&format!("the server keeps entries from {first_seq} on"));
            }
            Event::Rewound { conversation, first_seq, reoffered } => {
                let name = self.names.conversation(conversation);
                self.note(&format!(
                    "the server lost {name} from entry {first_seq} on; {reoffered} of your messages are sent again"
                ));
            }
            Event::Damage { conversation, seq, kind } => {
                let name = self.names.conversation(conversation);
                self.fail(&format!("the history of {name} is damaged at {seq} ({kind:?}): report this"));
            }
            Event::Skipped { .. } | Event::Truncated { .. } | Event::Missed { .. } => {}
        }
    }

    async fn on_entry(&mut self, entry: &EntryView) {
        let me = self.client.me();
        let header = entry.header.as_ref();
        let is_own = me.as_ref().zip(header).is_some_and(|(me, header)| me.user == header.sender);
        let is_from_here =
            is_own && me.zip(header).is_some_and(|(me, header)| me.device_number == header.device);
        let is_message = header.is_some_and(|header| header.kind == EntryKind::Message);
        if is_message && !is_own {
            *self.received.entry(entry.conversation).or_insert(0) += 1;
        }
        let is_live = self.caught_up.contains(&entry.conversation);
        let was_shown = self.shown.get(&entry.conversation).is_some_and(|seq| entry.seq <= *seq);
        if was_shown || (is_live && is_from_here && is_message) {
            return;
        }
        let Some(line) = self.names.line(&self.client, entry).await else { return };
        if self.is_current(entry.conversation) {
            println!("{line}");
        } else if is_live && self.is_terminal {
            println!("({}) {line}", self.names.conversation(entry.conversation));
        }
    }

    fn is_current(&self, conversation: ConversationId) -> bool {
        self.current.as_ref().is_some_and(|current| current.id() == conversation)
    }

    fn on_connection(&self, state: &Connection) -> anyhow::Result<()> {
        match state {
            Connection::Online => self.note(&format!("online{}", self.over())),
            Connection::Connecting => {}
            Connection::Backoff { until } => {
                let wait = until.saturating_duration_since(Instant::now());
                self.note(&format!(
                    "offline{}; next try in {:.1} s, what you send is kept",
                    self.client.last_failure().map_or_else(String::new, |why| format!(" ({why})")),
                    wait.as_secs_f32()
                ));
            }
            Connection::AuthRequired => bail!("the token is not valid any more: start again with a new one"),
            Connection::Stopped(StopReason::ShutDown) => {}
            Connection::Stopped(reason) => bail!("{reason}"),
        }
        Ok(())
    }

    /// What carries the connection, to be added to a line.
    fn over(&self) -> String {
        self.client.transport().map_or_else(String::new, |transport| format!(" over {transport}"))
    }

    fn fail(&mut self, text: &str) {
        self.failed = true;
        eprintln!("!! {text}");
    }

    // ---- lines ----

    async fn on_line(&mut self, line: &str) -> Next {
        let line = match parse(line) {
            Ok(Line::Quit) => return Next::Quit,
            Ok(line) => line,
            Err(error) => {
                self.fail(&error);
                return Next::Line;
            }
        };
        if let Err(error) = self.perform(line).await {
            self.fail(&format!("{error:#}"));
        }
        Next::Line
    }

    async fn perform(&mut self, line: Line) -> anyhow::Result<()> {
        match line {
            Line::Empty | Line::Quit => {}
            Line::Help => print!("{HELP}"),
            Line::List => self.list().await?,
            Line::Who => self.note(&self.introduction()),
            Line::Network(name) => {
                self.client.network_changed(name.as_deref()).await;
                self.note(&format!("in the network {}", name.as_deref().unwrap_or("without a name")));
            }
            Line::With(user) => {
                let conversation = self.client.direct_with(user).await?;
                self.switch(conversation).await?;
            }
            Line::Group(title, users) => {
                let conversation = self.client.create_group(title, users).await?;
                self.switch(conversation).await?;
            }
            Line::Open(id) => {
                let id = parse_conversation(&id).map_err(anyhow::Error::msg)?;
                self.switch(self.client.conversation(id)).await?;
            }
            Line::Say(text) => {
                let handle = self.here()?.send_text(text).await?;
                self.unacknowledged.insert(handle.local_id());
            }
            Line::Add(users) => self.here()?.add_members(users).await?,
            Line::Remove(users) => self.here()?.remove_members(users).await?,
            Line::Leave => {
                self.here()?.leave().await?;
                self.note("you left");
            }
            Line::Members => {
                for member in self.here()?.members().await? {
                    println!("{}{}", member.peer.subject, role(member.role));
                }
            }
            Line::History(from) => drop(self.history(from).await?),
        }
        Ok(())
    }

    fn here(&self) -> anyhow::Result<Conversation> {
        match &self.current {
            Some(conversation) => Ok(conversation.clone()),
            None => bail!("no conversation is open: /with USER, /group TITLE USER... or /open ID"),
        }
    }

    /// To another conversation, with its latest entries.
    async fn switch(&mut self, conversation: Conversation) -> anyhow::Result<()> {
        let id = conversation.id();
        self.enter(conversation).await;
        self.note(&self.introduction());
        let head = self.history(None).await?;
        self.shown.insert(id, head);
        Ok(())
    }

    async fn list(&mut self) -> anyhow::Result<()> {
        for state in self.client.conversations().await? {
            self.names.learn_conversation(&state);
            let left = if state.member { "" } else { " (left)" };
            let name = self.names.conversation(state.conversation);
            println!("{} {name}{left}, {} entries", state.conversation, state.head);
        }
        Ok(())
    }

    /// Shows a page; the last seq in it.
    async fn history(&mut self, from: Option<u64>) -> anyhow::Result<u64> {
        let here = self.here()?;
        let page = match from {
            Some(from) => here.history(from, Direction::Forward, HISTORY_ENTRIES).await?,
            None => here.history(0, Direction::Backward, HISTORY_ENTRIES).await?,
        };
        for entry in &page.entries {
            if let Some(line) = self.names.line(&self.client, entry).await {
                println!("{line}");
            }
        }
        if page.more {
            self.note(&format!("there are more, of {}", page.head));
        }
        Ok(page.entries.last().map_or(0, |entry| entry.seq))
    }
}

fn role(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Owner => " (owner)",
        MemberRole::Admin => " (admin)",
        MemberRole::Member => "",
    }
}

/// Lines of the standard input. A thread, since reading them cannot be cancelled; it holds one line at most.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn next_line(lines: &mut Option<mpsc::Receiver<String>>) -> Option<String> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
