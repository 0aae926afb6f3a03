//! Every limit of the protocol, with its unit in its name and the relations between them asserted at
//! compile time. The ones that a client must obey are told in `Welcome.limits` ([SES-6]).

use std::time::Duration;

/// Protocol version that this crate speaks, in `Hello.protocol_min..=protocol_max`.
pub const PROTOCOL_VERSION: u32 = 1;
/// TLS ALPN protocol name ([SES-2]).
pub const ALPN: &[u8] = b"talaria/1";
/// Default TCP port of a node.
pub const PORT_DEFAULT: u16 = 7443;

/// Length of a frame's payload, LEB128 prefix apart ([FRM-3]).
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// The same of a client's frames after `Welcome`: what a client asks for is small, and a server parses it.
pub const CLIENT_FRAME_BYTES_MAX: usize = 128 * 1024;
/// A length prefix takes at most this many bytes ([FRM-2]).
pub const FRAME_PREFIX_BYTES_MAX: usize = 4;
/// Length of a frame's payload before the session is authenticated ([FRM-4]).
pub const FRAME_BYTES_MAX_BEFORE_WELCOME: usize = 16 * 1024;

/// What an app may say in one message: text bytes, or blob bytes plus its content type ([DLV-8]).
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// All metadata of a message together, keys and values.
pub const METADATA_BYTES_MAX: usize = 4 * 1024;
/// Pairs of metadata in a message.
pub const METADATA_PAIRS_MAX: usize = 32;
/// An encoded `Content`: body, metadata and their framing.
pub const CONTENT_BYTES_MAX: usize = BODY_BYTES_MAX + METADATA_BYTES_MAX + 1024;
/// A content type of a blob.
pub const CONTENT_TYPE_BYTES_MAX: usize = 128;
/// An encoded `EntryHeader`.
pub const HEADER_BYTES_MAX: usize = 128;
/// An encoded `Entry`: header, content, salt and their framing.
pub const ENTRY_BYTES_MAX: usize = CONTENT_BYTES_MAX + HEADER_BYTES_MAX + 64;

/// A group's title.
pub const TITLE_BYTES_MAX: usize = 256;
/// A JWT subject, and a tenant's name.
pub const SUBJECT_BYTES_MAX: usize = 255;
/// A token in `Hello` or `Reauth`.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Name, version and platform of a client, each.
pub const CLIENT_INFO_BYTES_MAX: usize = 64;
/// Capabilities in `Hello`.
pub const CAPABILITIES_MAX: usize = 64;
/// A page token that the server made.
pub const PAGE_TOKEN_BYTES_MAX: usize = 64;

/// Members of a group.
pub const GROUP_MEMBERS_MAX: usize = 1_000;
/// Users named in one request.
pub const MEMBERS_PER_REQUEST_MAX: usize = 100;
/// Devices of one user.
pub const DEVICES_PER_USER_MAX: u32 = 64;

/// Requests of one session that wait for their answer ([SES-20]).
pub const REQUESTS_IN_FLIGHT_MAX: usize = 64;
/// Entries in one history page.
pub const PAGE_ENTRIES_MAX: usize = 200;
/// Entry bytes after which a page ends, the last entry included.
pub const PAGE_BYTES_MAX: usize = 72 * 1024;
/// Conversations in one page of `SyncResult` or `ConversationList`.
pub const PAGE_CONVERSATIONS_MAX: usize = 200;
/// Members in one page of `MemberList`.
pub const PAGE_MEMBERS_MAX: usize = 200;
/// Cursors in one `Resume`.
pub const CURSORS_PER_RESUME_MAX: usize = 256;

/// Entries that a client may let the server send beyond what it sent already.
pub const CREDIT_ENTRIES_MAX: u64 = 10_000;
/// Entry bytes likewise.
pub const CREDIT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// First grant of a client that follows this crate's defaults.
pub const CREDIT_ENTRIES_DEFAULT: u64 = 1_000;
/// First grant in entry bytes.
pub const CREDIT_BYTES_DEFAULT: u64 = 1024 * 1024;

/// `Hello` is complete within this time of the connection's start ([SES-3]).
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The TLS handshake is complete within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client sends something at least this often ([SES-12]).
pub const KEEPALIVE: Duration = Duration::from_secs(30);
/// Keepalive periods of silence after which a session ends.
pub const KEEPALIVE_MISSED_MAX: u32 = 2;
/// A token is renewed this long before it expires.
pub const REAUTH_AHEAD: Duration = Duration::from_secs(60);

/// A retry of a send is recognised for this long, by the time in its id ([DLV-2]).
pub const DEDUP_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);
/// An id's time is at most this far ahead of the server's clock ([DLV-3]).
pub const ID_FUTURE_MAX: Duration = Duration::from_secs(10 * 60);

const _: () = {
    assert!(CONTENT_BYTES_MAX > BODY_BYTES_MAX + METADATA_BYTES_MAX + CONTENT_TYPE_BYTES_MAX);
    assert!(ENTRY_BYTES_MAX + 64 < PAGE_BYTES_MAX);
    assert!(PAGE_BYTES_MAX + ENTRY_BYTES_MAX + 4096 <= FRAME_BYTES_MAX);
    assert!(ENTRY_BYTES_MAX as u64 <= CREDIT_BYTES_DEFAULT);
    assert!(CREDIT_BYTES_DEFAULT <= CREDIT_BYTES_MAX && CREDIT_ENTRIES_DEFAULT <= CREDIT_ENTRIES_MAX);
    assert!(TOKEN_BYTES_MAX + 2 * SUBJECT_BYTES_MAX + 1024 <= FRAME_BYTES_MAX_BEFORE_WELCOME);
    assert!(FRAME_BYTES_MAX < 1 << (7 * FRAME_PREFIX_BYTES_MAX));
    assert!(CURSORS_PER_RESUME_MAX * 80 < CLIENT_FRAME_BYTES_MAX);
    assert!(CONTENT_BYTES_MAX + 256 < CLIENT_FRAME_BYTES_MAX);
    assert!(
        MEMBERS_PER_REQUEST_MAX * (SUBJECT_BYTES_MAX + 8) + TITLE_BYTES_MAX + 256 < CLIENT_FRAME_BYTES_MAX
    );
    assert!(
        FRAME_BYTES_MAX_BEFORE_WELCOME < CLIENT_FRAME_BYTES_MAX && CLIENT_FRAME_BYTES_MAX < FRAME_BYTES_MAX
    );
    // A page of conversations, each with a title and a peer's subject of the greatest length.
    assert!(PAGE_CONVERSATIONS_MAX * (TITLE_BYTES_MAX + SUBJECT_BYTES_MAX + 160) < FRAME_BYTES_MAX);
    assert!(MEMBERS_PER_REQUEST_MAX * (SUBJECT_BYTES_MAX + 64) < BODY_BYTES_MAX);
    assert!(MEMBERS_PER_REQUEST_MAX < GROUP_MEMBERS_MAX);
    assert!(ID_FUTURE_MAX.as_secs() < DEDUP_WINDOW.as_secs());
};
