//! The bytes that the plugin and the agent exchange, and the little that the plugin itself must understand of CNI:
//! which version the error it prints has to name.
//!
//! ```text
//! request   "WFT1"  u32 length (big endian)  KEY=VALUE\0 ...  \0  stdin
//! reply     u8 exit code  u32 length (big endian)  stdout
//! ```
//!
//! An agent that cannot open the container's namespace itself (it may be in a container of its own, where paths lead
//! elsewhere) replies with the exit code `FROM_INSIDE`. The same request then comes once more, its first entry saying so,
//! over a connection that the plugin has made inside that namespace: the kernel knows a socket's namespace, and tells the
//! agent.
//!
//! Sources: CNI specification 1.1.0, sections "Parameters" and "Error".

use std::io::{self, Read};

pub const MAGIC: &[u8; 4] = b"WFT1";
/// The first entry of a request that is sent from inside the container's namespace.
const INSIDE: &[u8] = b"WEFT_INSIDE=1";
/// The exit code of a reply that asks for such a request. Its output is the error, should that not be possible.
pub const FROM_INSIDE: u8 = 254;
/// The newest version that the agent speaks; named in errors when the request names none.
pub const NEWEST_VERSION: &str = "1.1.0";
/// A network configuration longer than this is refused before anything is sent.
pub const STDIN_LIMIT_BYTES: usize = 8 << 20;
/// A reply longer than this is not the agent's.
pub const REPLY_LIMIT_BYTES: usize = 16 << 20;
pub const REPLY_HEADER_BYTES: usize = 5;

const HEADER_BYTES: usize = 8;

/// One request, ready to be sent.
pub struct Request {
    bytes: Vec<u8>,
    stdin_offset: usize,
}

#[derive(Debug)]
pub enum RequestError {
    Stdin(io::Error),
    StdinTooLong,
}

