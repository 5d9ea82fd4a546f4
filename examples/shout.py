"""The whole filter of the README's tour: what a server answers arrives in capital letters.

A file that holds one StreamFilter is complete: `doorward serve --filter examples/shout.py`. Letters keep their
number of bytes, and names of HTTP headers do not care about capitals, so the answer stays sound.
"""

from doorward.api import Interest, StreamFilter


class Shout(StreamFilter):
    interest = Interest.of("http", "tcp/8000")

    def server_data(self, data: bytes) -> bytes:
        return data.upper()
