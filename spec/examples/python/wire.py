"""Frames and messages: a protobuf codec for the messages of talaria/v1/wire.proto, table by table.

A message is a dict from field name to value; a field that is absent has its default. `encode` writes fields in the
order of their numbers and leaves defaults out, save in a oneof; `decode` skips fields that it does not know.
Clauses: spec/frame.md.
"""

FRAME_BYTES_MAX = 1024 * 1024
FRAME_BYTES_MAX_BEFORE_WELCOME = 16 * 1024
FRAME_PREFIX_BYTES_MAX = 4


class WireError(Exception):
    """Bytes that are no frame or no message."""


# name: {number: (field, type)}. Types: uint, bool, fixed64, bytes, string, or a message; `*` repeated, `?` in a oneof.
MESSAGES = {
    "Frame": {
        1: ("critical", "bool"),
        2: ("deliver", "Deliver?"),
        3: ("send", "Send?"),
        4: ("sent", "Sent?"),
        5: ("ack", "Ack?"),
        6: ("credit", "Credit?"),
        7: ("error", "Error?"),
        8: ("ping", "Ping?"),
        9: ("pong", "Pong?"),
        16: ("hello", "Hello?"),
        17: ("welcome", "Welcome?"),
        18: ("refused", "Refused?"),
        19: ("reauth", "Reauth?"),
        20: ("reauthed", "Reauthed?"),
        21: ("logout", "Logout?"),
        22: ("go_away", "GoAway?"),
        23: ("cancel", "Cancel?"),
        24: ("sync", "Sync?"),
        25: ("sync_result", "SyncResult?"),
        26: ("resume", "Resume?"),
        27: ("changed", "Changed?"),
        28: ("skipped", "Skipped?"),
        29: ("truncated", "Truncated?"),
        30: ("epoch_changed", "EpochChanged?"),
        31: ("caught_up", "CaughtUp?"),
        40: ("direct_with", "DirectWith?"),
        41: ("create_group", "CreateGroup?"),
        42: ("add_members", "ChangeMembers?"),
        43: ("remove_members", "ChangeMembers?"),
        44: ("leave", "Leave?"),
        45: ("list_conversations", "ListConversations?"),
        46: ("list_members", "ListMembers?"),
        47: ("history", "History?"),
        48: ("conversation_result", "ConversationResult?"),
        49: ("conversation_list", "ConversationList?"),
        50: ("member_list", "MemberList?"),
        51: ("history_page", "HistoryPage?"),
    },
    "Hello": {
        1: ("protocol_min", "uint"),
        2: ("protocol_max", "uint"),
        3: ("tenant", "string"),
        4: ("token", "string"),
        5: ("device_id", "bytes"),
        6: ("role", "uint"),
        7: ("client", "ClientInfo"),
        8: ("capabilities", "uint*"),
        9: ("credit", "Credit"),
        10: ("client_state", "ClientState"),
    },
    "ClientInfo": {1: ("name", "string"), 2: ("version", "string"), 3: ("platform", "string")},
    "ClientState": {1: ("background", "bool")},
    "Welcome": {
        1: ("session_id", "bytes"),
        2: ("user_id", "bytes"),
        3: ("device_number", "uint"),
        4: ("protocol", "uint"),
        5: ("limits", "Limits"),
        6: ("keepalive_ms", "uint"),
        7: ("hlc", "fixed64"),
        8: ("node", "string"),
        9: ("token_expires_ms", "uint"),
        10: ("durability", "uint"),
        11: ("subject", "string"),
    },
    "Limits": {
        1: ("frame_bytes_max", "uint"),
        2: ("content_bytes_max", "uint"),
        3: ("requests_in_flight_max", "uint"),
        4: ("group_members_max", "uint"),
        5: ("page_entries_max", "uint"),
        6: ("members_per_request_max", "uint"),
        7: ("dedup_window_ms", "uint"),
        8: ("id_future_ms_max", "uint"),
        9: ("title_bytes_max", "uint"),
        10: ("credit_entries_max", "uint"),
        11: ("credit_bytes_max", "uint"),
        12: ("cursors_per_resume_max", "uint"),
        13: ("client_frame_bytes_max", "uint"),
    },
    "Refused": {
        1: ("code", "uint"),
        2: ("message", "string"),
        3: ("retry_after_ms", "uint"),
        4: ("redirect", "string"),
    },
    "Reauth": {1: ("request_id", "uint"), 2: ("token", "string")},
    "Reauthed": {1: ("request_id", "uint"), 2: ("token_expires_ms", "uint")},
    "Logout": {},
    "GoAway": {
        1: ("code", "uint"),
        2: ("message", "string"),
        3: ("redirect", "string"),
        4: ("reconnect_after_ms", "uint"),
    },
    "Ping": {1: ("nonce", "uint")},
    "Pong": {1: ("nonce", "uint"), 2: ("hlc", "fixed64")},
    "Cancel": {1: ("request_id", "uint")},
    "Error": {
        1: ("request_id", "uint"),
        2: ("code", "uint"),
        3: ("message", "string"),
        4: ("retry_after_ms", "uint"),
        5: ("conversation", "bytes"),
    },
    "Send": {
        1: ("request_id", "uint"),
        2: ("conversation", "bytes"),
        3: ("client_message_id", "bytes"),
        4: ("content", "bytes"),
        5: ("after", "bytes"),
        6: ("seen", "uint"),
        7: ("urgency", "uint"),
        8: ("expires_ms", "uint"),
    },
    "Sent": {
        1: ("request_id", "uint"),
        2: ("seq", "uint"),
        3: ("epoch", "uint"),
        4: ("hlc", "fixed64"),
        5: ("durability", "uint"),
        6: ("duplicate", "bool"),
    },
    "Content": {
        1: ("text", "string?"),
        2: ("blob", "Blob?"),
        3: ("membership", "Membership?"),
        4: ("metadata", "Metadata*"),
    },
    "Metadata": {1: ("key", "string"), 2: ("value", "bytes")},
    "Blob": {1: ("content_type", "string"), 2: ("data", "bytes")},
    "MemberChange": {
        1: ("user", "bytes"),
        2: ("subject", "string"),
        3: ("action", "uint"),
        4: ("role", "uint"),
    },
    "Membership": {1: ("created", "bool"), 2: ("title", "string"), 3: ("changes", "MemberChange*")},
    "EntryHeader": {
        1: ("seq", "uint"),
        2: ("ordinal", "uint"),
        3: ("epoch", "uint"),
        4: ("hlc", "fixed64"),
        5: ("sender", "bytes"),
        6: ("device", "uint"),
        7: ("kind", "uint"),
        8: ("target_seq", "uint"),
        9: ("client_message_id", "bytes"),
        10: ("urgency", "uint"),
        11: ("expires_ms", "uint"),
    },
    "Entry": {1: ("seq", "uint"), 2: ("full", "FullEntry?"), 3: ("erased", "ErasedEntry?"), 4: ("hidden", "HiddenEntry?")},
    "FullEntry": {
        1: ("header", "bytes"),
        2: ("content", "bytes"),
        3: ("salt", "bytes"),
        4: ("content_omitted", "bool"),
    },
    "ErasedEntry": {1: ("header", "bytes"), 2: ("commitment", "bytes")},
    "HiddenEntry": {1: ("leaf", "bytes")},
    # An entry is left encoded here: its length counts against the credit. [DLV-24]
    "Deliver": {1: ("conversation", "bytes"), 2: ("entry", "encoded")},
    "Ack": {1: ("conversation", "bytes"), 2: ("up_to", "uint")},
    "Credit": {1: ("entries", "uint"), 2: ("bytes", "uint")},
    "Cursor": {
        1: ("conversation", "bytes"),
        2: ("epoch", "uint"),
        3: ("seq", "uint"),
        4: ("chain", "bytes"),
    },
    "SyncToken": {1: ("boot_id", "bytes"), 2: ("commit", "uint")},
    "Sync": {1: ("request_id", "uint"), 2: ("token", "SyncToken"), 3: ("page", "bytes")},
    "SyncResult": {
        1: ("request_id", "uint"),
        2: ("token", "SyncToken"),
        3: ("reset", "bool"),
        4: ("conversations", "ConversationState*"),
        5: ("next_page", "bytes"),
    },
    "Resume": {1: ("cursors", "Cursor*")},
    "CaughtUp": {1: ("conversation", "bytes"), 2: ("head", "uint"), 3: ("chain", "bytes")},
    "Changed": {1: ("conversation", "ConversationState")},
    "Skipped": {
        1: ("conversation", "bytes"),
        2: ("from", "uint"),
        3: ("to", "uint"),
        4: ("chain", "bytes"),
    },
    "Truncated": {1: ("conversation", "bytes"), 2: ("first_seq", "uint"), 3: ("chain", "bytes")},
    "EpochChanged": {
        1: ("conversation", "bytes"),
        2: ("first_seq", "uint"),
        3: ("chain", "bytes"),
        4: ("epoch", "uint"),
    },
    "ConversationState": {
        1: ("conversation", "bytes"),
        2: ("kind", "uint"),
        3: ("title", "string"),
        4: ("head", "uint"),
        5: ("epoch", "uint"),
        6: ("first_seq", "uint"),
        7: ("hlc", "fixed64"),
        8: ("member", "bool"),
        9: ("role", "uint"),
        10: ("peer", "Peer"),
    },
    "Peer": {1: ("user", "bytes"), 2: ("subject", "string")},
    "UserRef": {1: ("id", "bytes?"), 2: ("subject", "string?")},
    "DirectWith": {1: ("request_id", "uint"), 2: ("user", "UserRef"), 3: ("client_message_id", "bytes")},
    "CreateGroup": {
        1: ("request_id", "uint"),
        2: ("client_message_id", "bytes"),
        3: ("title", "string"),
        4: ("members", "UserRef*"),
    },
    # AddMembers and RemoveMembers have the same fields.
    "ChangeMembers": {
        1: ("request_id", "uint"),
        2: ("client_message_id", "bytes"),
        3: ("conversation", "bytes"),
        4: ("users", "UserRef*"),
    },
    "Leave": {1: ("request_id", "uint"), 2: ("client_message_id", "bytes"), 3: ("conversation", "bytes")},
    "ConversationResult": {
        1: ("request_id", "uint"),
        2: ("conversation", "ConversationState"),
        3: ("seq", "uint"),
        4: ("duplicate", "bool"),
    },
    "ListConversations": {1: ("request_id", "uint"), 2: ("page", "bytes")},
    "ConversationList": {
        1: ("request_id", "uint"),
        2: ("conversations", "ConversationState*"),
        3: ("next_page", "bytes"),
    },
    "ListMembers": {1: ("request_id", "uint"), 2: ("conversation", "bytes"), 3: ("page", "bytes")},
    "MemberList": {1: ("request_id", "uint"), 2: ("members", "Member*"), 3: ("next_page", "bytes")},
    "Member": {1: ("user", "bytes"), 2: ("subject", "string"), 3: ("role", "uint"), 4: ("joined_seq", "uint")},
    "History": {
        1: ("request_id", "uint"),
        2: ("conversation", "bytes"),
        3: ("from", "uint"),
        4: ("direction", "uint"),
        5: ("entries_max", "uint"),
    },
    "HistoryPage": {
        1: ("request_id", "uint"),
        2: ("chain_before", "bytes"),
        3: ("entries", "encoded*"),
        4: ("first_seq", "uint"),
        5: ("head", "uint"),
        6: ("more", "bool"),
    },
}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEPTH_MAX = 20


