# The border of the native relay. What each call does and raises stands in the binary (help(doorward_native.Relay)) and
# in src/python.rs; a test compares these types with the binary.

from typing import Final, TypeAlias, final

__all__ = ["BORDER_VERSION", "Relay", "__version__"]

BORDER_VERSION: Final[int]
__version__: Final[str]

# Number, bytes sent and received, ended by ("internal", "external", "ours"), end (see doorward.net.relay.End), errno.
_Completion: TypeAlias = tuple[int, int, int, str, str, int]
# Internal and external descriptor, bytes to external and to internal, bytes sent and received.
_Reclaimed: TypeAlias = tuple[int, int, bytes, bytes, tuple[int, int]]

@final
class Relay:
    def __new__(cls, threads: int = 1) -> Relay: ...
    def add(
        self,
        internal_fd: int,
        external_fd: int,
        idle_s: float,
        bytes_max: int,
        bytes_per_second: int,
        to_external: bytes,
        to_internal: bytes,
    ) -> int: ...
    def counts(self, pair_id: int) -> tuple[int, int] | None: ...
    def kill(self, pair_id: int) -> None: ...
    def reclaim(self, pair_id: int) -> _Reclaimed | None: ...
    def fileno(self) -> int: ...
    def completions(self) -> list[_Completion]: ...
    def close(self) -> list[_Completion]: ...
    def __len__(self) -> int: ...