impl Request {
    /// Frames the environment entries given (each `KEY=VALUE`, without a NUL) and everything that `stdin` has.
    pub fn read<'a>(entries: impl Iterator<Item = &'a [u8]>, stdin: &mut impl Read) -> Result<Request, RequestError> {
        let mut bytes = Vec::with_capacity(16 << 10);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        for entry in entries {
            bytes.extend_from_slice(entry);
            bytes.push(0);
        }
        bytes.push(0);
        let stdin_offset = bytes.len();
        // One byte past the limit tells "exactly the limit" from "longer".
        stdin.take(STDIN_LIMIT_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(RequestError::Stdin)?;
        if bytes.len() - stdin_offset > STDIN_LIMIT_BYTES {
            return Err(RequestError::StdinTooLong);
        }
        let length = (bytes.len() - HEADER_BYTES) as u32;
        bytes[4..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        Ok(Request { bytes, stdin_offset })
    }

    /// The same request, as it is sent from inside the container's namespace.
    pub fn from_inside(&self, entries: &[Vec<u8>]) -> Result<Request, RequestError> {
        let entries = std::iter::once(INSIDE).chain(entries.iter().map(Vec::as_slice));
        Request::read(entries, &mut self.stdin())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn stdin(&self) -> &[u8] {
        &self.bytes[self.stdin_offset..]
    }
}

/// The value of the top-level key `cniVersion` of a JSON object, when it looks like a version. Not a parser: it only keeps
/// track of strings and depth, so it also finds the version of a configuration that is broken further on.
pub fn scan_version(json: &[u8]) -> Option<&str> {
    let mut depth = 0usize;
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let end = end_of_string(json, at + 1)?;
                let text = &json[at + 1..end];
                at = end + 1;
                if depth == 1 && text == b"cniVersion" {
                    if let Some(value) = string_after_colon(json, at) {
                        return version_text(value);
                    }
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn end_of_string(json: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    while at < json.len() {
        match json[at] {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

fn string_after_colon(json: &[u8], start: usize) -> Option<&[u8]> {
    let at = skip_space(json, start);
    if json.get(at) != Some(&b':') {
        return None;
    }
    let at = skip_space(json, at + 1);
    if json.get(at) != Some(&b'"') {
        return None;
    }
    let end = end_of_string(json, at + 1)?;
    Some(&json[at + 1..end])
}

fn skip_space(json: &[u8], start: usize) -> usize {
    start + json[start..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Only digits and dots are echoed: the text goes into JSON without escaping.
fn version_text(value: &[u8]) -> Option<&str> {
    let plausible = !value.is_empty() && value.len() <= 16 && value.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    if plausible {
        std::str::from_utf8(value).ok()
    } else {
        None
    }
}

/// A CNI error object. `message` and `details` may hold any text.
pub fn error_json(version: &str, code: u32, message: &str, details: &str) -> String {
    let mut out = format!("{{\n  \"cniVersion\": \"{version}\",\n  \"code\": {code},\n  \"msg\": ");
    push_json_string(&mut out, message);
    out.push_str(",\n  \"details\": ");
    push_json_string(&mut out, details);
    out.push_str("\n}\n");
    out
}

fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_environment_and_stdin() {
        let entries: [&[u8]; 2] = [b"CNI_COMMAND=ADD", b"CNI_IFNAME=eth0"];
        let request = Request::read(entries.into_iter(), &mut &b"{}"[..]).unwrap();
        assert_eq!(request.bytes(), b"WFT1\0\0\0\x23CNI_COMMAND=ADD\0CNI_IFNAME=eth0\0\0{}");
        assert_eq!(request.stdin(), b"{}");
    }

    #[test]
    fn says_first_that_it_comes_from_inside() {
        let entries = [b"CNI_COMMAND=ADD".to_vec()];
        let request = Request::read(entries.iter().map(Vec::as_slice), &mut &b"{}"[..]).unwrap();
        let inside = request.from_inside(&entries).unwrap();
        assert_eq!(inside.bytes(), b"WFT1\0\0\0\x21WEFT_INSIDE=1\0CNI_COMMAND=ADD\0\0{}");
        assert_eq!(inside.stdin(), b"{}");
    }

    #[test]
    fn bounds_stdin() {
        let just = vec![b' '; STDIN_LIMIT_BYTES];
        assert!(Request::read(std::iter::empty(), &mut &just[..]).is_ok());
        let over = vec![b' '; STDIN_LIMIT_BYTES + 1];
        assert!(matches!(Request::read(std::iter::empty(), &mut &over[..]), Err(RequestError::StdinTooLong)));
    }

    #[test]
    fn finds_the_top_level_version_only() {
        assert_eq!(scan_version(br#"{"cniVersion":"0.4.0"}"#), Some("0.4.0"));
        assert_eq!(scan_version(br#"{"prevResult":{"cniVersion":"0.3.0"}, "cniVersion" : "1.0.0"}"#), Some("1.0.0"));
        assert_eq!(scan_version(br#"{"a":"\"cniVersion\":\"9\"","cniVersion":"1.0.0","#), Some("1.0.0"));
        assert_eq!(scan_version(br#"{"x":"cniVersion","cniVersion":"0.3.1""#), Some("0.3.1"));
        assert_eq!(scan_version(br#"{"cniVersion":1}"#), None);
        assert_eq!(scan_version(br#"{"cniVersion":"1.0\u0030"}"#), None);
        assert_eq!(scan_version(br#"{"cniVersion":""}"#), None);
        assert_eq!(scan_version(br#"}{"cniVersion":"1.0.0"}"#), None);
        assert_eq!(scan_version(b"\xff\xfe\"\\"), None);
        assert_eq!(scan_version(b""), None);
    }

    #[test]
    fn escapes_what_json_forbids() {
        let json = error_json("1.0.0", 11, "a\"b\\c\u{1}", "l1\nl2");
        assert!(json.contains(r#""msg": "a\"b\\c\u0001""#));
        assert!(json.contains(r#""details": "l1\nl2""#));
    }
}
