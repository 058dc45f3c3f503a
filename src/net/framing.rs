//! HTTP/1.1 between bytes and messages, without I/O: a request written, a response's head read, and where its body
//! begins and ends (RFC 9112).

use std::ops::ControlFlow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

/// The most bytes of a head, and of everything in a chunked body that is no data.
pub(super) const HEAD: usize = 16 << 10;
/// The most fields of a head.
const FIELDS: usize = 100;

/// Not HTTP/1.1 as the standard has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

impl From<httparse::Error> for Malformed {
    fn from(error: httparse::Error) -> Self {
        Self(error.to_string())
    }
}

/// A request as it goes over the wire; its fields have the host.
pub(super) fn write(request: &Request<Bytes>) -> Bytes {
    let (body, target) = (request.body(), request.uri().path_and_query().map_or("/", |target| target.as_str()));
    let mut wire = Vec::with_capacity(512 + body.len());
    wire.extend_from_slice(format!("{} {target} HTTP/1.1\r\n", request.method()).as_bytes());
    for (name, value) in request.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            wire.extend_from_slice(part);
        }
    }
    // A method that means a body has a length even where there is none.
    if !body.is_empty() || *request.method() == Method::POST {
        wire.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(body);
    wire.into()
}

/// A response's head, and what follows from it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    /// How many bytes it had.
    pub(super) length: usize,
    pub(super) body: Body,
    /// Whether another request may follow on the connection.
    pub(super) keep_alive: bool,
}

impl Head {
    /// Reads the head at the beginning of `wire`; `None` while it is not all there.
    pub(super) fn read(wire: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut parsed = httparse::Response::new(&mut fields);
        let status = parsed.parse(wire)?;
        let length = if let httparse::Status::Complete(length) = status { length } else { wire.len() };
        if length > HEAD {
            return Err(Malformed(format!("a head larger than {HEAD} bytes")));
        }
        if status.is_partial() {
            return Ok(None);
        }
        let mut response = Response::new(());
        // Both are there once the head is.
        let (code, minor) = (parsed.code.unwrap_or_default(), parsed.version.unwrap_or_default());
        *response.status_mut() = StatusCode::from_u16(code).map_err(|_| Malformed(format!("the status {code}")))?;
        for field in parsed.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_bytes(field.value);
            let (Ok(name), Ok(value)) = (name, value) else { return Err(Malformed("a broken header field".into())) };
            response.headers_mut().append(name, value);
        }
        let body = Body::of(&response)?;
        let headers = response.headers();
        let coded = headers.contains_key(header::TRANSFER_ENCODING);
        let connection: Vec<&str> = words(headers, header::CONNECTION).collect();
        let says = |word: &str| connection.iter().any(|said| said.eq_ignore_ascii_case(word));
        // Two lengths, or a coding that HTTP/1.0 does not know, are how requests are smuggled: nothing more is said
        // on such a connection.
        let doubtful = coded && (minor == 0 || headers.contains_key(header::CONTENT_LENGTH));
        let keep_alive = (minor > 0 || says("keep-alive"))
            && !says("close")
            && !doubtful
            && !matches!(body, Body::UntilClose)
            && response.status() != StatusCode::SWITCHING_PROTOCOLS;
        Ok(Some(Self { response, length, body, keep_alive }))
    }
}

/// The words of a field that is a list.
pub(super) fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let texts = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

/// What of a response's body is still to come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Everything up to the end of the connection.
    UntilClose,
    /// Nothing.
    Over,
}

impl Body {
    /// The body that follows a head (RFC 9112, 6.3), to anything but `HEAD`.
    fn of(response: &Response<()>) -> Result<Self, Malformed> {
        let (status, headers) = (response.status(), response.headers());
        if status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Ok(Self::Over);
        }
        if headers.contains_key(header::TRANSFER_ENCODING) {
            let codings: Vec<&str> = words(headers, header::TRANSFER_ENCODING).collect();
            return match codings.as_slice() {
                [only] if only.eq_ignore_ascii_case("chunked") => Ok(Self::Chunked(Chunked::default())),
                [.., last] if last.eq_ignore_ascii_case("chunked") => {
                    Err(Malformed(format!("the transfer codings {codings:?}, which were not asked for")))
                }
                _ => Ok(Self::UntilClose),
            };
        }
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let Some(length) = lengths.next() else { return Ok(Self::UntilClose) };
        let digits = length.as_bytes();
        let number = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        match number.and_then(|text| text.parse().ok()) {
            Some(0) if lengths.all(|other| other == length) => Ok(Self::Over),
            Some(number) if lengths.all(|other| other == length) => Ok(Self::Length(number)),
            _ => Err(Malformed("a content length that is none".to_owned())),
        }
    }

    /// Takes what came over the wire and hands what is data to `take`, until that has enough. Gives how many bytes
    /// were used up: all of them, unless `take` had enough or the body is over.
    pub(super) fn feed(
        &mut self,
        wire: &[u8],
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<usize, Malformed> {
        match self {
            Self::Length(left) => {
                let length = wire.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= length as u64;
                if *left == 0 {
                    *self = Self::Over;
                }
                let _ = take(&wire[..length]);
                Ok(length)
            }
            Self::Chunked(chunked) => {
                let used = chunked.feed(wire, take)?;
                if chunked.at == At::End {
                    *self = Self::Over;
                }
                Ok(used)
            }
            Self::UntilClose => {
                let _ = take(wire);
                Ok(wire.len())
            }
            Self::Over => Ok(0),
        }
    }
}

