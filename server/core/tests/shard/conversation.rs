//! A conversation by itself: what its shard relies on.

use talaria_core::{
    conversation::{
        Admission, Admit, AppendKind, AppendRequest, Conversation, ReplyKind, Sender, Stamp, Waiter,
    },
    log::Outcome,
    peer::{AskId, ShardId},
};
use talaria_protocol::{
    entry::Urgency,
    hlc::Hlc,
    ids::{ClientMessageId, ConversationId, UserId},
    message::Peer,
};

use crate::support::requests::{id, text};

fn user(number: u8) -> Peer {
    Peer { user: UserId::new([number; 16]), subject: format!("user {number}") }
}

fn admit(conversation: &mut Conversation, number: u8, id: ClientMessageId, kind: AppendKind) -> Admission {
    let (shard, ask) = (ShardId(0), AskId(id.unix_ms()));
    conversation.admit(&Admit {
        sender: &Sender { peer: user(number), device: 1 },
        waiter: Waiter { shard, ask, user: user(number).user, reply: ReplyKind::Sent },
        request: &AppendRequest { id, after: None, kind },
        room: true,
        stamp: Stamp { hlc: Hlc::from_ms(id.unix_ms()), salt: [number; 16], boot_epoch: 1 },
    })
}

fn said(said: &str) -> AppendKind {
    AppendKind::Send { content: text(said), urgency: Urgency::Normal, expires_ms: 0 }
}

#[test]
fn what_the_log_must_say_first_bars_all_appends() {
    let mut conversation = Conversation::new(ConversationId::new([1; 16]), None, 1);
    let begun = admit(&mut conversation, 1, id(1), AppendKind::Direct(user(2)));
    assert!(matches!(begun, Admission::Append(append) if append.members.len() == 2));
    // The other is about to be a member; a third is not, and hears nothing.
    assert!(matches!(admit(&mut conversation, 2, id(2), said("a")), Admission::Park));
    assert!(matches!(admit(&mut conversation, 3, id(2), said("a")), Admission::Answer(Err(_))));
    assert!(!conversation.exists() && !conversation.is_at_rest());
    let committed = conversation.on_durable(1).expect("it was pending");
    assert!(committed.unbarred && conversation.is_at_rest());
    // Of the second user nothing is known yet: nobody appends until the log has spoken.
    let asked = admit(&mut conversation, 2, id(2), said("a"));
    assert!(matches!(asked, Admission::Lookup(ids) if ids == [id(2)]));
    assert!(matches!(admit(&mut conversation, 1, id(3), said("b")), Admission::Park));
    assert!(!conversation.is_at_rest());
    conversation.on_dedup(user(2).user, &[id(2)], None, &[]);
    assert!(matches!(admit(&mut conversation, 1, id(3), said("b")), Admission::Append(_)));
    assert!(matches!(admit(&mut conversation, 2, id(2), said("a")), Admission::Append(_)));
    assert!(conversation.on_durable(2).is_some() && conversation.on_durable(2).is_some());
    assert!(conversation.on_durable(2).is_none());
    assert_eq!(conversation.heads().head, 3);
}

#[test]
fn what_failed_is_answered_to_all_who_wait() {
    let mut conversation = Conversation::new(ConversationId::new([1; 16]), None, 1);
    admit(&mut conversation, 1, id(1), AppendKind::Direct(user(1)));
    conversation.on_durable(1);
    for number in [2, 3, 3, 4] {
        admit(&mut conversation, 1, id(number), said("a"));
    }
    let mut doubtful = Default::default();
    let released = conversation.on_failed(Outcome::Unknown, &mut doubtful, false);
    assert_eq!((released.len(), doubtful.len()), (4, 3));
    assert!(released.iter().all(|(_, answer)| answer.is_err()));
}
