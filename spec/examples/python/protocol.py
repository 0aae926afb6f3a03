"""What the client knows of the protocol beside bytes: error codes, ids, the chain, and what a server may send.

Pure functions; spec/errors.md, spec/delivery.md.
"""

import secrets
import time
from dataclasses import dataclass

import wire
from blake3 import blake3

ZERO_CHAIN = bytes(32)

# What this client needs of spec/errors.md: code → (name, retryable, happened).
ERRORS = {
    1: ("PROTOCOL_VIOLATION", False, "no"),
    2: ("UNSUPPORTED", False, "no"),
    3: ("HELLO_TIMEOUT", True, "no"),
    4: ("KEEPALIVE_TIMEOUT", True, "no"),
    5: ("DRAINING", True, "no"),
    6: ("TAKEN_OVER", False, "no"),
    7: ("INTERNAL", True, "unknown"),
    8: ("LOGGED_OUT", False, "no"),
    9: ("SLOW_CONSUMER", True, "no"),
    16: ("TOKEN_INVALID", False, "no"),
    17: ("TOKEN_EXPIRED", False, "no"),
    18: ("TOKEN_OF_ANOTHER", False, "no"),
    19: ("TOO_MANY_DEVICES", False, "no"),
    32: ("BUSY", True, "no"),
    33: ("READ_ONLY", True, "no"),
    34: ("OUTCOME_UNKNOWN", True, "unknown"),
    35: ("TOO_MANY_REQUESTS", True, "no"),
    36: ("NO_CREDIT", True, "no"),
    37: ("READ_FAILED", True, "no"),
    48: ("NOT_FOUND", False, "no"),
    49: ("FORBIDDEN", False, "no"),
    50: ("INVALID", False, "no"),
    51: ("TOO_LARGE", False, "no"),
    52: ("GROUP_FULL", False, "no"),
    53: ("UNKNOWN_USER", False, "no"),
    64: ("ID_EXPIRED", False, "unknown"),
    65: ("ID_FROM_FUTURE", False, "no"),
    66: ("CONFLICT", False, "no"),
    67: ("OUT_OF_ORDER", True, "no"),
    68: ("CHAIN_MISMATCH", False, "no"),
}
NOT_FOUND, CHAIN_MISMATCH = 48, 68


class Damage(Exception):
    """What the server says and what is held do not agree. Report it; nothing here mends it."""


class CodeError(Exception):
    """A refusal: of a request (Error), of a session (Refused), or its end (GoAway)."""

    def __init__(self, what, body):
        self.code = body.get("code", 0)
        self.name, self.retryable, self.happened = ERRORS.get(self.code, (str(self.code), False, "unknown"))
        self.retry_after_s = body.get("retry_after_ms", body.get("reconnect_after_ms", 0)) / 1000
        super().__init__(f"{what} {self.name}: {body.get('message', '')}")


# ---- ids and the chain ----------------------------------------------------------------------------------------


def new_id(unix_ms=None):
    """A UUIDv7 of this time."""
    at = int(time.time() * 1000) if unix_ms is None else unix_ms
    out = bytearray(at.to_bytes(6, "big") + secrets.token_bytes(10))
    out[6] = 0x70 | out[6] & 0x0F
    out[8] = 0x80 | out[8] & 0x3F
    return bytes(out)


def commitment(salt, content):
    """[DLV-12]"""
    return blake3(b"talaria/1 commitment", salt, content)


def leaf(header, commitment_):
    """[DLV-13]"""
    return blake3(b"talaria/1 leaf", header, commitment_)


def next_chain(conversation, seq, chain_before, leaf_):
    """[DLV-14]"""
    return blake3(b"talaria/1 chain", conversation, seq.to_bytes(8, "big"), chain_before, leaf_)


# ---- what a server may say -------------------------------------------------------------------------------------

