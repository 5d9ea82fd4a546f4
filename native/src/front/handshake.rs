//! SOCKS5 (RFC 1928, sections 3 to 6) and CONNECT (RFC 9110, section 9.3.6) as far as they are answered here. Pure:
//! bytes in, a step out.

use std::net::{IpAddr, SocketAddr};

use crate::front::handshake::Step::{More, NotOurs, Whole};

/// The answer to a greeting that offers no authentication.
pub const NO_AUTHENTICATION: [u8; 2] = [5, 0];
/// The answer to an HTTP client that has its tunnel.
pub const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const CONNECT: &[u8] = b"CONNECT ";
const HEAD_END: &[u8] = b"\r\n\r\n";
const SUCCEEDED: [u8; 3] = [5, 0, 0];
const METHOD_NONE: u8 = 0;
const METHOD_PASSWORD: u8 = 2;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// What to do about what a client has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet: more bytes are needed.
    More,
    /// The message is whole, and so long.
    Whole(usize),
    /// It is for somebody else to understand, or to refuse.
    NotOurs,
}

/// The greeting. With `names_users` a client that can give a password is asked for it, which is not our matter.
pub fn greeting(said: &[u8], names_users: bool) -> Step {
    match said {
        [] | [5] => More,
        [5, 0, ..] => NotOurs,
        [5, count, rest @ ..] => {
            let count = usize::from(*count);
            let Some(methods) = rest.get(..count) else {
                return More;
            };
            let asks_password = names_users && methods.contains(&METHOD_PASSWORD);
            if methods.contains(&METHOD_NONE) && !asks_password {
                Whole(count.saturating_add(2))
            } else {
                NotOurs
            }
        }
        _ => NotOurs,
    }
}

/// The request. What is inside of an address or a name is not looked at.
pub fn request(said: &[u8]) -> Step {
    let size = match said {
        [] | [5] | [5, 1] | [5, 1, 0] | [5, 1, 0, NAME] => return More,
        [5, 1, 0, IPV4, ..] => 4 + 4 + 2,
        [5, 1, 0, IPV6, ..] => 4 + 16 + 2,
        [5, 1, 0, NAME, count, ..] if *count > 0 => usize::from(*count).saturating_add(5 + 2),
        _ => return NotOurs,
    };
    match said.get(..size) {
        None => More,
        Some([.., 0, 0]) => NotOurs,
        Some(_) => Whole(size),
    }
}

/// Does an HTTP client ask to CONNECT? Only a head that came whole is ours, and what is inside is not looked at.
pub fn connect(said: &[u8]) -> Step {
    if !said.starts_with(CONNECT) {
        return NotOurs;
    }
    let end = said.windows(HEAD_END.len()).position(|bytes| bytes == HEAD_END);
    end.map_or(NotOurs, |end| Whole(end.saturating_add(HEAD_END.len())))
}

/// The answer to a request that was fulfilled: our own end of the outer connection.
pub fn succeeded(name: SocketAddr) -> Vec<u8> {
    let mut reply = SUCCEEDED.to_vec();
    match name.ip().to_canonical() {
        IpAddr::V4(address) => {
            reply.push(IPV4);
            reply.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            reply.push(IPV6);
            reply.extend_from_slice(&address.octets());
        }
    }
    reply.extend_from_slice(&name.port().to_be_bytes());
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every beginning of a message needs more, and what follows it does not count.
    fn is_whole(message: &[u8], read: impl Fn(&[u8]) -> Step) {
        for end in 0..message.len() {
            assert_eq!(read(&message[..end]), More, "{:?}", &message[..end]);
        }
        assert_eq!(read(message), Whole(message.len()));
        assert_eq!(read(&[message, b"GET / HTTP/1.1"].concat()), Whole(message.len()));
    }

    #[test]
    fn a_greeting_without_a_password_is_ours() {
        is_whole(&[5, 1, 0], |said| greeting(said, true));
        is_whole(&[5, 3, 1, 2, 0], |said| greeting(said, false));
    }

    #[test]
    fn any_other_greeting_is_not() {
        for said in [&b"GET"[..], &[4, 1], &[0x16, 3, 1], &[5, 0], &[5, 1, 2], &[5, 2, 1, 2]] {
            assert_eq!(greeting(said, false), NotOurs, "{said:?}");
        }
        assert_eq!(greeting(&[5, 2, 0, 2], true), NotOurs);
        assert_eq!(greeting(&[5, 2, 0, 2], false), Whole(4));
    }

    #[test]
    fn connect_is_ours_whatever_the_address_is_written_in() {
        is_whole(&[5, 1, 0, 1, 127, 0, 0, 1, 0, 80], request);
        is_whole(&[&[5, 1, 0, 3, 4][..], b"host", &[1, 0]].concat(), request);
        is_whole(&[&[5, 1, 0, 4][..], &[0; 16], &[1, 187]].concat(), request);
        is_whole(&[&[5, 1, 0, 3, 255][..], &[b'x'; 255], &[0, 1]].concat(), request);
    }

    #[test]
    fn any_other_request_is_not() {
        let others: [&[u8]; 8] = [
            &[4],
            &[5, 2],
            &[5, 3],
            &[5, 1, 1],
            &[5, 1, 0, 2],
            &[5, 1, 0, 3, 0],
            &[5, 1, 0, 1, 1, 2, 3, 4, 0, 0],
            &[5, 1, 0, 3, 1, b'x', 0, 0],
        ];
        for said in others {
            assert_eq!(request(said), NotOurs, "{said:?}");
        }
    }

    #[test]
    fn a_whole_head_that_asks_to_connect_is_ours_and_what_follows_it_is_not() {
        let head = b"CONNECT host:443 HTTP/1.1\r\nHost: host:443\r\n\r\n";
        assert_eq!(connect(head), Whole(head.len()));
        assert_eq!(connect(&[&head[..], b"\x16\x03\x01"].concat()), Whole(head.len()));
        for end in 0..head.len() {
            assert_eq!(connect(&head[..end]), NotOurs);
        }
        assert_eq!(connect(b"GET http://host/ HTTP/1.1\r\n\r\n"), NotOurs);
        assert_eq!(connect(b"connect host:443 HTTP/1.1\r\n\r\n"), NotOurs);
    }

    #[test]
    fn the_answer_names_our_end_as_what_it_is() {
        let four = [5, 0, 0, 1, 127, 0, 0, 1, 0x1f, 0x90];
        assert_eq!(succeeded("127.0.0.1:8080".parse().unwrap()), four);
        assert_eq!(succeeded("[::ffff:127.0.0.1]:8080".parse().unwrap()), four);
        let six = succeeded("[::1]:443".parse().unwrap());
        assert_eq!((six.len(), &six[..4], &six[20..]), (22, &[5, 0, 0, 4][..], &[1, 187][..]));
    }
}
