"""A small Talaria client, written from spec/ alone: TCP, one session, a store in memory.

    store = Store(device_id=new_id())
    client = Client(store, "127.0.0.1", 7443, ca_file, lambda: token)
    client.open()                                   # connect, Hello, Sync, Resume
    bob = client.direct_with("bob")
    client.send(bob, {"text": "hello"})
    while client.pump(1.0): ...                     # messages arrive in store.conversations[bob].entries

Everything runs on the caller's thread: `pump` reads what has arrived and reacts to it. A lost connection raises
`Lost`; `open` again goes on from the store, and `send` does so by itself. `Damage` is never mended.
"""

import os
import random
import socket
import ssl
import time
from dataclasses import dataclass, field

import wire
from protocol import (
    ANSWERS, CHAIN_MISMATCH, ERRORS, NOT_FOUND, ZERO_CHAIN, CodeError, Damage, new_id, next_chain, parse_entry, parse_frame,
)

ALPN = "talaria/1"
PROTOCOL_VERSION = 1
ENTRY_KIND_MESSAGE = 0
CREDIT_ENTRIES_WINDOW = 1_000
CREDIT_BYTES_WINDOW = 1024 * 1024
HELLO_TIMEOUT_S = 10.0
BACKOFF_BASE_S, BACKOFF_CAP_S = 0.2, 10.0


class Lost(Exception):
    """The connection ended. Open again, after `wait_s`."""

    def __init__(self, message, wait_s=0.0):
        super().__init__(message)
        self.wait_s = wait_s


# ---- the store ------------------------------------------------------------------------------------------------


@dataclass
class Held:
    """An entry in the store."""

    seq: int
    header: dict | None  # None: hidden
    content: dict | None  # None: hidden or erased
    leaf: bytes
    chain: bytes


@dataclass
class Conversation:
    """What is held of a conversation. `epoch`, `seq`, `chain` are the cursor."""

    epoch: int = 0
    seq: int = 0
    chain: bytes = ZERO_CHAIN
    entries: dict[int, Held] = field(default_factory=dict)
    gaps: list[tuple[int, int]] = field(default_factory=list)  # what was Skipped, first and last seq
    first_seq: int = 1  # the log's oldest, as far as it was told
    chains: dict[int, bytes] = field(default_factory=dict)  # told by Skipped and Truncated, seq → chain(seq)
    caught_up: bool = False
    ahead: dict[int, bytes] = field(default_factory=dict)  # entries that wait for a content to be fetched
    fetching: bool = False
    resumed: bool = False


@dataclass
class Store:
    """What outlives a connection. In memory: a program that restarts begins with an empty one."""

    device_id: bytes
    conversations: dict[bytes, Conversation] = field(default_factory=dict)
    sent: dict[bytes, bytes] = field(default_factory=dict)  # client message id → content
    token: dict | None = None  # SyncToken


# ---- the client -----------------------------------------------------------------------------------------------


