"""Puts one word in the place of another, in both directions of a line protocol.

    [[filter]]
    name = "politeness"
    use = "rewrite_word.py"
    protocols = ["chat"]
    settings = { word = "hello", by = "good day" }

Chunks have no boundaries of meaning: a word may come in two pieces, or byte by byte. So the end of a chunk that
could be the beginning of the word is kept until more has come, and nothing else ever is: a prompt without an end
of line passes at once. The word is replaced wherever its bytes stand, inside longer words too.

Several of these work in a chain: a client's line meets them in the order of the policy file, a server's line in
the opposite order, and each sees what the one before it has made.
"""

from __future__ import annotations

from doorward.api import Interest, StreamFilter


class RewriteWord(StreamFilter):
    """One for each connection; the two directions are kept apart."""

    interest = Interest.of("any")

    def start(self) -> None:
        word = str(self.settings.get("word", "hello")).encode()
        by = str(self.settings.get("by", "good day")).encode()
        if not word:
            raise ValueError("the setting `word` is empty")
        self.client = Rewriter(word, by)
        self.server = Rewriter(word, by)

    def client_data(self, data: bytes) -> bytes:
        return self.client.feed(data)

    def server_data(self, data: bytes) -> bytes:
        return self.server.feed(data)

    def client_end(self) -> bytes:
        return self.client.kept

    def server_end(self) -> bytes:
        return self.server.kept


class Rewriter:
    """One direction. `kept` is always shorter than the word."""

    def __init__(self, word: bytes, by: bytes) -> None:
        self.word = word
        self.by = by
        self.kept = b""

    def feed(self, data: bytes) -> bytes:
        """What can go on; the rest is kept."""
        *before, last = (self.kept + data).split(self.word)
        size = self._begun(last)
        self.kept = last[len(last) - size :]
        return self.by.join([*before, last[: len(last) - size]])

    def _begun(self, text: bytes) -> int:
        """How many bytes at the end of `text` could be the beginning of the word."""
        longest = min(len(self.word) - 1, len(text))
        return next((size for size in range(longest, 0, -1) if text.endswith(self.word[:size])), 0)
