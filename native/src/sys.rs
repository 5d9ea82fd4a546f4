//! The one place for unsafe code, beside the two calls of `udp::calls`: numbers that come from Python become owners of
//! descriptors. Every other system call goes through rustix, which needs none.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Take over a descriptor; it is closed when the owner is dropped. None for a number that cannot be one.
#[expect(unsafe_code, reason = "Python hands over numbers")]
pub fn adopt(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: the number is no negative one, and `add` of the border says that its caller gives the descriptor away:
    // whoever passes a number that is not his breaks that promise in Python, where numbers are all there is. What is
    // at stake then is whose bytes go where, not memory: the number is used for system calls alone.
    (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}
