"""The client against a small server in this file, over a socket pair without TLS: python3 -m unittest test_client"""

import os
import socket
import threading
import unittest

import client as talaria
import protocol
import wire

CONVERSATION, ALICE, BOB = bytes([7] * 16), bytes([1] * 16), bytes([2] * 16)
LIMITS = {"frame_bytes_max": wire.FRAME_BYTES_MAX, "cursors_per_resume_max": 256, "requests_in_flight_max": 64}


class FakeServer:
    """One conversation of alice and bob; each connection is served by a thread until it closes."""

    def __init__(self):
        self.entries, self.chains, self.ids, self.epoch = [], [protocol.ZERO_CHAIN], {}, 100
        self.lose_answers = 0
        self.first, self.backlog_max, self.page, self.cut_at_history = 1, 500, 2, None
        self.acked, self.failures = 0, []
        self.append(ALICE, 1, {"membership": {"created": True, "changes": [
            {"user": ALICE, "subject": "alice", "action": 1}, {"user": BOB, "subject": "bob", "action": 1}]}}, kind=4)

    def append(self, sender, device, content, message_id=None, kind=0):
        seq, salt = len(self.entries) + 1, os.urandom(16)
        header = wire.encode("EntryHeader", {
            "seq": seq, "ordinal": seq - 1, "epoch": self.epoch, "hlc": seq << 16, "sender": sender, "device": device,
            "kind": kind, "client_message_id": message_id or protocol.new_id()})
        content = content if isinstance(content, bytes) else wire.encode("Content", content)
        leaf = protocol.leaf(header, protocol.commitment(salt, content))
        self.entries.append((header, content, salt))
        self.chains.append(protocol.next_chain(CONVERSATION, seq, self.chains[-1], leaf))
        return seq

    def entry(self, seq, omit=False):
        header, content, salt = self.entries[seq - 1]
        full = {"header": header, "salt": salt}
        full |= {"content_omitted": True} if omit else {"content": content}
        return wire.encode("Entry", {"seq": seq, "full": full})

    def connect(self):
        ours, theirs = socket.socketpair()
        threading.Thread(target=self.serve, args=(ours,), daemon=True).start()
        return theirs

    def serve(self, connection):
        decoder, connection_next = wire.FrameDecoder(), {"seq": None}
        send = lambda name, body: connection.sendall(wire.frame(name, body))
        try:
            while data := connection.recv(65536):
                decoder.push(data)
                while (payload := decoder.poll()) is not None:
                    name, body = wire.body_of(wire.decode("Frame", payload))
                    if not getattr(self, f"do_{name}")(send, body, connection_next):
                        return connection.close()
        except OSError:
            pass
        except Exception as error:  # The test looks at it.
            self.failures.append(error)
        connection.close()

    def state(self):
        return {"conversation": CONVERSATION, "kind": 1, "head": len(self.entries), "epoch": self.epoch,
                "first_seq": self.first, "member": True}

    def do_hello(self, send, body, _next):
        send("welcome", {"session_id": bytes(16), "user_id": ALICE, "device_number": 1, "protocol": 1, "limits": LIMITS,
                         "keepalive_ms": 30_000, "hlc": 1_800_000_000_000 << 16, "durability": 1, "subject": "alice"})
        return True

    def do_sync(self, send, body, _next):
        send("sync_result", {"request_id": body["request_id"], "token": {"boot_id": bytes([9] * 16), "commit": 5},
                             "reset": "token" not in body, "conversations": [self.state()]})
        return True

    def do_resume(self, send, body, connection_next):
        for cursor in body["cursors"]:
            seq = cursor.get("seq", 0)
            if seq > len(self.entries):
                head = len(self.entries)
                send("epoch_changed", {"conversation": CONVERSATION, "first_seq": head + 1, "chain": self.chains[head],
                                       "epoch": 100})
                continue
            truncated = seq < self.first - 1 or seq and seq == self.first - 1 and cursor["chain"] != self.chains[seq]
            if truncated:
                seq = self.first - 1
                send("truncated", {"conversation": CONVERSATION, "first_seq": self.first, "chain": self.chains[seq]})
            elif seq and cursor["chain"] != self.chains[seq]:
                send("error", {"code": 68, "conversation": CONVERSATION, "message": "no"})
                continue
            if len(self.entries) - seq > self.backlog_max:
                to = len(self.entries) - self.page
                send("skipped", {"conversation": CONVERSATION, "from": seq + 1, "to": to, "chain": self.chains[to]})
                seq = to
            connection_next["seq"] = seq + 1
            self.deliver(send, connection_next)
            send("caught_up", {"conversation": CONVERSATION, "head": len(self.entries)})
        return True

    def deliver(self, send, connection_next):
        while connection_next["seq"] and connection_next["seq"] <= len(self.entries):
            header = wire.decode("EntryHeader", self.entries[connection_next["seq"] - 1][0])
            own = header["sender"] == ALICE and header.get("kind", 0) == 0
            send("deliver", {"conversation": CONVERSATION, "entry": self.entry(connection_next["seq"], own)})
            connection_next["seq"] += 1

    def do_direct_with(self, send, body, _next):
        send("conversation_result", {"request_id": body["request_id"], "conversation": self.state()})
        return True

    def do_send(self, send, body, connection_next):
        duplicate = body["client_message_id"] in self.ids
        if not duplicate:
            self.ids[body["client_message_id"]] = self.append(ALICE, 1, body["content"], body["client_message_id"])
            self.append(BOB, 1, {"text": "echo " + wire.decode("Content", body["content"])["text"]})
        if self.lose_answers:
            self.lose_answers -= 1
            return False
        seq = self.ids[body["client_message_id"]]
        send("sent", {"request_id": body["request_id"], "seq": seq, "epoch": self.epoch, "durability": 1, "duplicate": duplicate})
        self.deliver(send, connection_next)
        return True

    def do_history(self, send, body, _next):
        self.first, self.cut_at_history = self.cut_at_history or self.first, None
        first = max(body.get("from", 0), self.first)
        page = [self.entry(seq) for seq in range(first, min(first + 1, len(self.entries)) + 1)]
        send("history_page", {"request_id": body["request_id"], "chain_before": self.chains[first - 1], "entries": page,
                              "first_seq": self.first, "head": len(self.entries),
                              "more": first + len(page) <= len(self.entries)})
        return True

    def do_ack(self, _send, body, _next):
        self.acked = max(self.acked, body["up_to"])
        return True

    def do_credit(self, _send, _body, _next):
        return True

    do_ping = do_credit

    def do_logout(self, send, _body, _next):
        send("go_away", {"code": 8})
        return False


