"""Codec, hash and chain against the files of spec/: python3 -m unittest test_vectors"""

import json
import re
import unittest
from pathlib import Path

import protocol
import wire
from blake3 import blake3

SPEC = Path(__file__).resolve().parents[2]
PROTO = re.sub(r"//.*", "", (SPEC / "proto/talaria/v1/wire.proto").read_text(encoding="utf-8"))
ENUM_VALUES = {name: int(value) for name, value in re.findall(r"\b([A-Z][A-Z_]+) = (\d+);", PROTO)}


def vectors(name):
    """A file of spec/vectors. 64-bit numbers are strings, bytes hexadecimal, enums names."""
    return json.loads((SPEC / "vectors" / name).read_text(encoding="utf-8"))


def from_json(name, value):
    """A message of the vectors, as wire.py has it; fields that are unknown on purpose are left out."""
    fields = {field: kind for field, kind in wire.MESSAGES[name].values()}
    message = {}
    for field, given in value.items():
        if field.startswith("unknown_"):
            continue
        kind = fields[field].rstrip("*?")
        convert = {
            "uint": lambda one: ENUM_VALUES[one] if one in ENUM_VALUES else int(one),
            "fixed64": int,
            "bytes": bytes.fromhex,
            "encoded": lambda one: wire.encode("Entry", from_json("Entry", one)),
        }.get(kind, lambda one, kind=kind: from_json(kind, one) if kind in wire.MESSAGES else one)
        message[field] = [convert(one) for one in given] if fields[field].endswith("*") else convert(given)
    return message


class Blake3Test(unittest.TestCase):
    """Published test vectors: input byte i is i mod 251; the first 32 bytes of output."""

    KNOWN = {
        0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        1023: "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
        1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
        1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
        2048: "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a",
        2049: "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030",
        102400: "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
    }

    def test_known_answers(self):
        for length, digest in self.KNOWN.items():
            data = bytes(i % 251 for i in range(length))
            self.assertEqual(blake3(data).hex(), digest, length)
            self.assertEqual(blake3(data[:7], data[7:]).hex(), digest, length)


class ProtoTest(unittest.TestCase):
    """The tables of wire.py say what wire.proto says."""

    SCALARS = {"uint32": "uint", "uint64": "uint", "bool": "bool", "fixed64": "fixed64", "string": "string", "bytes": "bytes"}
    SAME_FIELDS = {"AddMembers": "ChangeMembers", "RemoveMembers": "ChangeMembers"}

    def test_tables(self):
        enums = set(re.findall(r"enum (\w+)", PROTO))
        messages = re.findall(r"message (\w+) \{((?:[^{}]|\{[^{}]*\})*)\}", PROTO)
        self.assertGreater(len(messages), 50)
        for name, body in messages:
            choices = "".join(re.findall(r"oneof \w+ \{([^{}]*)\}", body))
            expected = {}
            for field in re.finditer(r"(repeated )?(\w+) (\w+) = (\d+);", body):
                repeated, kind, field_name, number = field.groups()
                kind = "uint" if kind in enums else self.SCALARS.get(kind, self.SAME_FIELDS.get(kind, kind))
                kind = "encoded" if kind == "Entry" else kind
                suffix = "*" if repeated else "?" if field.group(0) in choices else ""
                expected[int(number)] = (field_name, kind + suffix)
            self.assertEqual(wire.MESSAGES[self.SAME_FIELDS.get(name, name)], expected, name)

    def test_error_codes(self):
        table = (SPEC / "errors.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| (\d+) \| (\w+) \| (yes|no) \| (\w+) \|", table, re.MULTILINE)
        self.assertEqual({int(code): (name, retry == "yes", happened) for code, name, retry, happened in rows}, protocol.ERRORS)

    def test_limits(self):
        table = (SPEC / "session.md").read_text(encoding="utf-8")
        for name in ("FRAME_BYTES_MAX", "FRAME_BYTES_MAX_BEFORE_WELCOME", "FRAME_PREFIX_BYTES_MAX"):
            value = re.search(rf"^\| `{name}` \| ([\d ]+) \|", table, re.MULTILINE).group(1)
            self.assertEqual(getattr(wire, name), int(value.replace(" ", "")))


class CodecTest(unittest.TestCase):
    def test_round_trips(self):
        for name, message in (
            ("Frame", {"critical": True, "ping": {}}),
            ("Frame", {"hello": {"token": "t", "capabilities": [1, 300], "credit": {"entries": 1 << 63}}}),
            ("Content", {"text": ""}),
            ("Content", {"blob": {"data": b"\0"}, "metadata": [{}, {"key": "é", "value": b"1"}]}),
            ("EntryHeader", {"seq": 1, "hlc": (1 << 64) - 1}),
        ):
            self.assertEqual(wire.decode(name, wire.encode(name, message)), message)

    def test_unknown_fields_are_skipped_and_bad_bytes_refused(self):
        self.assertEqual(wire.decode("Ping", bytes.fromhex("0805 9a06 0161 a906 0000000000000000")), {"nonce": 5})
        for bad in ("08", "0a05", "08ffffffffffffffffff02", "0b", "00"):
            with self.assertRaises(wire.WireError, msg=bad):
                wire.decode("Ping", bytes.fromhex(bad))
        with self.assertRaises(wire.WireError):
            wire.decode("Content", bytes.fromhex("0a01ff"))


