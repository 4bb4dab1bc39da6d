"""The table of API keys of a run, in the form that each peer reads, and the keys that the load asks with.

It is made from a fixed seed: two runs ask the same of every peer.
"""
import json
import random

RULES = ("CREATE_CALL_TOKEN", "READ_CALL_TOKEN", "READ_TEAM_APPS")
OTHERS = ("CREATE_USER", "READ_USER", "DELETE_USER", "UPDATE_TEAM", "READ_BILLING")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
ASKED = 512  # keys that a load takes in turn, so that no peer is served one hot key


def table(count):
    """Rows of (client, key, scopes). The first five are those that the check asks with."""
    seeded = random.Random(20260101)
    rows = []
    for number in range(count):
        key = "sk_" + "".join(seeded.choice(ALPHABET) for _ in range(40))
        named = [list(RULES), [], *([rule] for rule in RULES)]
        drawn = [scope for scope in RULES + OTHERS if seeded.random() < 0.5]
        scopes = named[number] if number < len(named) else drawn
        rows.append((f"client-{number:05d}", key, scopes or ["NOTHING"]))
    return rows


def nginx(key, scopes):
    return f'"Bearer {key}" ",{",".join(scopes)},";\n'


def haproxy(key, scopes):
    return f"{key} ,{','.join(scopes)},\n"


def envoy(rows):
    """What its template wants filled in: its keys are a part of its configuration."""
    words = {"CREDENTIALS": json.dumps([{"key": key, "client": client} for client, key, _ in rows])}
    for word, rule in zip(("CREATE", "READ", "APPS"), RULES):
        words[word] = json.dumps([client for client, _, scopes in rows if rule in scopes])
    return words


def spread(keys):
    """Some of them, from all over the table."""
    return keys[::max(1, len(keys) // ASKED)][:ASKED]


class Keys:
    """Writes the tables into a folder, and knows the keys that are asked with by name."""

    def __init__(self, count, folder):
        rows = table(count)
        self.folder, self.rows = folder, rows
        self.all, self.none, self.create, self.read, self.apps = (key for _, key, _ in rows[:5])
        # For clients that send one key only: one from the middle of the table.
        self.one = next((key for _, key, scopes in rows[count // 2:] if set(RULES) <= set(scopes)), self.all)
        self.write("keys.json", json.dumps([{"client": client, "key": key, "scopes": scopes}
                                            for client, key, scopes in rows]))
        self.write("keys.tsv", "".join(f"{client}\t{key}\t{','.join(scopes)}\n" for client, key, scopes in rows))
        self.write("keys.nginx", "".join(nginx(key, scopes) for _, key, scopes in rows))
        self.write("keys.haproxy", "".join(haproxy(key, scopes) for _, key, scopes in rows))
        for rule in RULES:
            self.write(f"may.{rule}", "\n".join(spread([key for _, key, scopes in rows if rule in scopes])) + "\n")
        may_not = [key for _, key, scopes in rows if "READ_TEAM_APPS" not in scopes]
        self.write("may-not.READ_TEAM_APPS", "\n".join(spread(may_not)) + "\n")
        self.write("unknown", "\n".join("sk_" + key[3:][::-1] for key in spread(may_not)) + "\n")

    def path(self, name):
        return f"{self.folder}/{name}"

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
