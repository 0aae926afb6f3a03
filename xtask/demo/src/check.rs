//! The checker: what people saw against what the log holds, after all is over. It shares no code with the SDK's or the
//! node's bookkeeping; a message is known by the number that the play put into its metadata.

use std::collections::{HashMap, HashSet};

use talaria_protocol::ids::ConversationId;

use crate::history::{History, OpId, Shown};

/// A message as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its number.
    pub seq: u64,
    /// The message of the play; `None` for entries of other kinds.
    pub op: Option<OpId>,
    /// BLAKE3 of its text.
    pub digest: [u8; 32],
}

/// What is left when all is over.
#[derive(Debug, Default)]
pub struct Remains {
    /// Every conversation of the log, ascending.
    pub log: HashMap<ConversationId, Vec<Logged>>,
    /// What each device's store holds.
    pub stores: HashMap<(usize, ConversationId), Vec<Logged>>,
    /// Which devices belong to members of which conversation.
    pub devices: HashMap<ConversationId, Vec<usize>>,
}

/// What was found wrong. All zero: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged, but not in the log, or not on a device that should have it; said and never acknowledged, once all
    /// is quiet; refused for good.
    pub lost: u64,
    /// In the log twice, or shown twice.
    pub duplicated: u64,
    /// In another order than they were said or acknowledged in, or shown out of the log's order.
    pub reordered: u64,
    /// Other content under a seq than was said, or than the log has.
    pub altered: u64,
    /// Some of it, in words.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.altered == 0
    }

    fn note(&mut self, what: String) {
        if self.examples.len() < 20 {
            self.examples.push(what);
        }
    }
}

/// Looks at everything.
pub fn check(history: &History, remains: &Remains) -> Verdict {
    let mut verdict = Verdict::default();
    let places = places_in_log(remains, &mut verdict);
    check_ops(history, &places, &mut verdict);
    for (conversation, log) in &remains.log {
        check_order(history, *conversation, log, &mut verdict);
        for device in remains.devices.get(conversation).into_iter().flatten() {
            let empty = Vec::new();
            let shown = history.shown.get(&(*device, *conversation)).unwrap_or(&empty);
            check_shown(*conversation, *device, log, shown, &mut verdict);
            let store = remains.stores.get(&(*device, *conversation)).map_or(&[][..], Vec::as_slice);
            check_store(*conversation, *device, log, store, &mut verdict);
        }
    }
    verdict
}

type Places = HashMap<OpId, (ConversationId, Logged)>;

/// Where each message stands; density and duplicates of the log itself.
fn places_in_log(remains: &Remains, verdict: &mut Verdict) -> Places {
    let mut places = Places::new();
    for (conversation, log) in &remains.log {
        for (n, logged) in log.iter().enumerate() {
            if logged.seq != n as u64 + 1 {
                verdict.reordered += 1;
                verdict.note(format!("{conversation}: the log has seq {} at place {}", logged.seq, n + 1));
            }
            if let Some(op) = logged.op
                && let Some((_, first)) = places.insert(op, (*conversation, *logged))
            {
                verdict.duplicated += 1;
                verdict.note(format!(
                    "{conversation}: message {op} stands at {} and at {}",
                    first.seq, logged.seq
                ));
            }
        }
    }
    places
}

fn check_ops(history: &History, places: &Places, verdict: &mut Verdict) {
    for (op, said) in history.ops.iter().enumerate() {
        let op = op as OpId;
        let Some((conversation, logged)) = places.get(&op) else {
            if !said.queued {
                continue;
            }
            verdict.lost += 1;
            verdict.note(format!(
                "message {op} (acknowledged: {:?}) is not in the log",
                said.acknowledged.map(|a| a.1)
            ));
            continue;
        };
        if *conversation != said.conversation || logged.digest != said.digest {
            verdict.altered += 1;
            verdict.note(format!("message {op}: another conversation or text in the log"));
        }
        match said.acknowledged {
            None => {
                verdict.lost += 1;
                verdict.note(format!("message {op} was never acknowledged"));
            }
            Some((_, seq)) if seq != 0 && seq != logged.seq => {
                verdict.lost += 1;
                verdict.note(format!(
                    "message {op} was acknowledged as {seq}, the log has it at {}",
                    logged.seq
                ));
            }
            Some(_) => {}
        }
    }
    for (op, why) in &history.failed {
        verdict.lost += 1;
        verdict.note(format!("message {op} was given up: {why}"));
    }
}

/// The order of the log is the order in which each device spoke, and respects real time: no message stands after one
/// that was said only when the first had been acknowledged already.
fn check_order(history: &History, conversation: ConversationId, log: &[Logged], verdict: &mut Verdict) {
    let mut last_of_device: HashMap<usize, OpId> = HashMap::new();
    let mut first_end = None;
    for logged in log.iter().rev() {
        let Some(said) = logged.op.and_then(|op| history.ops.get(op as usize)) else { continue };
        if first_end.is_some_and(|end| end < said.invoked) {
            verdict.reordered += 1;
            verdict.note(format!(
                "{conversation}: seq {} was said after a later one was acknowledged",
                logged.seq
            ));
        }
        // A time of which the seq is unknown was noticed late, at a restart: it proves nothing.
        if let Some((end, seq)) = said.acknowledged
            && seq != 0
        {
            first_end = Some(first_end.map_or(end, |first: std::time::Instant| first.min(end)));
        }
    }
    for logged in log {
        let Some(op) = logged.op else { continue };
        let Some(said) = history.ops.get(op as usize) else { continue };
        if last_of_device.insert(said.device, op).is_some_and(|before| before > op) {
            verdict.reordered += 1;
            verdict.note(format!("{conversation}: seq {} overtook an earlier one of its device", logged.seq));
        }
    }
}

