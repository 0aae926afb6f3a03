//! Frames of both directions: every valid one survives its bytes, every bad field is answered as errors.md says,
//! and what travels often is small.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code)]
#[path = "support/strategies.rs"]
mod strategies;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use talaria_protocol::{
    chain::{Commitment, Leaf},
    entry::{Entry, EntryForm, EntryHeader, EntryKind, HeaderError, Urgency},
    error_code::ErrorCode,
    frame::{FrameDecoder, encode_frame},
    hlc::Hlc,
    ids::{ClientMessageId, ConversationId, UserId},
    limits,
    message::{
        Credit, Durability, RequestId,
        client::{ClientFrame, Request},
        content::{Body, Content, ContentError, Membership},
        server::{Sent, ServerFrame, encode_deliver},
    },
    wire,
};

fn payload(frame: &Bytes) -> Bytes {
    let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
    decoder.extend(frame);
    let payload = decoder.poll_frame().unwrap().expect("one frame");
    assert_eq!(decoder.buffered_bytes(), 0, "one frame only");
    payload
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn client_frames_survive_their_bytes(frame in strategies::client_frame()) {
        prop_assert_eq!(ClientFrame::parse(payload(&frame.encode())), Ok(frame));
    }

    #[test]
    fn server_frames_survive_their_bytes(frame in strategies::server_frame()) {
        prop_assert_eq!(ServerFrame::parse(payload(&frame.encode())), Ok(frame));
    }

    #[test]
    fn a_deliver_written_by_hand_is_the_generated_one(entry in strategies::entry(), id in any::<[u8; 16]>()) {
        let conversation = ConversationId::new(id);
        let generated = ServerFrame::Deliver { conversation, entry: entry.clone() }.encode();
        prop_assert_eq!(encode_deliver(conversation, &entry), generated);
        prop_assert_eq!(entry.encoded_len(), entry.to_wire().encoded_len());
        prop_assert!(entry.encoded_len() <= limits::ENTRY_BYTES_MAX);
    }

    #[test]
    fn a_header_written_by_hand_is_the_generated_one(header in strategies::any_header()) {
        let encoded = header.encode();
        prop_assert!(encoded.len() <= limits::HEADER_BYTES_MAX);
        prop_assert_eq!(wire::EntryHeader::decode(encoded.clone()).unwrap().encode_to_vec(), encoded.to_vec());
        prop_assert_eq!(EntryHeader::parse(&encoded), Ok(header));
    }

    #[test]
    fn arbitrary_payloads_are_refused_not_feared(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = ClientFrame::parse(bytes.clone());
        let _ = ServerFrame::parse(bytes.clone());
        let _ = Content::parse(&bytes);
        let _ = EntryHeader::parse(&bytes);
    }

    #[test]
    fn a_damaged_frame_is_refused_not_feared(
        frame in strategies::client_frame(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = payload(&frame.encode()).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = ClientFrame::parse(bytes.clone().into());
        let _ = ServerFrame::parse(bytes.into());
    }
}

fn frame_of(body: wire::frame::Body) -> Bytes {
    payload(&encode_frame(&wire::Frame { critical: false, body: Some(body) }))
}

fn message_id() -> ClientMessageId {
    ClientMessageId::from_parts(1_700_000_000_000, [7; 10])
}

fn good_send() -> wire::Send {
    wire::Send {
        request_id: 9,
        conversation: Bytes::from_static(&[1; 16]),
        client_message_id: message_id().to_bytes(),
        content: Content::text("hello").encode(),
        ..wire::Send::default()
    }
}

/// What the server answers to a send that was changed in one place.
fn send_refusal(change: impl FnOnce(&mut wire::Send)) -> (Option<u64>, ErrorCode) {
    let mut send = good_send();
    change(&mut send);
    let error = ClientFrame::parse(frame_of(wire::frame::Body::Send(send))).expect_err("refused");
    (error.request_id.map(RequestId::get), error.code)
}

fn raw_content(body: Option<wire::content::Body>, metadata: Vec<wire::Metadata>) -> Bytes {
    wire::Content { body, metadata }.encode_to_vec().into()
}

fn text_content(bytes: usize) -> Bytes {
    Content::text("x".repeat(bytes)).encode()
}

#[test]
fn a_bad_field_of_a_send_is_answered_with_its_request_id() {
    let invalid = (Some(9), ErrorCode::Invalid);
    let too_large = (Some(9), ErrorCode::TooLarge);
    assert!(ClientFrame::parse(frame_of(wire::frame::Body::Send(good_send()))).is_ok());
    assert_eq!(send_refusal(|send| send.conversation = Bytes::from_static(&[1; 15])), invalid);
    assert_eq!(send_refusal(|send| send.client_message_id = Bytes::from_static(&[0; 16])), invalid);
    assert_eq!(send_refusal(|send| send.after = Bytes::from_static(&[0; 16])), invalid);
    assert_eq!(send_refusal(|send| send.urgency = 3), invalid);
    // Text that is no UTF-8, field 1 of length 2.
    assert_eq!(send_refusal(|send| send.content = Bytes::from_static(&[0x0a, 2, 0xff, 0xfe])), invalid);
    assert_eq!(send_refusal(|send| send.content = Bytes::new()), invalid);
    assert_eq!(send_refusal(|send| send.content = Bytes::from_static(&[0x2a, 0])), invalid, "a newer body");
    let membership = Content::membership(Membership::default()).encode();
    assert_eq!(send_refusal(|send| send.content = membership), invalid);
    assert_eq!(send_refusal(|send| send.content = text_content(limits::BODY_BYTES_MAX + 1)), too_large);
    assert_eq!(send_refusal(|send| send.content = text_content(limits::CONTENT_BYTES_MAX)), too_large);
    assert_eq!(send_refusal(|send| send.request_id = 0), (None, ErrorCode::ProtocolViolation));
}

#[test]
fn content_is_bounded_exactly() {
    let text = |bytes| Content::parse_from_client(&text_content(bytes)).map(|_| ());
    assert_eq!(text(limits::BODY_BYTES_MAX), Ok(()));
    assert!(matches!(text(limits::BODY_BYTES_MAX + 1), Err(ContentError::TooLarge { part: "text", .. })));

    let pair =
        |key: usize, value: usize| wire::Metadata { key: "k".repeat(key), value: vec![0; value].into() };
    let with = |metadata| {
        let content = raw_content(Some(wire::content::Body::Text("t".into())), metadata);
        Content::parse(&content).map(|_| ()).map_err(ContentError::code)
    };
    assert_eq!(with(vec![pair(96, limits::METADATA_BYTES_MAX - 96)]), Ok(()));
    assert_eq!(with(vec![pair(97, limits::METADATA_BYTES_MAX - 96)]), Err(ErrorCode::TooLarge));
    assert_eq!(with(vec![pair(1, 1); limits::METADATA_PAIRS_MAX]), Ok(()));
    assert_eq!(with(vec![pair(1, 1); limits::METADATA_PAIRS_MAX + 1]), Err(ErrorCode::TooLarge));

    let blob = |content_type: usize, data: usize| {
        let blob = wire::Blob { content_type: "c".repeat(content_type), data: vec![0; data].into() };
        let content = raw_content(Some(wire::content::Body::Blob(blob)), Vec::new());
        Content::parse_from_client(&content).map(|_| ()).map_err(ContentError::code)
    };
    assert_eq!(
        blob(limits::CONTENT_TYPE_BYTES_MAX, limits::BODY_BYTES_MAX - limits::CONTENT_TYPE_BYTES_MAX),
        Ok(())
    );
    assert_eq!(blob(limits::CONTENT_TYPE_BYTES_MAX + 1, 0), Err(ErrorCode::TooLarge));
    assert_eq!(blob(1, limits::BODY_BYTES_MAX), Err(ErrorCode::TooLarge));
}

#[test]
fn other_requests_are_bounded_too() {
    use wire::{frame::Body, user_ref::By};
    let refusal = |body| {
        let error = ClientFrame::parse(frame_of(body)).expect_err("refused");
        (error.request_id.map(RequestId::get), error.code)
    };
    let subject = |bytes: usize| wire::UserRef { by: Some(By::Subject("s".repeat(bytes))) };
    let client_message_id = message_id().to_bytes();
    let group = |title: usize, members| {
        let client_message_id = client_message_id.clone();
        Body::CreateGroup(wire::CreateGroup {
            request_id: 3,
            client_message_id,
            title: "t".repeat(title),
            members,
        })
    };
    assert!(ClientFrame::parse(frame_of(group(limits::TITLE_BYTES_MAX, vec![subject(255); 100]))).is_ok());
    assert_eq!(refusal(group(limits::TITLE_BYTES_MAX + 1, Vec::new())), (Some(3), ErrorCode::TooLarge));
    assert_eq!(refusal(group(0, vec![subject(1); 101])), (Some(3), ErrorCode::TooLarge));
    assert_eq!(refusal(group(0, vec![subject(256)])), (Some(3), ErrorCode::TooLarge));
    assert_eq!(refusal(group(0, vec![subject(0)])), (Some(3), ErrorCode::Invalid));
    assert_eq!(refusal(group(0, vec![wire::UserRef { by: None }])), (Some(3), ErrorCode::Invalid));

    let conversation = Bytes::from_static(&[1; 16]);
    let add = wire::AddMembers { request_id: 4, client_message_id, conversation, users: Vec::new() };
    assert_eq!(refusal(Body::AddMembers(add)), (Some(4), ErrorCode::Invalid));
    let page = Bytes::from(vec![0; limits::PAGE_TOKEN_BYTES_MAX + 1]);
    let list = wire::ListConversations { request_id: 5, page };
    assert_eq!(refusal(Body::ListConversations(list)), (Some(5), ErrorCode::TooLarge));
    let reauth = wire::Reauth { request_id: 6, token: "t".repeat(limits::TOKEN_BYTES_MAX + 1) };
    assert_eq!(refusal(Body::Reauth(reauth)), (Some(6), ErrorCode::TooLarge));
    let history =
        wire::History { request_id: 7, conversation: vec![1; 16].into(), direction: 2, ..Default::default() };
    assert_eq!(refusal(Body::History(history)), (Some(7), ErrorCode::Invalid));
}

#[test]
fn what_names_no_request_ends_the_session() {
    use wire::frame::Body;
    let code = |payload| {
        let error = ClientFrame::parse(payload).expect_err("refused");
        assert_eq!(error.request_id, None);
        error.code
    };
    let violation = ErrorCode::ProtocolViolation;
    let cursor = |epoch, seq, chain: usize| wire::Cursor {
        conversation: Bytes::from_static(&[1; 16]),
        epoch,
        seq,
        chain: vec![0; chain].into(),
    };
    let resume = |cursors| frame_of(Body::Resume(wire::Resume { cursors }));
    assert_eq!(code(Bytes::from_static(&[0xff; 9])), violation, "no protobuf");
    assert_eq!(code(frame_of(Body::Cancel(wire::Cancel { request_id: 0 }))), violation);
    assert_eq!(code(frame_of(Body::Ack(wire::Ack::default()))), violation);
    assert_eq!(
        code(frame_of(Body::Sent(wire::Sent { request_id: 5, seq: 1, ..Default::default() }))),
        violation
    );
    assert_eq!(code(resume(vec![cursor(0, 0, 0); limits::CURSORS_PER_RESUME_MAX + 1])), violation);
    assert_eq!(code(resume(vec![cursor(1, 1, 31)])), violation);
    assert_eq!(code(resume(vec![cursor(0, 0, 32)])), violation);
    assert!(ClientFrame::parse(resume(vec![cursor(7, 1, 32)])).is_ok());

    // Field 60, of wire type 2, empty; before it `critical`.
    assert_eq!(ClientFrame::parse(Bytes::from_static(&[0xe2, 0x03, 0])), Ok(ClientFrame::Ignored));
    assert_eq!(code(Bytes::from_static(&[8, 1, 0xe2, 0x03, 0])), ErrorCode::Unsupported);
}

#[test]
fn a_bad_hello_is_refused_with_its_own_code() {
    let code = |change: fn(&mut wire::Hello)| {
        let mut hello = wire::Hello {
            protocol_min: 1,
            protocol_max: 1,
            device_id: message_id().to_bytes(),
            ..wire::Hello::default()
        };
        change(&mut hello);
        ClientFrame::parse(frame_of(wire::frame::Body::Hello(hello))).map(|_| ()).map_err(|error| error.code)
    };
    assert_eq!(code(|_| ()), Ok(()));
    assert_eq!(code(|hello| hello.protocol_min = 2), Err(ErrorCode::Invalid));
    assert_eq!(code(|hello| hello.device_id = Bytes::new()), Err(ErrorCode::Invalid));
    assert_eq!(code(|hello| hello.role = 2), Err(ErrorCode::Invalid));
    assert_eq!(code(|hello| hello.token = "t".repeat(8193)), Err(ErrorCode::TooLarge));
    assert_eq!(code(|hello| hello.tenant = "t".repeat(256)), Err(ErrorCode::TooLarge));
    assert_eq!(code(|hello| hello.capabilities = vec![1; 65]), Err(ErrorCode::TooLarge));
    let name = |hello: &mut wire::Hello| {
        hello.client = Some(wire::ClientInfo { name: "n".repeat(65), ..Default::default() });
    };
    assert_eq!(code(name), Err(ErrorCode::TooLarge));
}

#[test]
fn a_client_is_strict_with_its_server() {
    use wire::frame::Body;
    let good = EntryHeader { seq: 3, ..sample_header() }.encode();
    let full = |seq, header: &Bytes, content: &'static [u8], salt: usize, content_omitted| wire::Entry {
        seq,
        form: Some(wire::entry::Form::Full(wire::FullEntry {
            header: header.clone(),
            content: Bytes::from_static(content),
            salt: vec![0; salt].into(),
            content_omitted,
        })),
    };
    let deliver = |entry| {
        let deliver = wire::Deliver { conversation: Bytes::from_static(&[1; 16]), entry: Some(entry) };
        ServerFrame::parse(frame_of(Body::Deliver(deliver))).map(|_| ()).map_err(|error| error.message)
    };
    assert_eq!(deliver(full(3, &good, &[], 16, true)), Ok(()));
    assert_eq!(deliver(full(3, &good, &[1], 16, false)), Ok(()), "content is the engine's to judge");
    assert_eq!(deliver(full(4, &good, &[], 16, true)).unwrap_err(), "entry: seq 4 beside a header of seq 3");
    assert_eq!(deliver(full(3, &good, &[], 15, true)).unwrap_err(), "entry: a salt of 15 bytes");
    assert_eq!(
        deliver(full(3, &good, &[1], 16, true)).unwrap_err(),
        "entry: an omitted content that is there"
    );
    assert!(deliver(full(3, &Bytes::from(vec![0; 129]), &[], 16, true)).is_err());
    assert!(deliver(wire::Entry { seq: 1, form: None }).is_err());
    let hidden = |leaf: usize| {
        let leaf = vec![0; leaf].into();
        wire::Entry { seq: 1, form: Some(wire::entry::Form::Hidden(wire::HiddenEntry { leaf })) }
    };
    assert_eq!(deliver(hidden(32)), Ok(()));
    assert!(deliver(hidden(31)).is_err());
    assert_eq!(EntryHeader::parse(&Bytes::new()), Err(HeaderError::SeqZero));

    let gap = |seqs: &[u64]| {
        let entries = seqs.iter().map(|seq| wire::Entry { seq: *seq, ..hidden(32) }).collect();
        let chain_before = vec![0; 32].into();
        let page = wire::HistoryPage { request_id: 1, chain_before, entries, ..Default::default() };
        ServerFrame::parse(frame_of(Body::HistoryPage(page))).is_err()
    };
    assert!(!gap(&[4, 5, 6]) && gap(&[4, 6]) && gap(&[5, 4]) && gap(&[0, 1]));
    assert!(ServerFrame::parse(frame_of(Body::Ping(wire::Ping { nonce: 1 }))).is_err(), "a client's frame");
}

