//! What to call users and conversations: learnt from members, entries and conversations as they come.

use std::collections::{HashMap, HashSet};

use talaria_client::{
    Body, Client, Content, Conversation, ConversationId, ConversationKind, ConversationState, EntryView,
    MemberAction, Membership, Peer, Shown, UserId,
};

/// Names known so far.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: HashMap<UserId, String>,
    conversations: HashMap<ConversationId, String>,
    /// Conversations whose members were asked for.
    asked: HashSet<ConversationId>,
}

impl Names {
    pub(crate) fn learn(&mut self, peer: &Peer) {
        self.users.insert(peer.user, peer.subject.clone());
    }

    pub(crate) fn learn_conversation(&mut self, state: &ConversationState) {
        let name = match (state.kind, &state.peer) {
            (ConversationKind::Direct, Some(peer)) => {
                self.learn(peer);
                peer.subject.clone()
            }
            (ConversationKind::Direct, None) => "notes to yourself".to_string(),
            (ConversationKind::Group, _) => state.title.clone(),
        };
        self.conversations.insert(state.conversation, name);
    }

    /// From entries about members.
    pub(crate) fn learn_from(&mut self, entry: &EntryView) {
        if let Shown::Content(Content { body: Body::Membership(membership), .. }) = &entry.shown {
            membership.changes.iter().for_each(|change| self.learn(&change.peer));
        }
    }

    pub(crate) fn conversation(&self, id: ConversationId) -> String {
        self.conversations.get(&id).cloned().unwrap_or_else(|| short(&id.to_string()))
    }

    /// A user's name; asks for the conversation's members when it is not known, once.
    pub(crate) async fn user(&mut self, conversation: &Conversation, user: UserId) -> String {
        if !self.users.contains_key(&user)
            && self.asked.insert(conversation.id())
            && let Ok(members) = conversation.members().await
        {
            members.iter().for_each(|member| self.learn(&member.peer));
        }
        self.users.get(&user).cloned().unwrap_or_else(|| short(&user.to_string()))
    }

    /// One line for an entry; `None` when there is nothing to show.
    pub(crate) async fn line(&mut self, client: &Client, entry: &EntryView) -> Option<String> {
        self.learn_from(entry);
        let said = match &entry.shown {
            Shown::Content(Content { body: Body::Text(text), .. }) => format!(": {text}"),
            Shown::Content(Content { body: Body::Blob { content_type, data }, .. }) => {
                format!(": <{content_type}, {} bytes>", data.len())
            }
            Shown::Content(Content { body: Body::Membership(membership), .. }) => membership_text(membership),
            Shown::Erased => ": <erased>".to_string(),
            Shown::Content(Content { body: Body::Unknown, .. }) | Shown::Unknown => {
                ": <of a newer version>".to_string()
            }
            Shown::Hidden => return None,
        };
        let sender = entry.header.as_ref()?.sender;
        let name = self.user(&client.conversation(entry.conversation), sender).await;
        Some(format!("[{}] {name}{said}", entry.seq))
    }
}

fn membership_text(membership: &Membership) -> String {
    let of = |wanted: MemberAction| {
        let changes = membership.changes.iter().filter(move |change| change.action == wanted);
        changes.map(|change| change.peer.subject.as_str()).collect::<Vec<_>>().join(", ")
    };
    if membership.created {
        return match membership.title.as_str() {
            "" => format!(" began the conversation of {}", of(MemberAction::Added)),
            title => format!(" made the group {title:?} of {}", of(MemberAction::Added)),
        };
    }
    let mut said = String::new();
    let actions = [
        (MemberAction::Added, "added"),
        (MemberAction::Removed, "removed"),
        (MemberAction::Left, "left:"),
        (MemberAction::RoleChanged, "changed the role of"),
    ];
    for (action, verb) in actions {
        let users = of(action);
        if !users.is_empty() {
            said.push_str(&format!(" {verb} {users}"));
        }
    }
    said
}

fn short(id: &str) -> String {
    format!("{}…", id.get(..8).unwrap_or(id))
}