class Client:
    """One device's session, opened as often as need be."""

    def __init__(self, store, host, port, ca_file, get_token, tenant="", on_entry=None, connect=None):
        self.store = store
        self.host, self.port, self.ca_file = host, port, ca_file
        self.get_token, self.tenant = get_token, tenant
        self.on_entry = on_entry or (lambda conversation, held: None)
        self._connect = connect or self._connect_tls
        self.welcome = None
        self._socket = None
        self._tries = 0
        self._last_id_ms = 0
        self._clock_offset_ms = 0

    # -- connecting

    def _connect_tls(self):
        """TLS 1.3 with our ALPN. [SES-2] [SES-4] [SES-11]"""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols([ALPN])
        plain = socket.create_connection((self.host, self.port), timeout=HELLO_TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secure = context.wrap_socket(plain, server_hostname=self.host)
        if secure.selected_alpn_protocol() != ALPN:
            secure.close()
            raise Lost("the server does not speak talaria/1")
        return secure

    def open(self):
        """Connects, says Hello, and resumes all that the store holds and the server lists."""
        self.close()
        try:
            self._socket = self._connect()
        except (OSError, ssl.SSLError) as error:
            raise Lost(f"connecting: {error}") from error
        self._decoder = wire.FrameDecoder(wire.FRAME_BYTES_MAX_BEFORE_WELCOME)
        self._next_request, self._answers, self._resume_at = 1, {}, {}
        self._pending_token, self._pending_heads = None, {}
        self._received = {"entries": 0, "bytes": 0}
        self._granted = {"entries": CREDIT_ENTRIES_WINDOW, "bytes": CREDIT_BYTES_WINDOW}
        self._sent_at = self._heard_at = time.monotonic()
        self.welcome = None
        for held in self.store.conversations.values():
            held.caught_up = held.fetching = held.resumed = False
            held.ahead.clear()
        self._write("hello", {
            "protocol_min": PROTOCOL_VERSION,
            "protocol_max": PROTOCOL_VERSION,
            "tenant": self.tenant,
            "token": self.get_token(),
            "device_id": self.store.device_id,
            "client": {"name": "talaria-example", "version": "1", "platform": "python"},
            "credit": dict(self._granted),
        })
        deadline = time.monotonic() + HELLO_TIMEOUT_S
        while self.welcome is None:
            if time.monotonic() > deadline:
                raise Lost("no Welcome")
            self.pump(0.2)
        self._sync()
        self._tries = 0

    def reopen(self, deadline):
        """Opens again until it works, with growing random waits. [SES-32]"""
        wait_s = 0.0
        while True:
            delay = wait_s + random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**self._tries))
            self._tries = min(self._tries + 1, 10)
            if time.monotonic() + delay > deadline:
                raise Lost("no time is left to reconnect")
            time.sleep(delay)
            try:
                return self.open()
            except Lost as error:
                wait_s = error.wait_s
            except CodeError as error:
                if not error.retryable:
                    raise
                wait_s = error.retry_after_s

    def close(self, logout=False):
        """Ends the connection."""
        if self._socket is None:
            return
        if logout:
            try:
                self._write("logout", {})
            except Lost:
                pass
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- frames out

    def _write(self, name, message):
        if self._socket is None:
            raise Lost("not connected")
        try:
            self._socket.settimeout(HELLO_TIMEOUT_S)
            self._socket.sendall(wire.frame(name, message))
        except (OSError, ssl.SSLError) as error:
            self.close()
            raise Lost(f"writing: {error}") from error
        self._sent_at = time.monotonic()

    # -- frames in

    def pump(self, timeout_s):
        """Reads and handles what has arrived; waits at most `timeout_s` for it. True when there was something."""
        self._keepalive()
        try:
            self._socket.settimeout(max(timeout_s, 0.001))
            data = self._socket.recv(64 * 1024)
        except (TimeoutError, ssl.SSLWantReadError):
            return False
        except (OSError, ssl.SSLError) as error:
            self.close()
            raise Lost(f"reading: {error}") from error
        if not data:
            self.close()
            raise Lost("the server closed the connection")
        self._heard_at = time.monotonic()
        self._decoder.push(data)
        while self._socket is not None and (payload := self._decoder.poll()) is not None:
            self._handle(payload)
        return True

    def _keepalive(self):
        """[SES-12] [SES-14]"""
        if self._socket is None:
            raise Lost("not connected")
        keepalive_s = (self.welcome or {}).get("keepalive_ms", 30_000) / 1000
        now = time.monotonic()
        if now - self._heard_at > 2 * keepalive_s:
            self.close()
            raise Lost("the server has gone silent")
        if self.welcome and now - min(self._sent_at, self._heard_at) > keepalive_s / 2 and now - self._sent_at > 1:
            self._write("ping", {"nonce": int(now * 1000)})
        due = [conversation for conversation, at in self._resume_at.items() if at <= now]
        for conversation in due:
            del self._resume_at[conversation]
        self._resume(due)

    def _handle(self, payload):
        try:
            name, body = parse_frame(payload)
        except (CodeError, wire.WireError):
            self.close()
            raise
        if name in ANSWERS:
            self._on_answer(name, body)
        elif name is not None:
            getattr(self, f"_on_{name}")(body)

    def _on_welcome(self, body):
        self.welcome = body
        self._decoder.frame_bytes_max = body["limits"].get("frame_bytes_max", wire.FRAME_BYTES_MAX)
        self._on_clock(body)

    def _on_clock(self, body):
        self._clock_offset_ms = (body.get("hlc", 0) >> 16) - int(time.time() * 1000)

    _on_pong = _on_clock

    def _on_refused(self, body):
        self.close()
        raise CodeError("Refused", body)

    def _on_go_away(self, body):
        error = CodeError("GoAway", body)
        self.close()
        if error.retryable or error.code not in ERRORS:
            raise Lost(str(error), error.retry_after_s)
        raise error

    def _on_error(self, body):
        if body.get("request_id"):
            self._on_answer("error", body)
            return
        conversation, error = body.get("conversation", b""), CodeError("Resume", body)  # [DLV-46]
        if error.code == NOT_FOUND:  # [DLV-45]
            self.store.conversations.pop(conversation, None)
        elif error.code == CHAIN_MISMATCH:  # [DLV-40]
            raise Damage(f"{conversation.hex()}: {error}")
        elif error.retryable and conversation in self.store.conversations:
            self.store.conversations[conversation].resumed = False
            self._resume_at[conversation] = time.monotonic() + (error.retry_after_s or 1.0)
        else:
            raise error

    # -- requests

    def _ask(self, name, fields):
        """Sends a request; its id."""
        request_id, self._next_request = self._next_request, self._next_request + 1
        self._answers[request_id] = None
        self._write(name, {"request_id": request_id, **fields})
        return request_id

    def _on_answer(self, name, body):
        request_id = body["request_id"]
        if request_id in self._answers:
            wanted = self._answers[request_id]
            if callable(wanted):
                del self._answers[request_id]
                wanted(name, body)
            else:
                self._answers[request_id] = (name, body)

    def request(self, name, fields, timeout_s=30.0):
        """Asks, and waits for the answer; an `Error` is raised."""
        request_id = self._ask(name, fields)
        deadline = time.monotonic() + timeout_s
        while self._answers[request_id] is None:
            if time.monotonic() > deadline:
                self.close()
                raise Lost(f"no answer to {name}")
            self.pump(0.2)
        answer_name, body = self._answers.pop(request_id)
        if answer_name == "error":
            raise CodeError("Error", body)
        return body

    def message_id(self):
        """A client message id of the server's time, greater than all before. [DLV-47]"""
        now_ms = int(time.time() * 1000) + self._clock_offset_ms
        self._last_id_ms = max(now_ms, self._last_id_ms + 1)
        return new_id(self._last_id_ms)

    def direct_with(self, subject):
        """The id of the direct conversation with this user, made if there is none."""
        fields = {"user": {"subject": subject}, "client_message_id": self.message_id()}
        return self._settle(self.request("direct_with", fields))

    def create_group(self, title, subjects, message_id):
        """The id of a new group; the same `message_id` gives the same group. [DLV-76]"""
        fields = {
            "client_message_id": message_id,
            "title": title,
            "members": [{"subject": subject} for subject in subjects],
        }
        return self._settle(self.request("create_group", fields))

    def _settle(self, result):
        conversation = result["conversation"]["conversation"]
        self._resume([conversation])
        return conversation

    def send(self, conversation, content, deadline=None):
        """Sends until there is a definite answer, over as many connections as it takes. [DLV-50]

        One message at a time, so `after` is never needed. Returns `Sent` with `client_message_id` added.
        """
        deadline = deadline or time.monotonic() + 60
        encoded, message_id = wire.encode("Content", content), self.message_id()
        self.store.sent[message_id] = encoded
        while True:
            try:
                fields = {
                    "conversation": conversation,
                    "client_message_id": message_id,
                    "content": encoded,
                    "seen": self.store.conversations.get(conversation, Conversation()).seq,
                }
                return {**self.request("send", fields), "client_message_id": message_id}
            except Lost as error:
                time.sleep(min(error.wait_s, max(0, deadline - time.monotonic())))
                self.reopen(deadline)
            except CodeError as error:
                if not error.retryable or time.monotonic() > deadline:
                    raise
                self._pump_for(error.retry_after_s or random.uniform(0.05, 0.5))

    def _pump_for(self, seconds):
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.pump(min(left, 0.2))

    # -- resume

    def _sync(self):
        """Sync, then Resume for what has changed. [DLV-30] to [DLV-32]"""
        listed, page, offered, first = {}, b"", self.store.token, None
        while first is None or page:
            fields = {"page": page}
            if offered:
                fields["token"] = offered
            result = self.request("sync", fields)
            first = first or result
            listed |= {state["conversation"]: state for state in result.get("conversations", [])}
            page = result.get("next_page", b"")
        everything = offered is None or first.get("reset")
        self._resume(set(listed) | set(self.store.conversations if everything else ()))
        self._pending_token = first.get("token")
        self._pending_heads = {conversation: state.get("head", 0) for conversation, state in listed.items()}
        self._settle_token()

    def _settle_token(self):
        """Keeps the token once all that was listed is held. [DLV-31]"""
        if self._pending_token is None:
            return
        for conversation, head in self._pending_heads.items():
            held = self.store.conversations.get(conversation)
            if held is not None and held.seq < head:
                return
        self.store.token, self._pending_token = self._pending_token, None

    def _resume(self, conversations):
        cursors = []
        for conversation in sorted(conversations):
            held = self.store.conversations.setdefault(conversation, Conversation())
            if held.resumed:
                continue
            held.resumed = True
            chain = held.chain if held.seq else b""
            cursors.append({"conversation": conversation, "epoch": held.epoch, "seq": held.seq, "chain": chain})
        step = self.welcome["limits"].get("cursors_per_resume_max", 256) if cursors else 1
        for at in range(0, len(cursors), step):
            self._write("resume", {"cursors": cursors[at : at + step]})

    def _on_changed(self, body):  # [DLV-36]
        self._resume([body["conversation"]["conversation"]])

    def _on_caught_up(self, body):  # [DLV-44] [DLV-84]
        held = self._held(body)
        if held is None or not held.resumed:
            return
        held.caught_up = True
        if not held.fetching and held.seq != body.get("head", 0):
            raise Damage(f"{body['conversation'].hex()}: caught up at {body.get('head', 0)}, held up to {held.seq}")
        if not held.fetching and body.get("chain", held.chain) != held.chain:
            raise Damage(f"{body['conversation'].hex()}: the chain at {held.seq} is another than the log's")

    def _on_skipped(self, body):  # [DLV-41] [DLV-84]
        held = self._held(body)
        if held is None or body["to"] <= held.seq:
            return
        if body["from"] > held.seq + 1:
            if held.resumed:
                raise Damage(f"{body['conversation'].hex()}: skipped from {body['from']} after {held.seq}")
            return
        held.gaps.append((held.seq + 1, body["to"]))
        held.seq, held.chain = body["to"], body["chain"]
        held.chains[held.seq] = held.chain
        self._settle_token()

    def _on_truncated(self, body):  # [DLV-42] [DLV-82] [DLV-84]
        held, before = self._held(body), body["first_seq"] - 1
        if held is None or before < held.seq:
            return
        if held.chain != body["chain"] if before == held.seq else self._contradicts(held, before, body["chain"]):
            held.entries.clear()  # Of a fork that the log has forgotten.
            held.chains.clear()
        held.first_seq = body["first_seq"]
        held.gaps = [(max(first, held.first_seq), last) for first, last in held.gaps if last >= held.first_seq]
        held.seq, held.chain = before, body["chain"]
        held.chains[before] = held.chain
        self._settle_token()

    @staticmethod
    def _contradicts(held, seq, chain):
        """A chain is held at this seq, and it is another."""
        mine = held.entries[seq].chain if seq in held.entries else held.chains.get(seq, chain)
        return mine != chain

    def _on_epoch_changed(self, body):  # [DLV-43]
        held, first = self._held(body), body["first_seq"]
        if held is None:
            return
        if self._contradicts(held, first - 1, body["chain"]):
            raise Damage(f"{body['conversation'].hex()}: chain({first - 1}) differs below a fork")
        held.entries = {seq: entry for seq, entry in held.entries.items() if seq < first}
        held.chains = {seq: chain for seq, chain in held.chains.items() if seq < first}
        held.gaps = [(begin, min(last, first - 1)) for begin, last in held.gaps if begin < first]
        held.epoch, held.seq, held.chain = body.get("epoch", 0), first - 1, body["chain"]
        held.resumed = False
        self._resume([body["conversation"]])

    def _held(self, body):
        """The conversation; None for one that the store has not (any more)."""
        return self.store.conversations.get(body["conversation"])

    # -- entries

    def _on_deliver(self, body):
        held, encoded = self._held(body), body["entry"]
        self._count(encoded)
        if held is None or not held.resumed and parse_entry(encoded).seq != held.seq + 1:  # [DLV-84]
            return
        if held.fetching:
            held.ahead[parse_entry(encoded).seq] = encoded
        else:
            self._take(body["conversation"], held, encoded)

    def _count(self, encoded):
        """Entries use up credit; it is raised at half. [DLV-24]"""
        self._received["entries"] += 1
        self._received["bytes"] += len(encoded)
        window = {"entries": CREDIT_ENTRIES_WINDOW, "bytes": CREDIT_BYTES_WINDOW}
        if any(self._granted[unit] - self._received[unit] < window[unit] // 2 for unit in window):
            self._granted = {unit: self._received[unit] + window[unit] for unit in window}
            self._write("credit", dict(self._granted))

    def _take(self, conversation, held, encoded):
        """Checks an entry, stores it, acknowledges it. [DLV-19] [DLV-22]"""
        entry = parse_entry(encoded)
        if entry.seq <= held.seq:
            return
        if entry.seq != held.seq + 1:
            raise Damage(f"{conversation.hex()}: entry {entry.seq} after {held.seq}")
        if entry.leaf() is None:  # Sent by this device. [DLV-28]
            entry.raw_content = self.store.sent.get(entry.header.get("client_message_id", b""))
        if (leaf_ := entry.leaf()) is None:
            self._fetch(conversation, held, entry.seq)
            return
        content = None if entry.raw_content is None else wire.decode("Content", entry.raw_content)
        held.seq, held.chain = entry.seq, next_chain(conversation, entry.seq, held.chain, leaf_)
        held.epoch = entry.header.get("epoch", 0) if entry.header else held.epoch
        stored = held.entries[entry.seq] = Held(entry.seq, entry.header, content, leaf_, held.chain)
        self._settle_token()
        self._write("ack", {"conversation": conversation, "up_to": entry.seq})
        self.on_entry(conversation, stored)

    def _fetch(self, conversation, held, seq):
        """Reads entries whose content was omitted and is not held; later ones wait meanwhile. [DLV-28]"""
        held.fetching = True
        request_id = self._ask("history", {"conversation": conversation, "from": seq, "entries_max": 50})

        def fetched(name, body):
            held.fetching = False
            if name == "error":
                raise CodeError("History", body)
            entries = body.get("entries", [])
            for encoded in entries:
                self._count(encoded)
            if not entries or parse_entry(entries[0]).seq > held.seq + 1:  # Retention took it: the log says where to go on.
                held.ahead.clear()
                held.resumed = False
                self._resume([conversation])
                return
            for encoded in entries:
                self._take(conversation, held, encoded)
            while not held.fetching and (encoded := held.ahead.pop(held.seq + 1, None)) is not None:
                self._take(conversation, held, encoded)
            held.ahead = {later: entry for later, entry in held.ahead.items() if later > held.seq}

        self._answers[request_id] = fetched

    # -- history

    def history(self, conversation, from_seq=1, backward=False, entries_max=0):
        """A page: (chain before it, its entries, more)."""
        fields = {"conversation": conversation, "from": from_seq, "direction": int(backward), "entries_max": entries_max}
        body = self.request("history", fields)
        entries = []
        for encoded in body.get("entries", []):
            self._count(encoded)
            entries.append(parse_entry(encoded))
        return body.get("chain_before", b""), entries, body.get("more", False)

    def fill_gaps(self, conversation):
        """Reads what was Skipped into the store; the number of entries. What retention took of it stays away. [DLV-41]"""
        held, count = self.store.conversations[conversation], 0
        while held.gaps:
            first, last = held.gaps[0]
            before, entries, _more = self.history(conversation, first)
            entries = [entry for entry in entries if entry.seq <= last]
            if not entries:
                held.gaps.pop(0)
                continue
            if self._contradicts(held, entries[0].seq - 1, before):
                raise Damage(f"{conversation.hex()}: chain({entries[0].seq - 1}) differs before a gap")
            chain = before
            for entry in entries:
                if (leaf_ := entry.leaf()) is None:
                    raise Damage(f"{conversation.hex()}: history has no content for {entry.seq}")
                chain = next_chain(conversation, entry.seq, chain, leaf_)
                if self._contradicts(held, entry.seq, chain):
                    raise Damage(f"{conversation.hex()}: chain({entry.seq}) differs")
                content = None if entry.raw_content is None else wire.decode("Content", entry.raw_content)
                stored = held.entries[entry.seq] = Held(entry.seq, entry.header, content, leaf_, chain)
                self.on_entry(conversation, stored)
            count += len(entries)
            held.gaps[0] = (entries[-1].seq + 1, last)
            if entries[-1].seq == last:
                held.gaps.pop(0)
        return count

    def verify(self, conversation):
        """Reads all that the log has and compares it with what is held; the number of entries. [DLV-63] [DLV-86]"""
        held, at, count, chain = self.store.conversations[conversation], 0, 0, None
        while True:
            before, entries, more = self.history(conversation, at + 1)
            if entries and chain is not None and before != chain:
                raise Damage(f"{conversation.hex()}: pages do not join at {at}")
            if entries and not count:
                at = entries[0].seq - 1
            chain = before
            for entry in entries:
                if entry.seq != at + 1 or (leaf_ := entry.leaf()) is None:
                    raise Damage(f"{conversation.hex()}: history has {entry.seq} after {at}")
                at, count = entry.seq, count + 1
                chain = next_chain(conversation, at, chain, leaf_)
                if self._contradicts(held, at, chain) or at == held.seq and held.chain != chain:
                    raise Damage(f"{conversation.hex()}: chain({at}) differs")
            if not more:
                return count


def load_device_id(path):
    """The installation's id: kept in a file, made at first. [SES-10]"""
    if os.path.exists(path):
        with open(path, encoding="ascii") as file:
            return bytes.fromhex(file.read().strip())
    device_id = new_id()
    with open(path, "w", encoding="ascii") as file:
        file.write(device_id.hex())
    return device_id