ID_BYTES, SALT_BYTES, HASH_BYTES, HEADER_BYTES_MAX = 16, 16, 32, 128
FROM_SERVER = {
    "welcome", "refused", "reauthed", "go_away", "pong", "error", "sent", "deliver", "sync_result", "caught_up", "changed",
    "skipped", "truncated", "epoch_changed", "conversation_result", "conversation_list", "member_list", "history_page",
}
ANSWERS = {
    "reauthed", "sent", "sync_result", "conversation_result", "conversation_list", "member_list", "history_page",
}


def parse_frame(payload):
    """(name, body) of a server's frame; (None, None) for one to ignore. [FRM-7] [FRM-8] [SES-53]"""
    frame = wire.decode("Frame", payload)
    name, body = wire.body_of(frame)
    if name is None:
        if frame.get("critical"):
            raise CodeError("critical frame", {"code": 2})
        return None, None
    good = name in FROM_SERVER and (name not in ANSWERS or body.get("request_id", 0) != 0)
    if name in ("deliver", "caught_up", "skipped", "truncated", "epoch_changed"):
        good = good and len(body.get("conversation", b"")) == ID_BYTES
    if name in ("skipped", "truncated", "epoch_changed"):
        good = good and len(body.get("chain", b"")) == HASH_BYTES
    if name == "deliver":
        good = good and "entry" in body
    elif name == "sent":
        good = good and body.get("seq", 0) > 0
    elif name == "skipped":
        good = good and 0 < body.get("from", 0) <= body.get("to", 0)
    elif name in ("truncated", "epoch_changed"):
        good = good and body.get("first_seq", 0) > 0
    elif name == "history_page":
        seqs = [wire.decode("Entry", encoded).get("seq", 0) for encoded in body.get("entries", [])]
        good = good and all(after == before + 1 for before, after in zip(seqs, seqs[1:]))
        good = good and (not seqs or len(body.get("chain_before", b"")) == HASH_BYTES)
    if not good:
        raise wire.WireError(f"a server does not send this {name}")
    return name, body


@dataclass
class Entry:
    """An entry as it came. [DLV-53]"""

    seq: int
    raw_header: bytes = b""
    header: dict | None = None  # None: hidden
    raw_content: bytes | None = None  # None: hidden, erased or omitted
    salt: bytes = b""
    commitment: bytes | None = None
    hidden_leaf: bytes | None = None

    def leaf(self):
        """The leaf; None while the content is not known."""
        if self.hidden_leaf is not None:
            return self.hidden_leaf
        if self.commitment is not None:
            return leaf(self.raw_header, self.commitment)
        return None if self.raw_content is None else leaf(self.raw_header, commitment(self.salt, self.raw_content))


def parse_entry(encoded):
    """An entry of its bytes; `Damage` for what no server makes."""
    message = wire.decode("Entry", encoded)
    entry = Entry(message.get("seq", 0))
    form = message.get("full") or message.get("erased") or message.get("hidden")
    if form is None or entry.seq == 0:
        raise Damage(f"entry {entry.seq} says nothing")

    def sized(field_name, size):
        value = form.get(field_name, b"")
        if len(value) != size:
            raise Damage(f"entry {entry.seq}: {field_name} of {len(value)} bytes")
        return value

    if "hidden" in message:
        entry.hidden_leaf = sized("leaf", HASH_BYTES)
        return entry
    entry.raw_header = form.get("header", b"")
    entry.header = wire.decode("EntryHeader", entry.raw_header)
    if entry.header.get("seq", 0) != entry.seq or len(entry.raw_header) > HEADER_BYTES_MAX:
        raise Damage(f"entry {entry.seq}: a header of {len(entry.raw_header)} bytes and seq {entry.header.get('seq', 0)}")
    if "erased" in message:
        entry.commitment = sized("commitment", HASH_BYTES)
        return entry
    entry.salt = sized("salt", SALT_BYTES)
    if not form.get("content_omitted"):
        entry.raw_content = form.get("content", b"")
    elif "content" in form:
        raise Damage(f"entry {entry.seq}: a content that is said to be omitted")
    return entry
