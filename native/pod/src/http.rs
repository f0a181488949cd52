//! As much of HTTP/1.1 as the tiny server needs: one request at a time, small heads, bodies skipped.
//!
//! Sources: RFC 9112 sections 2 to 6 and 9.3, RFC 3986 section 2.1 (percent-encoding).

/// A request's head longer than this is refused.
pub const HEAD_LIMIT_BYTES: usize = 8 << 10;
/// A request's body longer than this is refused; shorter ones are read and dropped.
pub const BODY_LIMIT_BYTES: usize = 1 << 20;

#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub keep_alive: bool,
    /// Bytes of the input that the head took.
    pub head_bytes: usize,
    pub body_bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    Incomplete,
    /// Status line text of the refusal; the connection closes after it.
    Bad(&'static str),
    Request(Request),
}

pub fn parse(input: &[u8]) -> Parsed {
    let window = &input[..input.len().min(HEAD_LIMIT_BYTES)];
    let end = match window.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
        Some(end) => end,
        None if input.len() >= HEAD_LIMIT_BYTES => return Parsed::Bad("431 Request Header Fields Too Large"),
        None => return Parsed::Incomplete,
    };
    let head = match std::str::from_utf8(&window[..end]) {
        Ok(head) => head,
        Err(_) => return Parsed::Bad("400 Bad Request"),
    };
    let mut lines = head.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or("").split(' ').collect();
    let (method, target, version) = match first[..] {
        [method, target, version @ ("HTTP/1.0" | "HTTP/1.1")] if !method.is_empty() && target.starts_with('/') => {
            (method, target, version)
        }
        _ => return Parsed::Bad("400 Bad Request"),
    };
    let mut keep_alive = version == "HTTP/1.1";
    let mut body_bytes = 0;
    for line in lines {
        let (name, value) = match line.split_once(':') {
            Some((name, value)) => (name.to_ascii_lowercase(), value.trim()),
            None => return Parsed::Bad("400 Bad Request"),
        };
        match name.as_str() {
            "connection" => keep_alive = wants_more(value, keep_alive),
            "transfer-encoding" => return Parsed::Bad("411 Length Required"),
            "content-length" => match value.parse::<usize>() {
                Ok(bytes) if bytes <= BODY_LIMIT_BYTES => body_bytes = bytes,
                Ok(_) => return Parsed::Bad("413 Content Too Large"),
                Err(_) => return Parsed::Bad("400 Bad Request"),
            },
            _ => {}
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Parsed::Request(Request {
        method: method.to_string(),
        path: path.to_string(),
        query: query.to_string(),
        keep_alive,
        head_bytes: end + 4,
        body_bytes,
    })
}

fn wants_more(connection: &str, by_version: bool) -> bool {
    let says = |word: &str| connection.split(',').any(|part| part.trim().eq_ignore_ascii_case(word));
    !says("close") && (by_version || says("keep-alive"))
}

/// The decoded value of a query's key.
pub fn query_value(query: &str, key: &str) -> Option<String> {
    let pair = query.split('&').find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key))?;
    Some(decode_percent(pair.1))
}

fn decode_percent(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).and_then(hex_byte);
        match (first, escaped) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*first),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex_byte(hex: &str) -> Option<u8> {
    hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}

pub fn response(status: &str, body: &str, keep_alive: bool, head_only: bool) -> Vec<u8> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let mut out = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if !head_only {
        out.extend_from_slice(body.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_a_request() {
        let text = "GET /echo?msg=a%20b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        let got = request(text);
        assert_eq!((got.path.as_str(), got.query.as_str()), ("/echo", "msg=a%20b"));
        assert_eq!((got.keep_alive, got.body_bytes, got.head_bytes), (true, 3, text.len() - 3));
        assert!(!request("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(request("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
        assert!(!request("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n").keep_alive);
    }

    #[test]
    fn waits_for_the_whole_head_and_refuses_garbage() {
        let whole = b"GET / HTTP/1.1\r\n\r\n";
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), Parsed::Incomplete);
        }
        for bad in [
            "GET\r\n\r\n",
            "GET / HTTP/2\r\n\r\n",
            "\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nnocolon\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), Parsed::Bad("400 Bad Request"), "{bad:?}");
        }
        assert_eq!(parse(b"GET / HTTP/1.1\r\nA: \xff\r\n\r\n"), Parsed::Bad("400 Bad Request"));
        assert_eq!(parse(&[b'x'; HEAD_LIMIT_BYTES]), Parsed::Bad("431 Request Header Fields Too Large"));
        let long = b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n";
        assert_eq!(parse(long), Parsed::Bad("413 Content Too Large"));
    }

    #[test]
    fn decodes_query_values() {
        assert_eq!(query_value("a=1&msg=x%2By+z%zz%", "msg"), Some("x+y z%zz%".into()));
        assert_eq!(query_value("msg", "msg"), None);
        assert_eq!(query_value("msg=%+1", "msg"), Some("% 1".into()));
    }
}