class ClientTest(unittest.TestCase):
    def setUp(self):
        self.server = FakeServer()
        self.store = talaria.Store(protocol.new_id())
        self.client = self.new_client(self.store)

    def new_client(self, store):
        client = talaria.Client(store, "", 0, "", lambda: "token", connect=self.server.connect)
        self.addCleanup(client.close)
        return client

    def until(self, condition):
        for _ in range(100):
            if condition():
                return
            self.client.pump(0.05)
        self.fail("it did not come")

    def texts(self, store=None):
        entries = (store or self.store).conversations[CONVERSATION].entries
        return [entries[seq].content.get("text") for seq in sorted(entries)]

    def test_sends_receives_acknowledges_and_verifies(self):
        self.client.open()
        conversation = self.client.direct_with("bob")
        self.assertEqual(self.client.send(conversation, {"text": "x" * 100})["seq"], 2)
        self.until(lambda: self.store.conversations[conversation].seq == 3)
        self.assertEqual(self.texts(), [None, "x" * 100, "echo " + "x" * 100])
        self.assertEqual(self.client.verify(conversation), 3)
        self.assertEqual(self.server.acked, 3)
        self.assertEqual(self.store.token["commit"], 5)
        self.assertFalse(self.server.failures)

    def test_a_lost_answer_is_repeated_with_the_same_id(self):
        self.client.open()
        conversation = self.client.direct_with("bob")
        self.server.lose_answers = 1
        sent = self.client.send(conversation, {"text": "once"})
        self.assertTrue(sent["duplicate"])
        self.until(lambda: self.store.conversations[conversation].seq == 3)
        self.assertEqual(len(self.server.entries), 3)

    def test_own_content_that_is_not_held_is_read_from_the_history(self):
        self.client.open()
        self.client.send(self.client.direct_with("bob"), {"text": "mine"})
        self.client.send(CONVERSATION, {"text": "too"})
        other = talaria.Store(self.store.device_id)
        self.client.close()
        self.client = self.new_client(other)
        self.client.open()
        self.until(lambda: other.conversations[CONVERSATION].seq == 5)
        self.assertEqual(self.texts(other), [None, "mine", "echo mine", "too", "echo too"])

    def test_own_content_that_retention_takes_before_it_is_read_is_gone(self):
        self.client.open()
        self.client.send(self.client.direct_with("bob"), {"text": "mine"})
        self.client.send(CONVERSATION, {"text": "too"})
        other = talaria.Store(self.store.device_id)
        self.client.close()
        self.client, self.server.cut_at_history = self.new_client(other), 4
        self.client.open()
        self.until(lambda: CONVERSATION in other.conversations and other.conversations[CONVERSATION].seq == 5)
        self.assertEqual(self.texts(other), [None, "too", "echo too"])
        self.assertEqual(other.conversations[CONVERSATION].first_seq, 4)
        self.assertFalse(self.server.failures)

    def test_a_fork_is_dropped_and_a_rewritten_entry_is_damage(self):
        self.client.open()
        self.client.send(self.client.direct_with("bob"), {"text": "a"})
        self.until(lambda: self.store.conversations[CONVERSATION].seq == 3)
        self.client.close()
        del self.server.entries[2:], self.server.chains[3:]
        self.client.open()
        self.until(lambda: self.store.conversations[CONVERSATION].caught_up)
        self.assertEqual(self.store.conversations[CONVERSATION].seq, 2)
        self.client.close()
        self.server.chains[2] = bytes(32)
        self.client.open()
        with self.assertRaises(protocol.Damage):
            self.until(lambda: False)

    def test_history_that_was_rewritten_is_damage(self):
        self.client.open()
        self.client.send(self.client.direct_with("bob"), {"text": "a"})
        self.until(lambda: self.store.conversations[CONVERSATION].seq == 3)
        header, _content, salt = self.server.entries[2]
        self.server.entries[2] = (header, wire.encode("Content", {"text": "b"}), salt)
        with self.assertRaises(protocol.Damage):
            self.client.verify(CONVERSATION)

    def test_a_long_backlog_is_skipped_and_its_gap_filled_from_the_history(self):
        for n in range(2, 13):
            self.server.append(BOB, 1, {"text": f"{n}"})
        self.server.backlog_max = 5
        self.client.open()
        self.until(lambda: CONVERSATION in self.store.conversations and self.store.conversations[CONVERSATION].caught_up)
        held = self.store.conversations[CONVERSATION]
        self.assertEqual((self.texts(), held.gaps, held.seq), (["11", "12"], [(1, 10)], 12))
        self.assertEqual(self.store.token["commit"], 5, "what was skipped counts as held")
        self.server.first = 4  # Retention takes some of the gap meanwhile.
        self.assertEqual(self.client.fill_gaps(CONVERSATION), 7)
        self.assertEqual((self.texts(), held.gaps), ([f"{n}" for n in range(4, 13)], []))
        self.assertEqual(self.client.verify(CONVERSATION), 9)
        self.assertFalse(self.server.failures)

    def test_a_gap_whose_history_does_not_fit_is_damage(self):
        for n in range(2, 13):
            self.server.append(BOB, 1, {"text": f"{n}"})
        self.server.backlog_max = 5
        self.client.open()
        self.until(lambda: CONVERSATION in self.store.conversations and self.store.conversations[CONVERSATION].caught_up)
        header, _content, salt = self.server.entries[9]
        self.server.entries[9] = (header, wire.encode("Content", {"text": "another"}), salt)
        with self.assertRaises(protocol.Damage):
            self.client.fill_gaps(CONVERSATION)

    def held_up_to_3(self):
        self.client.open()
        self.client.send(self.client.direct_with("bob"), {"text": "a"})
        self.until(lambda: self.store.conversations[CONVERSATION].seq == 3)
        self.client.close()
        return self.store.conversations[CONVERSATION]

    def test_truncated_goes_on_from_there_and_the_chain_is_checked(self):
        held = self.held_up_to_3()
        for n in range(4, 10):
            self.server.append(BOB, 1, {"text": f"{n}"})
        self.server.first = 7
        self.client.open()
        self.until(lambda: held.caught_up)
        self.assertEqual(self.texts(), [None, "a", "echo a", "7", "8", "9"])
        self.assertEqual((held.seq, held.first_seq, held.chain), (9, 7, self.server.chains[9]))
        self.assertEqual(self.client.verify(CONVERSATION), 3)
        self.assertEqual(self.server.acked, 9)
        self.server.chains[6] = bytes(32)
        with self.assertRaises(protocol.Damage):
            self.client.verify(CONVERSATION)

    def test_a_cursor_just_before_what_is_left_is_good(self):
        held = self.held_up_to_3()
        self.server.append(BOB, 1, {"text": "4"})
        self.server.first = 4
        self.client.open()
        self.until(lambda: held.caught_up)
        self.assertEqual((self.texts(), held.first_seq), ([None, "a", "echo a", "4"], 1))

    def test_a_fork_that_the_log_has_forgotten_is_dropped(self):
        held = self.held_up_to_3()
        del self.server.entries[2:], self.server.chains[3:]
        for n in range(3, 6):
            self.server.append(BOB, 1, {"text": f"other {n}"})
        self.server.first = 4
        self.client.open()
        self.until(lambda: held.caught_up)
        self.assertEqual((self.texts(), held.chain), (["other 4", "other 5"], self.server.chains[5]))
        self.assertFalse(self.server.failures)

    def test_what_comes_after_a_delivery_has_stopped_is_taken_if_it_is_next(self):
        held = self.held_up_to_3()
        for n in range(4, 7):
            self.server.append(BOB, 1, {"text": f"{n}"})
        self.client.open()
        self.until(lambda: held.caught_up)
        held.seq, held.chain, held.resumed = 3, self.server.chains[3], False
        for seq in (5, 4, 6):
            self.client._on_deliver({"conversation": CONVERSATION, "entry": self.server.entry(seq)})
        self.client._on_caught_up({"conversation": CONVERSATION, "head": 99})
        self.client._on_skipped({"conversation": CONVERSATION, "from": 9, "to": 10, "chain": bytes(32)})
        self.assertEqual(held.seq, 4)
        self.client._on_deliver({"conversation": bytes([8] * 16), "entry": self.server.entry(5)})
        held.resumed = True
        with self.assertRaises(protocol.Damage):
            self.client._on_deliver({"conversation": CONVERSATION, "entry": self.server.entry(6)})


if __name__ == "__main__":
    unittest.main()