/// A device showed every entry once, in order, as the log has it.
fn check_shown(
    conversation: ConversationId,
    device: usize,
    log: &[Logged],
    shown: &[Shown],
    verdict: &mut Verdict,
) {
    let mut seen = HashSet::new();
    let mut last = 0;
    for entry in shown {
        if !seen.insert(entry.seq) {
            verdict.duplicated += 1;
            verdict.note(format!("{conversation}: device {device} showed {} twice", entry.seq));
        } else if entry.seq < last {
            verdict.reordered += 1;
            verdict.note(format!("{conversation}: device {device} showed {} after {last}", entry.seq));
        }
        last = last.max(entry.seq);
        let logged = usize::try_from(entry.seq).ok().and_then(|seq| log.get(seq.wrapping_sub(1)));
        if logged.is_none_or(|logged| logged.op != entry.op || logged.digest != entry.digest) {
            verdict.altered += 1;
            verdict.note(format!("{conversation}: device {device} showed another entry at {}", entry.seq));
        }
    }
    for logged in log.iter().filter(|logged| !seen.contains(&logged.seq)) {
        verdict.lost += 1;
        verdict.note(format!("{conversation}: device {device} never showed {}", logged.seq));
    }
}

/// A device's store is a copy of the log.
fn check_store(
    conversation: ConversationId,
    device: usize,
    log: &[Logged],
    store: &[Logged],
    verdict: &mut Verdict,
) {
    let held: HashMap<u64, &Logged> = store.iter().map(|logged| (logged.seq, logged)).collect();
    verdict.duplicated += (store.len() - held.len()) as u64;
    for logged in log {
        match held.get(&logged.seq) {
            None => {
                verdict.lost += 1;
                verdict.note(format!("{conversation}: device {device} does not hold {}", logged.seq));
            }
            Some(held) if *held != logged => {
                verdict.altered += 1;
                verdict
                    .note(format!("{conversation}: device {device} holds another entry at {}", logged.seq));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHERE: ConversationId = ConversationId::new([1; 16]);

    fn logged(seq: u64, op: OpId, text: &str) -> Logged {
        Logged { seq, op: Some(op), digest: *blake3::hash(text.as_bytes()).as_bytes() }
    }

    /// Two messages of device 0, acknowledged, shown and held by devices 0 and 1.
    fn good() -> (History, Remains) {
        let mut history = History::default();
        let log = vec![logged(1, 0, "a"), logged(2, 1, "b")];
        for (op, text) in ["a", "b"].into_iter().enumerate() {
            let id = history.invoke(WHERE, 0, text);
            history.queued(id, 0, op as u64);
            history.acknowledge(0, op as u64, op as u64 + 1);
        }
        let mut remains = Remains::default();
        remains.devices.insert(WHERE, vec![0, 1]);
        for device in 0..2 {
            for entry in &log {
                history.show(device, WHERE, Shown { seq: entry.seq, op: entry.op, digest: entry.digest });
            }
            remains.stores.insert((device, WHERE), log.clone());
        }
        remains.log.insert(WHERE, log);
        (history, remains)
    }

    fn judged(change: impl FnOnce(&mut History, &mut Vec<Logged>, &mut Vec<Logged>)) -> Verdict {
        let (mut history, mut remains) = good();
        let mut log = remains.log.remove(&WHERE).unwrap_or_default();
        let mut store = remains.stores.remove(&(1, WHERE)).unwrap_or_default();
        change(&mut history, &mut log, &mut store);
        remains.log.insert(WHERE, log);
        remains.stores.insert((1, WHERE), store);
        check(&history, &remains)
    }

    #[test]
    fn nothing_is_wrong_with_a_good_run() {
        assert!(judged(|_, _, _| {}).is_good());
    }

    #[test]
    fn each_breach_is_found() {
        assert!(judged(|_, log, _| log.truncate(1)).lost > 0, "acknowledged, not in the log");
        assert!(judged(|_, _, store| store.truncate(1)).lost > 0, "not on a device");
        assert!(
            judged(|history, _, _| {
                let op = history.invoke(WHERE, 0, "c");
                history.queued(op, 0, 7);
            })
            .lost
                > 0,
            "never acknowledged"
        );
        assert!(judged(|_, log, _| log.push(logged(3, 1, "b"))).duplicated > 0, "twice in the log");
        assert!(judged(|_, log, _| log[0] = logged(1, 0, "x")).altered > 0, "other text");
        let swapped = judged(|_, log, _| *log = vec![logged(1, 1, "b"), logged(2, 0, "a")]);
        assert!(swapped.reordered > 0, "in another order");
        let again = Shown { seq: 1, op: Some(0), digest: logged(1, 0, "a").digest };
        let twice = judged(|history, _, _| {
            history.show(1, WHERE, again);
        });
        assert!(twice.duplicated > 0, "shown twice");
    }
}