def put_varint(value):
    """LEB128 of an unsigned integer, in the fewest bytes."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(data, at):
    """(value, where it ended)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError("a varint is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise WireError("a varint is beyond 64 bits")
            return value, at
    raise WireError("a varint is longer than 10 bytes")


def _value(kind, value):
    """(wire type, bytes after the tag) of one value."""
    if kind in ("uint", "bool"):
        return _VARINT, put_varint(int(value))
    if kind == "fixed64":
        return _FIXED64, value.to_bytes(8, "little")
    if kind == "string":
        value = value.encode()
    elif kind not in ("bytes", "encoded"):
        value = encode(kind, value)
    return _BYTES, put_varint(len(value)) + value


def encode(name, message):
    """The bytes of a message."""
    fields, out, left = MESSAGES[name], bytearray(), dict(message)
    for number, (field, kind) in sorted(fields.items()):
        if field not in left:
            continue
        value, base = left.pop(field), kind.rstrip("*?")
        if kind == "uint*":
            packed = b"".join(put_varint(one) for one in value)
            if packed:
                out += put_varint(number << 3 | _BYTES) + put_varint(len(packed)) + packed
            continue
        present_if_default = kind.endswith("?") or base in MESSAGES or base == "encoded"
        for one in value if kind.endswith("*") else [value]:
            if one or present_if_default or kind.endswith("*"):
                wire_type, encoded = _value(base, one)
                out += put_varint(number << 3 | wire_type) + encoded
    if left:
        raise WireError(f"{name} has no field {sorted(left)}")
    return bytes(out)


def _raw(data, at, wire_type):
    """(value, where it ended) of one field, whatever it means."""
    if wire_type == _VARINT:
        return _varint(data, at)
    if wire_type in (_FIXED64, _FIXED32):
        size = 8 if wire_type == _FIXED64 else 4
    elif wire_type == _BYTES:
        size, at = _varint(data, at)
    else:
        raise WireError(f"wire type {wire_type}")
    if size > len(data) - at:
        raise WireError("a field is cut off")
    return data[at : at + size], at + size


def _typed(kind, wire_type, raw, depth):
    """A field's value from its raw form."""
    expected = {"uint": _VARINT, "bool": _VARINT, "fixed64": _FIXED64}.get(kind, _BYTES)
    if wire_type != expected:
        raise WireError(f"wire type {wire_type} for {kind}")
    if kind == "bool":
        return raw != 0
    if kind == "fixed64":
        return int.from_bytes(raw, "little")
    if kind == "string":
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise WireError("a string is not UTF-8") from error
    if kind in ("uint", "bytes"):
        return raw
    if kind == "encoded":
        decode("Entry", raw, depth + 1)
        return raw
    return decode(kind, raw, depth + 1)


def decode(name, data, depth=0):
    """A message from its bytes."""
    if depth > _DEPTH_MAX:
        raise WireError("messages are nested too deep")
    fields, message, at = MESSAGES[name], {}, 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise WireError("field number 0")
        raw, at = _raw(data, at, wire_type)
        if number not in fields:
            continue
        field, kind = fields[number]
        if kind == "uint*" and wire_type == _BYTES:
            inside = 0
            while inside < len(raw):
                one, inside = _varint(raw, inside)
                message.setdefault(field, []).append(one)
            continue
        value = _typed(kind.rstrip("*?"), wire_type, raw, depth)
        if kind.endswith("*"):
            message.setdefault(field, []).append(value)
            continue
        if kind.endswith("?"):  # The last of a oneof wins.
            for other, other_kind in fields.values():
                if other_kind.endswith("?"):
                    message.pop(other, None)
        message[field] = value
    return message


def body_of(frame):
    """(name, message) of a frame's body; (None, None) when it is not known."""
    for name, message in frame.items():
        if name != "critical":
            return name, message
    return None, None


def frame(name, message, critical=False):
    """A whole frame, length included."""
    payload = encode("Frame", {"critical": critical, name: message})
    return put_varint(len(payload)) + payload


class FrameDecoder:
    """Finds payloads in a stream. [FRM-1] to [FRM-6]"""

    def __init__(self, frame_bytes_max=FRAME_BYTES_MAX):
        self.frame_bytes_max = frame_bytes_max
        self._held = bytearray()

    def push(self, data):
        """Bytes as they came."""
        self._held += data

    def poll(self):
        """The next payload, or None until more bytes come."""
        length = 0
        for index, byte in enumerate(self._held[:FRAME_PREFIX_BYTES_MAX]):
            length |= (byte & 0x7F) << (7 * index)
            if byte & 0x80:
                continue
            if byte == 0:
                raise WireError("a frame is empty" if index == 0 else "a length is overlong")
            if length > self.frame_bytes_max:
                raise WireError(f"a frame of {length} bytes")
            start = index + 1
            if len(self._held) < start + length:
                return None
            payload = bytes(self._held[start : start + length])
            del self._held[: start + length]
            return payload
        if len(self._held) >= FRAME_PREFIX_BYTES_MAX:
            raise WireError("a length is overlong")
        return None