class FrameVectors(unittest.TestCase):
    def payloads(self, decoder):
        """What comes out until nothing, or an error, does."""
        found = []
        while (payload := decoder.poll()) is not None:
            found.append(payload.hex())
        return found

    def test_valid(self):
        for case in vectors("frames.json")["valid"]:
            for step in (1, len(case["stream"]) or 1):
                decoder, found, stream = wire.FrameDecoder(), [], bytes.fromhex(case["stream"])
                for at in range(0, len(stream), step):
                    decoder.push(stream[at : at + step])
                    found += self.payloads(decoder)
                self.assertEqual(found, case["payloads"], case["name"])

    def test_invalid(self):
        for case in vectors("frames.json")["invalid"]:
            decoder, found = wire.FrameDecoder(case["frame_bytes_max"]), []
            decoder.push(bytes.fromhex(case["stream"]))
            with self.assertRaises(wire.WireError, msg=case["name"]):
                while True:
                    payload = decoder.poll()
                    self.assertIsNotNone(payload, case["name"])
                    found.append(payload.hex())
            self.assertEqual(found, case["payloads"], case["name"])


class MessageVectors(unittest.TestCase):
    def payload(self, case):
        decoder = wire.FrameDecoder()
        decoder.push(bytes.fromhex(case["frame"]))
        return decoder.poll()

    def test_valid(self):
        file = vectors("messages.json")
        self.assertGreater(len(file["client"] + file["server"]), 30)
        for case in file["client"] + file["server"]:
            payload = self.payload(case)
            frame = wire.decode("Frame", payload)
            if case["message"] is None:
                self.assertEqual(frame, {}, case["name"])
                continue
            expected = from_json("Frame", case["message"])
            self.assertEqual(frame, expected, case["name"])
            self.assertEqual(wire.encode("Frame", expected), payload, case["name"])

    def test_what_a_server_sends_is_parsed(self):
        for case in vectors("messages.json")["server"]:
            name, _body = protocol.parse_frame(self.payload(case))
            self.assertEqual(name, next(iter(case["message"])) if case["message"] else None, case["name"])

    def test_invalid(self):
        for case in vectors("messages.json")["invalid"]["server"]:
            with self.assertRaises((wire.WireError, protocol.CodeError, protocol.Damage), msg=case["name"]):
                name, body = protocol.parse_frame(self.payload(case))
                if name == "deliver":
                    protocol.parse_entry(body["entry"])


class EntryVectors(unittest.TestCase):
    def test_valid(self):
        for case in vectors("entries.json")["valid"]:
            content, salt = bytes.fromhex(case["content_bytes"]), bytes.fromhex(case["salt"])
            for message, name, encoded in (("EntryHeader", "header", "header_bytes"), ("Content", "content", "content_bytes")):
                expected = from_json(message, case[name])
                self.assertEqual(wire.decode(message, bytes.fromhex(case[encoded])), expected, case["name"])
                if "unknown_99" not in case[name]:
                    self.assertEqual(wire.encode(message, expected).hex(), case[encoded], case["name"])
            self.assertEqual(protocol.commitment(salt, content).hex(), case["commitment"], case["name"])
            for form, vector in case["forms"].items():
                entry = protocol.parse_entry(bytes.fromhex(vector["entry"]))
                self.assertEqual(len(bytes.fromhex(vector["entry"])), vector["bytes"], case["name"])
                if form == "content_omitted":
                    self.assertIsNone(entry.leaf())
                    entry.raw_content = content
                self.assertEqual(entry.leaf().hex(), case["leaf"], (case["name"], form))

    def test_invalid(self):
        for case in vectors("entries.json")["invalid"]:
            with self.assertRaises((wire.WireError, protocol.Damage), msg=case["name"]):
                protocol.parse_entry(bytes.fromhex(case["entry"]))


class ChainVectors(unittest.TestCase):
    def first_wrong_seq(self, case, leaves):
        """The first entry that does not continue the chain."""
        chain, conversation = protocol.ZERO_CHAIN, bytes.fromhex(case["conversation"])
        for seq, vector in enumerate(case["entries"], 1):
            entry = protocol.parse_entry(bytes.fromhex(vector["entry"]))
            if leaves:
                self.assertEqual(entry.leaf().hex(), vector["leaf"], case["name"])
            chain = protocol.next_chain(conversation, seq, chain, entry.leaf())
            if entry.seq != seq or chain.hex() != vector["chain"]:
                return seq
        return None

    def test_chains(self):
        file = vectors("chains.json")
        self.assertEqual(file["chain_0"], protocol.ZERO_CHAIN.hex())
        for case in file["valid"]:
            self.assertIsNone(self.first_wrong_seq(case, True), case["name"])
        for case in file["invalid"]:
            self.assertEqual(self.first_wrong_seq(case, False), case["first_wrong_seq"], case["name"])


class IdVectors(unittest.TestCase):
    def test_slots_and_times(self):
        file = vectors("ids.json")
        for id_, slot in [(one["user"], one["slot"]) for one in file["users"]] + [
            (one["conversation"], one["slot"]) for one in file["direct"] + file["groups"]
        ]:
            self.assertEqual(int.from_bytes(blake3(bytes.fromhex(id_))[:2], "big") >> 2, slot)
        for case in file["uuid7"]["valid"]:
            made = protocol.new_id(int(case["unix_ms"]))
            self.assertEqual(made[:6], bytes.fromhex(case["id"])[:6])
            self.assertEqual((made[6] >> 4, made[8] >> 6), (7, 2))


if __name__ == "__main__":
    unittest.main()
