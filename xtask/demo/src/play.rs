//! The play: conversations are made, dialogues run in all of them at once, and trouble is made meanwhile. It ends when
//! everything was said, everybody has everything, and the node was stopped.

use std::{
    cell::RefCell,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use talaria_client::ConversationId;

use crate::{
    cast::{self, Plan, USERS},
    check::{self, Remains},
    device::{Account, Device, Stage, WrapStore},
    history::History,
    node::{Node, NodeConfig},
    remains,
    report::{Kill, Report, SdkCounts, Troubles},
    script,
};

/// How a run is to be.
#[derive(Clone, Debug)]
pub struct PlayConfig {
    /// Of the trouble, and of who says what where.
    pub seed: u64,
    /// Messages to be said, all conversations together.
    pub messages: usize,
    /// Kills of the node.
    pub kills: usize,
    /// The node.
    pub node: NodeConfig,
    /// The `talaria` binary, for tokens.
    pub talaria: PathBuf,
    /// Of the devices' stores.
    pub wrap: WrapStore,
}

/// Everything must be quiet within this time after the last message was said.
const HEAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Without an acknowledgement for so long, the play is over.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A kill waits for at least so many sends in flight.
const IN_FLIGHT_AT_KILL: usize = 8;
/// A cut connection or a killed app comes after so many messages.
const TROUBLE_EVERY: usize = 200;
/// Or more often, so that a short play has this many.
const TROUBLES_MIN: usize = 20;
/// Dialogues that go on in each conversation at once.
const DIALOGUES_EACH: usize = 3;
/// A kill comes at a moment of its own within this time, so that it hits the node in whatever it does.
const KILL_WITHIN_US: usize = 4_000;
/// A speaker says at most so many lines before another one answers.
const LINES_MAX: usize = 6;

/// A conversation of the play.
struct Scene {
    id: ConversationId,
    /// Devices of each member, in the order of the plan.
    members: Vec<Vec<Rc<Device>>>,
    messages: usize,
    start: usize,
}

impl Scene {
    /// One of the dialogues that go on in it.
    fn part(&self, part: usize) -> Self {
        let messages = self.messages * (part + 1) / DIALOGUES_EACH - self.messages * part / DIALOGUES_EACH;
        Self { id: self.id, members: self.members.clone(), messages, start: self.start + part }
    }
}

/// A small generator of numbers: the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides.max(1) as u64) as usize
    }
}

/// Runs the play and checks it.
///
/// # Errors
/// What kept it from being played; what it found wrong is in the report.
pub async fn run(config: PlayConfig, progress: ProgressBar) -> anyhow::Result<Report> {
    let node = config.node.start("127.0.0.1:0", 0)?;
    let stage = Rc::new(Stage {
        history: RefCell::new(History::default()),
        latency_us: RefCell::new(hdrhistogram::Histogram::new(3)?),
        troubles: RefCell::default(),
    });
    let devices = start_devices(&config, &node, &stage).await?;
    let scenes = make_conversations(&config, &devices).await?;
    progress.set_length(config.messages as u64);
    progress
        .set_style(ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} acknowledged, {elapsed}")?);
    let begun = Instant::now();
    let plans: Vec<(ConversationId, Vec<usize>)> = scenes
        .iter()
        .map(|scene| (scene.id, scene.members.iter().flatten().map(|device| device.index).collect()))
        .collect();
    let mut dialogues = begin(&config, &scenes);
    let troubles = tokio::task::spawn_local(trouble(
        Rc::clone(&stage),
        devices.clone(),
        Dice(config.seed),
        config.messages,
    ));
    let (kills, node) = kill_repeatedly(&config, node, &stage, &progress).await?;
    progress.set_message("the rest");
    until(&stage, &progress, |history| history.queued_all(config.messages) && history.in_flight() == 0).await;
    dialogues.shutdown().await;
    let troubles = end_trouble(troubles, &devices).await?;
    progress.set_message("healing");
    heal(&stage, &devices, &plans, &progress).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let shown = stage.history.borrow().entries_shown();
    let sdk = end_devices(&devices).await?;
    let not_shown = (stage.history.borrow().entries_shown() - shown) as u64;
    let shards = node.metric("talaria_shards")? as u64;
    let misrouted = node.metric("talaria_quic_misrouted_total")? as u64;
    node.stop()?;
    progress.finish_and_clear();
    let report = judge(&config, &stage, &devices, &plans)?;
    Ok(Report { kills, troubles, sdk, seconds, not_shown, shards, misrouted, ..report })
}

/// Dialogues in all conversations at once.
fn begin(config: &PlayConfig, scenes: &[Scene]) -> tokio::task::JoinSet<()> {
    let mut dialogues = tokio::task::JoinSet::new();
    for (n, scene) in scenes.iter().enumerate() {
        for part in 0..DIALOGUES_EACH {
            let number = (n * DIALOGUES_EACH + part) as u64;
            let dice = Dice(config.seed.wrapping_mul(1_000_003).wrapping_add(number));
            dialogues.spawn_local(dialogue(scene.part(part), dice));
        }
    }
    dialogues
}