/// A body in chunks (RFC 9112, 7.1), between two pieces of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunked {
    at: At,
    /// The size of the chunk as far as it was read, then what is left of its data.
    left: u64,
    /// Bytes so far of extensions and trailers, which nobody reads.
    idle: usize,
}

/// What comes next in a chunked body.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The first digit of a size.
    #[default]
    Size,
    /// Another one, after so many, or what ends the size.
    Digits(u8),
    /// The rest of the size's line.
    Extension,
    /// The line feed after a size.
    SizeFeed,
    Data,
    /// The line end after data.
    DataReturn,
    DataFeed,
    /// A line of the trailers: its beginning, the rest of it, its line feed.
    TrailerStart,
    Trailer,
    TrailerFeed,
    /// The line feed that ends everything.
    LastFeed,
    End,
}

impl Chunked {
    fn feed(&mut self, wire: &[u8], mut take: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<usize, Malformed> {
        let mut used = 0;
        while let Some(byte) = wire.get(used) {
            match self.at {
                At::Data => {
                    let length = (wire.len() - used).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    let data = &wire[used..used + length];
                    used += length;
                    self.left -= length as u64;
                    if self.left == 0 {
                        self.at = At::DataReturn;
                    }
                    if take(data).is_break() {
                        return Ok(used);
                    }
                }
                At::End => return Ok(used),
                _ => {
                    self.step(*byte)?;
                    used += 1;
                }
            }
        }
        Ok(used)
    }

    /// One byte that is no data.
    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.at = match (self.at, byte) {
            (At::Size, digit) if digit.is_ascii_hexdigit() => {
                self.left = hex(digit);
                At::Digits(1)
            }
            // More would not fit, or be noughts without end.
            (At::Digits(digits @ ..16), digit) if digit.is_ascii_hexdigit() => {
                self.left = self.left * 16 + hex(digit);
                At::Digits(digits + 1)
            }
            (At::Digits(_) | At::Extension, b'\r') => At::SizeFeed,
            (At::Digits(_), b';' | b' ' | b'\t') => At::Extension,
            (At::SizeFeed, b'\n') if self.left == 0 => At::TrailerStart,
            (At::SizeFeed, b'\n') => At::Data,
            (At::DataReturn, b'\r') => At::DataFeed,
            (At::DataFeed, b'\n') => At::Size,
            (At::TrailerStart, b'\r') => At::LastFeed,
            (At::Trailer, b'\r') => At::TrailerFeed,
            (At::TrailerFeed, b'\n') => At::TrailerStart,
            (At::LastFeed, b'\n') => At::End,
            (At::Extension, other) if other != b'\n' => self.idle(At::Extension)?,
            (At::TrailerStart | At::Trailer, other) if other != b'\n' => self.idle(At::Trailer)?,
            (_, other) => return Err(Malformed(format!("byte {other:#04x} in the framing of a chunk"))),
        };
        Ok(())
    }

