"""A line-mode chat over the example client: sends, waits for messages, prints JSON lines, checks the chain.

    python3 chat.py --server 127.0.0.1:7443 --ca ca.pem --token TOKEN --with bob --send hello --expect 1 --timeout 20

Exit code: 0 all sent and received, 1 something is missing, 2 wrong usage, 3 the chain does not fit, 4 refused.
"""

import argparse
import json
import os
import sys
import time

import wire
from client import ENTRY_KIND_MESSAGE, Client, Lost, Store, load_device_id
from protocol import CodeError, Damage, new_id

EXIT_MISSING, EXIT_DAMAGE, EXIT_REFUSED = 1, 3, 4


def arguments():
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--ca", required=True, metavar="PEM", help="file of the certificates to trust")
    parser.add_argument("--token", default=os.environ.get("TALARIA_TOKEN"), help="a JWT; or set TALARIA_TOKEN")
    parser.add_argument("--tenant", default="", help="empty: the default tenant")
    parser.add_argument("--with", dest="peer", metavar="SUBJECT", help="the other user; default: every conversation")
    parser.add_argument("--send", action="append", default=[], metavar="TEXT", help="send this; may be repeated")
    parser.add_argument("--expect", type=int, default=0, metavar="N", help="wait for N messages of others, old ones too")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="for everything together, seconds")
    parser.add_argument("--device-file", metavar="FILE", help="keeps the device id; default: a new device each time")
    options = parser.parse_args()
    if not options.token:
        parser.error("--token is missing")
    if options.send and not options.peer:
        parser.error("--send needs --with")
    host, colon, port = options.server.rpartition(":")
    if not colon or not port.isdigit():
        parser.error("--server: HOST:PORT, for example 127.0.0.1:7443")
    options.host, options.port = host.strip("[]"), int(port)
    return options


def say(event, **fields):
    """One JSON line."""
    print(json.dumps({"event": event, **fields}, ensure_ascii=False), flush=True)


class Chat:
    """Prints what arrives, counts what was expected."""

    def __init__(self, options):
        self.options = options
        self.deadline = time.monotonic() + options.timeout
        device_id = load_device_id(options.device_file) if options.device_file else new_id()
        self.client = Client(
            Store(device_id), options.host, options.port, options.ca, lambda: options.token, options.tenant, self.on_entry
        )
        self.subjects, self.received, self.conversation = {}, {}, None

    def on_entry(self, conversation, held):
        """An entry is in the store."""
        content = held.content or {}
        for change in content.get("membership", {}).get("changes", []):
            self.subjects[change["user"]] = change.get("subject", "")
        if held.header is None or held.header.get("kind", 0) != ENTRY_KIND_MESSAGE:
            return
        sender = held.header["sender"]
        fields = {"conversation": conversation.hex(), "seq": held.seq, "from": self.subjects.get(sender, sender.hex())}
        if "text" in content:
            fields["text"] = content["text"]
        elif "blob" in content:
            blob = content["blob"]
            fields |= {"content_type": blob.get("content_type", ""), "bytes": len(blob.get("data", b""))}
        own = sender == self.client.welcome["user_id"]
        say("own" if own else "message", **fields)
        if not own:
            self.received.setdefault(conversation, set()).add(held.seq)

    def count(self):
        """Messages of others, of the chosen conversation or of all."""
        if self.conversation:
            return len(self.received.get(self.conversation, ()))
        return sum(map(len, self.received.values()))

    def run(self):
        """Sends, waits, verifies. True when nothing is missing."""
        self.again(self.client.open)
        welcome = self.client.welcome
        say("welcome", user=welcome.get("subject", ""), device=welcome.get("device_number", 0), node=welcome.get("node", ""))
        if self.options.peer:
            self.conversation = self.again(lambda: self.client.direct_with(self.options.peer))
        for text in self.options.send:
            sent = self.client.send(self.conversation, {"text": text}, self.deadline)
            say("sent", seq=sent["seq"], duplicate=sent.get("duplicate", False), durability=sent.get("durability", 0))
        while self.count() < self.options.expect and time.monotonic() < self.deadline:
            self.again(lambda: self.client.pump(0.2))
            for conversation in [id_ for id_, held in self.client.store.conversations.items() if held.gaps]:
                self.again(lambda conversation=conversation: self.client.fill_gaps(conversation))
        missing = self.options.expect - self.count()
        for conversation in list(self.client.store.conversations):
            entries = self.again(lambda conversation=conversation: self.client.verify(conversation))
            say("verified", conversation=conversation.hex(), entries=entries)
        self.client.close(logout=True)
        if missing > 0:
            say("missing", expected=self.options.expect, received=self.count())
        return missing <= 0

    def again(self, step):
        """Does it, over as many connections as it takes until the deadline."""
        while True:
            try:
                return step()
            except Lost as error:
                say("lost", message=str(error))
                self.client.reopen(self.deadline)
                if step == self.client.open:
                    return None


def main():
    """The exit code."""
    chat = Chat(arguments())
    try:
        return 0 if chat.run() else EXIT_MISSING
    except Damage as error:
        say("damage", message=str(error))
        return EXIT_DAMAGE
    except (CodeError, wire.WireError) as error:
        say("refused", message=str(error))
        return EXIT_REFUSED
    except Lost as error:
        say("lost", message=str(error))
        return EXIT_MISSING


if __name__ == "__main__":
    sys.exit(main())