#[test]
fn what_a_client_does_not_know_of_a_newer_server_is_taken_for_a_default() {
    let state =
        wire::ConversationState { conversation: vec![1; 16].into(), kind: 77, role: 9, ..Default::default() };
    let changed = wire::Changed { conversation: Some(state) };
    assert!(ServerFrame::parse(frame_of(wire::frame::Body::Changed(changed))).is_ok());
    let content = wire::Membership {
        changes: vec![wire::MemberChange { user: vec![1; 16].into(), action: 99, ..Default::default() }],
        ..Default::default()
    };
    let content = raw_content(Some(wire::content::Body::Membership(content)), Vec::new());
    assert_eq!(Content::parse(&content).unwrap().body, Body::Unknown);
}

#[test]
fn contents_and_headers_are_slices_of_the_payload() {
    let inside = |part: &Bytes, whole: &Bytes| whole.as_ptr_range().contains(&part.as_ptr());
    let sent = frame_of(wire::frame::Body::Send(good_send()));
    let Ok(ClientFrame::Request(_, Request::Send(send))) = ClientFrame::parse(sent.clone()) else { panic!() };
    assert!(inside(&send.content, &sent));
    let delivered = payload(&encode_deliver(ConversationId::new([1; 16]), &sample_entry(200)));
    let Ok(ServerFrame::Deliver { entry, .. }) = ServerFrame::parse(delivered.clone()) else { panic!() };
    let EntryForm::Full { header, content: Some(content), .. } = entry.form else { panic!() };
    assert!(inside(&header, &delivered) && inside(&content, &delivered));
}