    fn idle(&mut self, at: At) -> Result<At, Malformed> {
        self.idle += 1;
        if self.idle > HEAD {
            Err(Malformed(format!("more than {HEAD} bytes of chunk extensions and trailers")))
        } else {
            Ok(at)
        }
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u64 {
    char::from(digit).to_digit(16).map_or(0, u64::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Result<Option<Head>, Malformed> {
        Head::read(text.as_bytes())
    }

    fn body(fields: &str) -> Result<Body, Malformed> {
        head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).map(|head| head.unwrap().body)
    }

    /// All the data of a body, and what is left of the wire.
    fn feed(body: &mut Body, wire: &[u8], cut: usize) -> Result<(Vec<u8>, usize), Malformed> {
        let (mut data, mut used) = (Vec::new(), 0);
        for piece in wire.chunks(cut) {
            let taken = body.feed(piece, |bytes| {
                data.extend_from_slice(bytes);
                ControlFlow::Continue(())
            })?;
            used += taken;
            if taken < piece.len() {
                break;
            }
        }
        Ok((data, wire.len() - used))
    }

    #[test]
    fn a_request_has_what_the_wire_needs() {
        let mut request = Request::new(Bytes::from_static(b"{}"));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = "/v1/chat?x=1".parse().unwrap();
        request.headers_mut().insert("host", HeaderValue::from_static("h:1"));
        let expected = "POST /v1/chat?x=1 HTTP/1.1\r\nhost: h:1\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(write(&request).to_vec()).unwrap(), expected);
        assert_eq!(write(&Request::new(Bytes::new())), b"GET / HTTP/1.1\r\n\r\n".as_slice());
    }

    #[test]
    fn the_body_s_end_is_told_as_the_standard_has_it() {
        assert_eq!(body("Content-Length: 5\r\n"), Ok(Body::Length(5)));
        assert_eq!(body("Content-Length: 5\r\nContent-Length: 5\r\n"), Ok(Body::Length(5)));
        assert_eq!(body("Content-Length: 0\r\n"), Ok(Body::Over));
        assert_eq!(body("Transfer-Encoding: Chunked\r\nContent-Length: 5\r\n"), Ok(Body::Chunked(Chunked::default())));
        assert_eq!(body(""), Ok(Body::UntilClose));
        assert_eq!(body("Transfer-Encoding: identity\r\nContent-Length: 5\r\n"), Ok(Body::UntilClose));
        for broken in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(body(broken).is_err(), "{broken}");
        }
        for status in ["100 Continue", "204 No Content", "304 Not Modified"] {
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n");
            assert_eq!(head(&text).unwrap().unwrap().body, Body::Over);
        }
    }

    #[test]
    fn a_connection_is_kept_where_both_sides_know_the_end() {
        let kept = |version: &str, fields: &str| {
            head(&format!("HTTP/{version} 200 OK\r\n{fields}\r\n")).unwrap().unwrap().keep_alive
        };
        assert!(kept("1.1", "Content-Length: 5\r\n"));
        assert!(kept("1.1", "Transfer-Encoding: chunked\r\nConnection: x, Keep-Alive\r\n"));
        assert!(kept("1.0", "Content-Length: 5\r\nConnection: keep-alive\r\n"));
        assert!(!kept("1.0", "Content-Length: 5\r\n"));
        assert!(!kept("1.1", "Content-Length: 5\r\nConnection: x , CLOSE\r\n"));
        assert!(!kept("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"));
        assert!(!kept("1.0", "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n"));
        assert!(!kept("1.1", ""));
    }

    #[test]
    fn a_head_comes_whole_or_not_at_all() {
        let text = "HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\nContent-Length: 1\r\n\r\nx";
        for cut in 0..text.len() - 1 {
            assert!(head(&text[..cut]).unwrap().is_none(), "{cut}");
        }
        let whole = head(text).unwrap().unwrap();
        assert_eq!(whole.length, text.len() - 1);
        assert_eq!(whole.response.headers().get_all("a").iter().count(), 2);
        let flood = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1));
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(HEAD));
        for broken in
            ["<html>", "HTTP/2 200\r\n\r\n", "HTTP/1.1 20\r\n\r\n", "HTTP/1.1 200 OK\r\na b: c\r\n\r\n", &flood, &long]
        {
            assert!(head(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        for broken in [
            "\r\n",
            "g\r\n",
            "5\nhello\r\n",
            "5\r\nhello!\r\n",
            "5\r\nhello\n",
            "11111111111111111\r\n",
            "00000000000000001\r\n",
            "5 ;x\n\r\n",
            "0\r\nTrailer\n\r\n",
            "-5\r\n",
        ] {
            let mut chunked = Body::Chunked(Chunked::default());
            assert!(feed(&mut chunked, broken.as_bytes(), 3).is_err(), "{broken:?}");
        }
        for flood in [format!("1;{}", "x".repeat(HEAD + 1)), format!("0\r\n{}", "a: b\r\n".repeat(HEAD / 3))] {
            assert!(feed(&mut Body::Chunked(Chunked::default()), flood.as_bytes(), 100).is_err());
        }
    }

    #[test]
    fn who_has_enough_gets_the_rest_later() {
        let wire = b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n";
        let mut body = Body::Chunked(Chunked::default());
        let mut got = Vec::new();
        let used = body.feed(wire, |data| {
            got.push(data.to_vec());
            ControlFlow::Break(())
        });
        assert_eq!((used, got), (Ok(6), vec![b"one".to_vec()]));
        assert_eq!(feed(&mut body, &wire[6..], 64), Ok((b"two".to_vec(), 0)));
        assert_eq!(body, Body::Over);
    }

    proptest! {
        #[test]
        fn chunks_come_out_as_they_went_in(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..12),
            cut in 1_usize..50,
            extension in "(;[a-z]{0,5})?",
            trailer in "([A-Z]: [a-z]{0,5}\r\n)?",
            after in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(format!("0{extension}\r\n{trailer}\r\n").as_bytes());
            wire.extend_from_slice(&after);
            let mut body = Body::Chunked(Chunked::default());
            prop_assert_eq!(feed(&mut body, &wire, cut), Ok((chunks.concat(), after.len())));
            prop_assert_eq!(body, Body::Over);
        }
    }
}
