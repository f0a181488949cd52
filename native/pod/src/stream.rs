//! One TCP (or SCTP) connection of the tiny server: bytes in, bytes out, no sockets, so that it can be tested with bytes.

use crate::http::{self, Parsed};

/// Input waits unread while this much output waits to be sent.
pub const OUTPUT_LIMIT_BYTES: usize = 64 << 10;
/// Longest command line of a plain connection; anything longer is echoed.
const COMMAND_LIMIT_BYTES: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Http,
    Plain,
}

enum Mode {
    Http {
        body_left: usize,
    },
    /// Not yet known whether commands or bytes to echo will come.
    Undecided,
    Commands,
    Echo,
}

pub struct Stream {
    mode: Mode,
    client: String,
    input: Vec<u8>,
    pub output: Vec<u8>,
    /// Nothing more will be answered: close once the output is sent.
    pub finished: bool,
    /// The process is to end with this code once the output is sent.
    pub exit_code: Option<i32>,
}

impl Stream {
    pub fn new(protocol: Protocol, client: String) -> Stream {
        let mode = if protocol == Protocol::Http { Mode::Http { body_left: 0 } } else { Mode::Undecided };
        Stream { mode, client, input: Vec::new(), output: Vec::new(), finished: false, exit_code: None }
    }

    pub fn receive(&mut self, bytes: &[u8], host_name: &str) {
        if self.finished {
            return;
        }
        if let Mode::Echo = self.mode {
            self.output.extend_from_slice(bytes);
            return;
        }
        self.input.extend_from_slice(bytes);
        if let Mode::Http { .. } = self.mode {
            self.answer_requests(host_name)
        } else {
            self.answer_lines(host_name, false)
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
    }

    /// The other side sends no more.
    pub fn end(&mut self, host_name: &str) {
        if !self.finished && !matches!(self.mode, Mode::Http { .. }) {
            self.answer_lines(host_name, true);
        }
        self.finished = true;
    }

    fn answer_lines(&mut self, host_name: &str, ended: bool) {
        if let Mode::Undecided = self.mode {
            match first_line_is_command(&self.input, ended) {
                Some(true) => self.mode = Mode::Commands,
                Some(false) => self.mode = Mode::Echo,
                None => return,
            }
        }
        if let Mode::Echo = self.mode {
            self.output.append(&mut self.input);
            return;
        }
        while let Some(end) = line_end(&self.input, ended) {
            let line: Vec<u8> = self.input.drain(..end).collect();
            let reply = answer(&line, host_name, &self.client).unwrap_or_else(|| trimmed(&line).to_vec());
            self.output.extend_from_slice(&reply);
            self.output.push(b'\n');
        }
        if self.input.len() > COMMAND_LIMIT_BYTES {
            self.finished = true;
        }
    }

    fn answer_requests(&mut self, host_name: &str) {
        loop {
            if let Mode::Http { body_left } = &mut self.mode {
                let skipped = self.input.len().min(*body_left);
                self.input.drain(..skipped);
                *body_left -= skipped;
                if *body_left > 0 {
                    return;
                }
            }
            match http::parse(&self.input) {
                Parsed::Incomplete => return,
                Parsed::Bad(status) => {
                    self.output.extend_from_slice(&http::response(status, "", false, false));
                    self.finished = true;
                    return;
                }
                Parsed::Request(request) => {
                    self.input.drain(..request.head_bytes);
                    self.mode = Mode::Http { body_left: request.body_bytes };
                    self.answer_request(&request, host_name);
                    if !request.keep_alive || self.exit_code.is_some() {
                        self.finished = true;
                        return;
                    }
                }
            }
        }
    }

    fn answer_request(&mut self, request: &http::Request, host_name: &str) {
        let value = |key: &str| http::query_value(&request.query, key);
        let (status, body) = match request.path.as_str() {
            "/" | "/hostname" | "/hostName" => ("200 OK", host_name.to_string()),
            "/clientip" => ("200 OK", self.client.clone()),
            "/healthz" => ("200 OK", "ok".to_string()),
            "/echo" => ("200 OK", value("msg").unwrap_or_default()),
            "/exit" => {
                self.exit_code = Some(value("code").and_then(|code| code.parse().ok()).unwrap_or(0));
                ("200 OK", String::new())
            }
            _ => ("404 Not Found", "there is no such page\n".to_string()),
        };
        let response = http::response(status, &body, request.keep_alive, request.method == "HEAD");
        self.output.extend_from_slice(&response);
    }
}

/// The answer to a command, without an end of line; nothing when it is none.
pub fn answer(line: &[u8], host_name: &str, client: &str) -> Option<Vec<u8>> {
    let line = trimmed(line);
    if line.eq_ignore_ascii_case(b"hostname") {
        return Some(host_name.as_bytes().to_vec());
    }
    if line == b"clientip" {
        return Some(client.as_bytes().to_vec());
    }
    line.strip_prefix(b"echo ").map(<[u8]>::to_vec)
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Length of the first line with its end; of everything when no more will come.
fn line_end(input: &[u8], ended: bool) -> Option<usize> {
    let found = input.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
    found.or(if ended && !input.is_empty() { Some(input.len()) } else { None })
}

/// Nothing while it could still become either.
fn first_line_is_command(input: &[u8], ended: bool) -> Option<bool> {
    if let Some(end) = line_end(input, ended) {
        return Some(end <= COMMAND_LIMIT_BYTES && answer(&input[..end], "", "").is_some());
    }
    let may_become = [&b"hostname\r\n"[..], b"hostName\r\n", b"clientip\r\n", b"echo "].iter().any(|word| {
        let common = word.len().min(input.len());
        word[..common] == input[..common] && (input.len() <= word.len() || *word == b"echo ")
    });
    if may_become && input.len() <= COMMAND_LIMIT_BYTES && !ended {
        None
    } else {
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(chunks: &[&[u8]]) -> Vec<u8> {
        let mut stream = Stream::new(Protocol::Plain, "10.0.0.1:5".into());
        for chunk in chunks {
            stream.receive(chunk, "pod-1");
        }
        stream.end("pod-1");
        stream.output
    }

    #[test]
    fn answers_commands_however_they_are_cut() {
        assert_eq!(plain(&[b"hostname\nclientip\necho a b\nwhat\n"]), b"pod-1\n10.0.0.1:5\na b\nwhat\n");
        assert_eq!(plain(&[b"h", b"ostn", b"ame", b"\r", b"\n"]), b"pod-1\n");
        assert_eq!(plain(&[b"clientip"]), b"10.0.0.1:5\n");
        assert_eq!(plain(&[b"echo ", b"x"]), b"x\n");
    }

    #[test]
    fn echoes_everything_else_byte_for_byte() {
        for text in [&b"hostnames\n"[..], b"\n", b"WEFT\0\xff", b"echo\n", b"hell", b"hostname x"] {
            assert_eq!(plain(&[text]), text);
            let single: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(plain(&single), text);
        }
        let long = [&b"echo "[..], &[b'x'; 3000]].concat();
        assert_eq!(plain(&[&long]), long);
    }

    #[test]
    fn an_echo_does_not_wait_for_a_line() {
        let mut stream = Stream::new(Protocol::Plain, String::new());
        stream.receive(b"WEFT", "pod-1");
        assert_eq!(stream.output, b"WEFT");
    }

    #[test]
    fn serves_requests_in_a_row() {
        let mut stream = Stream::new(Protocol::Http, "[fd00::1]:7".into());
        stream.receive(b"POST /clientip HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", "pod-1");
        stream.receive(b"cdeGET /hostname HTTP/1.1\r\n\r\nGET /nope HTTP/1.1\r\nConnection: close\r\n\r\n", "pod-1");
        let text = String::from_utf8(stream.output).unwrap();
        assert!(text.contains("\r\n\r\n[fd00::1]:7HTTP/1.1 200 OK"), "{text}");
        assert!(text.contains("\r\n\r\npod-1HTTP/1.1 404 Not Found"), "{text}");
        assert!(stream.finished);
    }

    #[test]
    fn garbage_ends_the_connection() {
        let mut stream = Stream::new(Protocol::Http, String::new());
        stream.receive(&[0xff; 9000], "pod-1");
        assert!(stream.finished && stream.output.starts_with(b"HTTP/1.1 431"));
    }

    #[test]
    fn exit_carries_its_code() {
        let mut stream = Stream::new(Protocol::Http, String::new());
        stream.receive(b"GET /exit?code=3 HTTP/1.1\r\n\r\n", "pod-1");
        assert_eq!((stream.exit_code, stream.finished), (Some(3), true));
    }
}
