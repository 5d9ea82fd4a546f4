"""Anything from the network, made safe to show in one line.

For terminals, log lines and pages alike: no newline, no control sequence and
no character that turns the direction of reading survives. What was escaped
can be told from what was sent, because a backslash that was sent is doubled.
It does not escape HTML; a page still does that itself.
"""


def printable(text: str | bytes, limit: int = 200) -> str:
    r"""Give `text` as one line of printable characters.

    Every character that is not `str.isprintable()` (controls, line ends, C1,
    bidirectional overrides, surrogates) becomes \xNN, \uNNNN or \UNNNNNNNN.
    Of bytes, only printable ASCII is shown as it is, and \xNN is one byte.
    Only the first `limit` characters are shown, and what follows is counted:
    "abc… (97 more)". The answer is at most 10 * `limit` characters long, plus
    that note. Raises nothing.
    """
    left_out = len(text) - max(limit, 0)
    if left_out > 0:
        return f"{_one_line(text[:-left_out])}… ({left_out} more)"
    return _one_line(text)


def _one_line(text: str | bytes) -> str:
    if isinstance(text, bytes):
        if text.isascii():
            return _one_line(text.decode("ascii"))
        return "".join([_escape(chr(byte)) if byte < 0x80 else f"\\x{byte:02x}" for byte in text])
    if text.isprintable() and "\\" not in text:
        return text
    return "".join([_escape(character) for character in text])


def _escape(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    point = ord(character)
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"