#[test]
fn nothing_prints_a_text_or_a_token() {
    let secret = "ATTACK AT DAWN";
    let content = Content {
        metadata: vec![(secret.into(), Bytes::from_static(secret.as_bytes()))],
        ..Content::text(secret)
    };
    let entry = Entry {
        seq: 3,
        form: EntryForm::Full {
            header: sample_header().encode(),
            content: Some(content.encode()),
            salt: [1; 16],
        },
    };
    let mut send = good_send();
    send.content = content.encode();
    let frame = ClientFrame::parse(frame_of(wire::frame::Body::Send(send))).unwrap();
    let token = wire::Reauth { request_id: 1, token: secret.into() };
    let token = ClientFrame::parse(frame_of(wire::frame::Body::Reauth(token))).unwrap();
    let printed = format!("{content:?} {entry:?} {frame:?} {token:?}");
    assert!(!printed.contains("ATTACK") && !printed.contains("65, 84, 84"), "{printed}");
}

fn sample_header() -> EntryHeader {
    EntryHeader {
        seq: 1_000_000,
        ordinal: 900_000,
        epoch: 1_790_000_000,
        hlc: Hlc::from_ms(1_790_000_000_000),
        sender: UserId::new([2; 16]),
        device: 3,
        kind: EntryKind::Message,
        target_seq: 0,
        client_message_id: message_id(),
        urgency: Urgency::Normal,
        expires_ms: 0,
    }
}

