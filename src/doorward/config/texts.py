"""The kinds of text that stand in many tables of the policy file; see `document`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta

# In the patterns, `(?!\n)` is for Python, whose `$` also matches before a final line end.
Text: TypeAlias = Annotated[str, Meta(min_length=1)]
Label: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.-]{1,64}(?!\n)$",
        extra={"plain": "1 to 64 letters, digits, dots, hyphens or underscores"},
    ),
]
UserName: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[!#-&(-.0-9;-~]{1,255}(?!\n)$",
        extra={"plain": '1 to 255 printable ASCII characters other than space, colon, quotes and "/"'},
    ),
]
Listed: TypeAlias = Annotated[list[Text], Meta(min_length=1)]