/// Kills the node in the middle of sends, and starts it again, as often as asked; less often when something went wrong.
async fn kill_repeatedly(
    config: &PlayConfig,
    mut node: Node,
    stage: &Stage,
    progress: &ProgressBar,
) -> anyhow::Result<(Vec<Kill>, Node)> {
    let (mut kills, mut dice) = (Vec::new(), Dice(!config.seed));
    for n in 0..config.kills {
        let due = config.messages * (n + 1) / (config.kills + 1);
        let is_time =
            |history: &History| history.acknowledged() >= due && history.in_flight() >= IN_FLIGHT_AT_KILL;
        if !until(stage, progress, is_time).await {
            break;
        }
        progress.set_message(format!("kill {} of {}", n + 1, config.kills));
        let address = node.address.clone();
        let delay = Duration::from_micros(dice.roll(KILL_WITHIN_US) as u64);
        let killed = tokio::task::spawn_blocking(move || {
            std::thread::sleep(delay);
            node.kill()
        });
        let bytes_lost = killed.await??;
        let (in_flight, acknowledged) = {
            let history = stage.history.borrow();
            (history.in_flight(), history.acknowledged())
        };
        kills.push(Kill { in_flight, acknowledged, bytes_lost });
        node = config.node.start(&address, n as u64 + 1).context("the node after a kill")?;
    }
    Ok((kills, node))
}

async fn start_devices(
    config: &PlayConfig,
    node: &Node,
    stage: &Rc<Stage>,
) -> anyhow::Result<Vec<Rc<Device>>> {
    let tokens: Vec<String> =
        USERS.iter().map(|user| config.node.token(&config.talaria, user)).collect::<anyhow::Result<_>>()?;
    let mut devices = Vec::new();
    for (index, role) in cast::devices().into_iter().enumerate() {
        let account =
            Account { server: node.address.clone(), ca: config.node.ca(), token: tokens[role.user].clone() };
        let device = Device::new(index, role, account, config.wrap, Rc::clone(stage));
        device.start().await?;
        devices.push(device);
    }
    for device in &devices {
        let client = device.client().context("just started")?;
        if !tokio::time::timeout(Duration::from_secs(20), client.online()).await.unwrap_or(false) {
            bail!("{} did not get online", device.role.name());
        }
    }
    Ok(devices)
}

async fn make_conversations(config: &PlayConfig, devices: &[Rc<Device>]) -> anyhow::Result<Vec<Scene>> {
    let of_user = |user: usize| -> Vec<Rc<Device>> {
        devices.iter().filter(|device| device.role.user == user).cloned().collect()
    };
    let plans = cast::conversations();
    let mut scenes = Vec::new();
    for (n, plan) in plans.iter().enumerate() {
        let members: Vec<Vec<Rc<Device>>> = plan.members().into_iter().map(of_user).collect();
        let maker = members[0][0].client().context("an app that runs")?;
        let conversation = match plan {
            Plan::Direct(_, other) => maker.direct_with(USERS[*other]).await?,
            Plan::Group(title, users) => {
                maker.create_group(*title, users[1..].iter().map(|user| USERS[*user])).await?
            }
        };
        let messages = config.messages * (n + 1) / plans.len() - config.messages * n / plans.len();
        let start = n + config.seed as usize % 7;
        scenes.push(Scene { id: conversation.id(), members, messages, start });
    }
    Ok(scenes)
}

/// Speakers take turns: who is next answers when a device of theirs has shown the line before.
async fn dialogue(scene: Scene, mut dice: Dice) {
    let mut lines = script::dialogue(scene.members.len(), scene.start).take(scene.messages).peekable();
    let mut last = None;
    while let Some(line) = lines.next() {
        let devices = &scene.members[line.speaker];
        let device = &devices[dice.roll(devices.len())];
        if let Some(op) = last {
            device.has_seen(op).await;
        }
        let speaker = line.speaker;
        let mut speech = vec![line];
        while speech.len() < LINES_MAX
            && let Some(line) = lines.next_if(|next| next.speaker == speaker)
        {
            speech.push(line);
        }
        for line in speech {
            last = Some(device.say(scene.id, line.text).await);
        }
    }
}