fn sample_entry(text_bytes: usize) -> Entry {
    let content = Content::text("x".repeat(text_bytes)).encode();
    Entry {
        seq: 1_000_000,
        form: EntryForm::Full { header: sample_header().encode(), content: Some(content), salt: [9; 16] },
    }
}

#[test]
fn a_deliver_of_200_bytes_costs_120_more_of_the_allowed_128() {
    let frame = encode_deliver(ConversationId::new([1; 16]), &sample_entry(200));
    assert_eq!(frame.len() - 200, 120);
}

#[test]
fn sent_ack_and_credit_cost_35_32_and_25_of_the_allowed_40() {
    let sent = ServerFrame::Sent(Sent {
        request_id: RequestId::new(u64::from(u32::MAX)).unwrap(),
        seq: 1 << 41,
        epoch: 1_790_000_000,
        hlc: Hlc::from_ms(1_790_000_000_000),
        durability: Durability::Os,
        duplicate: true,
    });
    let ack = ClientFrame::Ack { conversation: ConversationId::new([0xff; 16]), up_to: u64::MAX };
    let credit = ClientFrame::Credit(Credit { entries: u64::MAX, bytes: u64::MAX });
    assert_eq!([sent.encode().len(), ack.encode().len(), credit.encode().len()], [35, 32, 25]);
}

#[test]
fn an_own_entry_has_its_leaf_by_the_content_that_was_omitted() {
    let entry = sample_entry(5);
    let EntryForm::Full { header, content: Some(content), salt } = entry.form.clone() else { panic!() };
    let omitted =
        Entry { seq: entry.seq, form: EntryForm::Full { header: header.clone(), content: None, salt } };
    let commitment = Commitment::of(&salt, &content);
    let erased = Entry { seq: entry.seq, form: EntryForm::Erased { header: header.clone(), commitment } };
    let leaf = Leaf::of(&header, &commitment);
    assert_eq!(omitted.leaf(), None);
    assert_eq!([entry.leaf(), omitted.leaf_with(&content), erased.leaf()], [Some(leaf); 3]);
}