/// Cuts connections, changes networks and kills apps, evenly over the play and only where a send is on its way, until it is aborted. What
/// it did is counted by the devices.
async fn trouble(
    stage: Rc<Stage>,
    devices: Vec<Rc<Device>>,
    mut dice: Dice,
    messages: usize,
) -> anyhow::Result<()> {
    let every = TROUBLE_EVERY.min(messages / TROUBLES_MIN).max(1);
    for n in 1.. {
        let due = every * n;
        while stage.history.borrow().acknowledged() < due {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let device = speaker(&devices, &mut dice).await;
        match dice.roll(4) {
            0 => device.restart().await?,
            1 => device.cut().await,
            _ => device.change_network().await,
        }
    }
    Ok(())
}

/// One of the devices that are online and have a send in flight, as soon as there are any.
async fn speaker(devices: &[Rc<Device>], dice: &mut Dice) -> Rc<Device> {
    loop {
        let speaking: Vec<&Rc<Device>> = devices.iter().filter(|device| device.is_speaking()).collect();
        if !speaking.is_empty() {
            return Rc::clone(speaking[dice.roll(speaking.len())]);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn end_trouble(
    troubles: tokio::task::JoinHandle<anyhow::Result<()>>,
    devices: &[Rc<Device>],
) -> anyhow::Result<Troubles> {
    if troubles.is_finished() {
        troubles.await??;
    } else {
        troubles.abort();
        let _ = troubles.await;
    }
    for device in devices {
        if device.client().is_none() {
            device.start().await?;
        }
    }
    let sum = |of: fn(&Device) -> u64| devices.iter().map(|device| of(device)).sum();
    Ok(Troubles {
        cuts: sum(|device| device.cuts.get()),
        moves: sum(|device| device.moves.get()),
        app_kills: sum(|device| device.kills.get()),
    })
}

/// Until it is so. `false`: it will not be, since something went wrong already, or nothing is acknowledged any more.
async fn until(stage: &Stage, progress: &ProgressBar, is_so: impl Fn(&History) -> bool) -> bool {
    let mut last = (Instant::now(), 0);
    loop {
        let acknowledged = {
            let history = stage.history.borrow();
            if is_so(&history) {
                return true;
            }
            history.acknowledged()
        };
        progress.set_position(acknowledged as u64);
        if acknowledged > last.1 {
            last = (Instant::now(), acknowledged);
        } else if last.0.elapsed() > STALL_TIMEOUT {
            stage.troubles.borrow_mut().push(format!("nothing was acknowledged for {STALL_TIMEOUT:?}"));
        }
        if !stage.troubles.borrow().is_empty() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Until everything was acknowledged, and every device has shown the last message of each of its conversations.
async fn heal(
    stage: &Stage,
    devices: &[Rc<Device>],
    plans: &[(ConversationId, Vec<usize>)],
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + HEAL_TIMEOUT;
    let is_quiet = || {
        let history = stage.history.borrow();
        progress.set_position(history.acknowledged() as u64);
        history.in_flight() == 0
            && plans.iter().all(|(id, members)| {
                let of = |device: &usize| history.last_shown(*device, *id);
                let head = members.iter().map(of).max().unwrap_or(0);
                members.iter().all(|device| of(device) == head)
            })
    };
    while !is_quiet() {
        if Instant::now() > deadline {
            let names: Vec<String> = devices.iter().map(|device| device.role.name()).collect();
            stage
                .troubles
                .borrow_mut()
                .push(format!("not quiet after {HEAL_TIMEOUT:?}; devices: {}", names.join(", ")));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn end_devices(devices: &[Rc<Device>]) -> anyhow::Result<SdkCounts> {
    let mut sum = SdkCounts::default();
    for device in devices {
        device.kill().await?;
        let counts = device.counts();
        sum.dedup_hits += counts.dedup_hits;
        sum.resumes += counts.resumes.saturating_sub(1);
        sum.duplicates_dropped += counts.duplicates_dropped;
        sum.chain_mismatches += counts.chain_mismatches;
        sum.rewinds += counts.rewinds;
    }
    Ok(sum)
}

/// What is left against what was said.
fn judge(
    config: &PlayConfig,
    stage: &Stage,
    devices: &[Rc<Device>],
    plans: &[(ConversationId, Vec<usize>)],
) -> anyhow::Result<Report> {
    let findings = remains::log_verify(&config.talaria, &config.node.data_dir)?;
    let log = remains::read_log(&config.node.data_dir)?;
    let counts = (log.len() as u64, log.values().map(|entries| entries.len() as u64).sum());
    let mut remains = Remains { log, ..Remains::default() };
    for (id, members) in plans {
        remains.log.entry(*id).or_default();
        for device in members {
            remains.stores.insert((*device, *id), remains::read_store(&*devices[*device].store, *id)?);
        }
        remains.devices.insert(*id, members.clone());
    }
    let history = stage.history.borrow();
    let verdict = check::check(&history, &remains);
    let shown = |index: usize| {
        history.shown.iter().filter(move |((device, _), _)| *device == index).map(|(_, list)| list.len())
    };
    let name = |device: &Device| {
        format!("{} ({:?})", device.role.name(), cast::transport(device.index)).to_lowercase()
    };
    Ok(Report {
        seed: config.seed,
        power_cut: config.node.power_cut.is_some(),
        asked: (config.messages, config.kills),
        mishaps: stage.troubles.borrow().iter().take(20).cloned().collect(),
        not_shown: 0,
        messages: history.ops.len(),
        acknowledged: history.acknowledged(),
        kills: vec![],
        troubles: Troubles::default(),
        shards: 0,
        misrouted: 0,
        sdk: SdkCounts::default(),
        delivered: devices.iter().map(|device| (name(device), shown(device.index).sum())).collect(),
        verdict,
        log: (counts.0, counts.1, findings),
        latency_us: stage.latency_us.borrow().clone(),
        seconds: 0.0,
    })
}

/// [`run`] on a runtime of its own.
///
/// # Errors
/// Those of [`run`].
pub fn run_alone(config: PlayConfig, progress: ProgressBar) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(config, progress))
}
