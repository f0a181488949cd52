//! The plugin as a runtime sees it: the built binary, executed against an agent that this test plays.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

const CONFIG: &[u8] = br#"{"cniVersion":"1.0.0","name":"weft","type":"weft"}"#;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("weft-cni-test-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn execute(binary: &Path, command: &str, socket: Option<&Path>, stdin: &[u8]) -> Output {
    let mut plugin = Command::new(binary);
    plugin.env_clear().env("CNI_COMMAND", command).env("CNI_IFNAME", "eth0").env("OTHER", "hidden");
    if let Some(path) = socket {
        plugin.env("WEFT_CNI_SOCKET", path);
    }
    let mut child = plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The plugin stops reading a configuration that is too long.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn built() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_weft-cni"))
}

/// Answers one request with `reply` and returns what was asked.
fn agent(path: &Path, reply: Vec<u8>) -> thread::JoinHandle<Vec<u8>> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let body = read_request(&mut stream);
        // Byte by byte: the plugin has to put the reply together.
        for byte in reply {
            stream.write_all(&[byte]).unwrap();
        }
        body
    })
}

fn read_request(stream: &mut impl Read) -> Vec<u8> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(&header[..4], b"WFT1");
    let mut body = vec![0; u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize];
    stream.read_exact(&mut body).unwrap();
    body
}

fn reply(code: u8, text: &[u8]) -> Vec<u8> {
    let mut out = vec![code];
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text);
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn carries_the_request_and_the_answer() {
    let folder = Folder::new("carry");
    let socket = folder.0.join("cni.sock");
    let answer = agent(&socket, reply(0, b"{\"ips\":[]}"));
    let output = execute(built(), "ADD", Some(&socket), CONFIG);
    assert_eq!(text(&output.stdout), "{\"ips\":[]}");
    assert_eq!(output.status.code(), Some(0));
    let asked = text(&answer.join().unwrap());
    let (environment, stdin) = asked.split_once("\0\0").unwrap();
    let mut entries: Vec<&str> = environment.split('\0').collect();
    entries.sort_unstable();
    assert_eq!(entries, ["CNI_COMMAND=ADD", "CNI_IFNAME=eth0"]);
    assert_eq!(stdin.as_bytes(), CONFIG);
}

#[test]
fn passes_the_exit_code_on() {
    let folder = Folder::new("code");
    let socket = folder.0.join("cni.sock");
    let answer = agent(&socket, reply(7, b"{\"code\":7}"));
    let output = execute(built(), "CHECK", Some(&socket), b"");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(7), "{\"code\":7}".into()));
    answer.join().unwrap();
}

#[test]
fn the_link_beside_the_binary_wins_whatever_its_length() {
    let folder = Folder::new("link");
    let socket = folder.0.join("cni.sock");
    let near = Folder(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("link-{}", std::process::id())));
    let directory = near.0.join("d".repeat(120)).join("cni-bin");
    fs::create_dir_all(&directory).unwrap();
    let binary = directory.join("weft");
    // Linked, not copied: a file just written may be busy when it is executed.
    fs::hard_link(built(), &binary).unwrap();
    symlink(&socket, directory.join(".weft.sock")).unwrap();
    let answer = agent(&socket, reply(0, b"found"));
    let output = execute(&binary, "ADD", Some(&folder.0.join("wrong.sock")), CONFIG);
    assert_eq!(text(&output.stdout), "found");
    answer.join().unwrap();
}

/// How an agent hands its reply over.
#[derive(Clone, Copy)]
enum Pieces {
    One,
    Bytes,
    /// It ends after so many bytes.
    CutAfter(usize),
}

/// Executes the plugin with an agent at the link beside it, where the usual way is taken before the C library starts.
fn beside_the_link(name: &str, stdin: &[u8], whole: &[u8], pieces: Pieces) -> (Output, Vec<u8>) {
    let near = Folder(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id())));
    fs::create_dir_all(&near.0).unwrap();
    let binary = near.0.join("weft");
    fs::hard_link(built(), &binary).unwrap();
    let folder = Folder::new(name);
    let socket = folder.0.join("cni.sock");
    symlink(&socket, near.0.join(".weft.sock")).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let whole = whole.to_vec();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let body = read_request(&mut stream);
        match pieces {
            Pieces::One => stream.write_all(&whole).unwrap(),
            Pieces::Bytes => whole.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap()),
            Pieces::CutAfter(length) => stream.write_all(&whole[..length]).unwrap(),
        }
        body
    });
    let output = execute(&binary, "ADD", None, stdin);
    assert!(output.status.code().is_some(), "{:?}", output.status);
    (output, server.join().unwrap())
}

#[test]
fn carries_every_size_before_and_after_the_c_library() {
    let (short, long) = (b"{}".to_vec(), vec![b'x'; 100_000]);
    let edge = vec![b' '; 64 << 10];
    for (n, stdin) in [&short, &edge, &long, &vec![]].into_iter().enumerate() {
        for (m, stdout) in [&short, &edge, &long, &vec![]].into_iter().enumerate() {
            for (p, pieces) in [Pieces::One, Pieces::Bytes].into_iter().enumerate() {
                let (output, body) = beside_the_link(&format!("sizes-{n}{m}{p}"), stdin, &reply(3, stdout), pieces);
                assert_eq!(output.status.code(), Some(3));
                assert!(output.stdout == **stdout, "{n} {m} {p}: {} bytes", output.stdout.len());
                assert_eq!(text(&body[body.len() - stdin.len()..]), text(stdin));
                assert!(body.starts_with(b"CNI_"));
            }
        }
    }
}

#[test]
fn where_it_cannot_go_inside_the_agents_own_error_is_printed() {
    for pieces in [Pieces::One, Pieces::Bytes] {
        let (output, _) = beside_the_link("inside", CONFIG, &reply(254, b"{\"code\":3}"), pieces);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), "{\"code\":3}".into()));
    }
}

#[test]
fn a_reply_cut_short_after_any_byte_is_told() {
    let whole = reply(0, b"{\"ips\":[]}");
    for length in 0..whole.len() {
        let (output, _) = beside_the_link(&format!("short-{length}"), CONFIG, &whole, Pieces::CutAfter(length));
        let json = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{json}");
        assert!(json.contains("\"code\": 11") && json.contains("1.0.0") && json.contains("ended before"), "{json}");
    }
}

#[test]
fn more_environment_than_the_short_way_takes_is_carried() {
    let folder = Folder::new("many");
    let near = Folder(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("many-{}", std::process::id())));
    fs::create_dir_all(&near.0).unwrap();
    let binary = near.0.join("weft");
    fs::hard_link(built(), &binary).unwrap();
    let socket = folder.0.join("cni.sock");
    symlink(&socket, near.0.join(".weft.sock")).unwrap();
    for count in [1, 31, 32, 33, 100] {
        let answer = agent(&socket, reply(0, b"ok"));
        let mut plugin = Command::new(&binary);
        plugin.env_clear().env("CNI_COMMAND", "ADD").stdin(Stdio::null());
        for n in 1..count {
            plugin.env(format!("CNI_{n}"), "v".repeat(n));
        }
        assert_eq!(text(&plugin.output().unwrap().stdout), "ok");
        let body = answer.join().unwrap();
        assert_eq!(body.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).count(), count);
        fs::remove_file(&socket).unwrap();
    }
}

#[test]
fn an_absent_agent_means_try_again_later() {
    let folder = Folder::new("absent");
    let socket = folder.0.join("cni.sock");
    let missing = execute(built(), "ADD", Some(&socket), CONFIG);
    assert_eq!(missing.status.code(), Some(1));
    let json = text(&missing.stdout);
    assert!(json.contains("\"code\": 11") && json.contains("\"cniVersion\": \"1.0.0\""), "{json}");
    assert!(json.contains(socket.to_str().unwrap()), "{json}");

    drop(UnixListener::bind(&socket).unwrap());
    let refused = text(&execute(built(), "DEL", Some(&socket), b"garbage \xff").stdout);
    assert!(refused.contains("\"code\": 11") && refused.contains("\"cniVersion\": \"1.1.0\""), "{refused}");
    let status = text(&execute(built(), "STATUS", Some(&socket), CONFIG).stdout);
    assert!(status.contains("\"code\": 50"), "{status}");
    let version = execute(built(), "VERSION", Some(&socket), CONFIG);
    assert_eq!(version.status.code(), Some(0));
    assert!(text(&version.stdout).contains("\"supportedVersions\": [\"0.1.0\", "));
}

#[test]
fn a_reply_cut_short_means_try_again_later() {
    let whole = reply(0, b"{\"ips\":[]}");
    for length in [0, 1, 4, 5, whole.len() - 1] {
        let folder = Folder::new(&format!("cut-{length}"));
        let socket = folder.0.join("cni.sock");
        let answer = agent(&socket, whole[..length].to_vec());
        let output = execute(built(), "ADD", Some(&socket), CONFIG);
        answer.join().unwrap();
        let json = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{json}");
        assert!(json.contains("\"code\": 11") && !json.contains("ips"), "{json}");
    }
}

#[test]
fn a_stranger_on_the_socket_is_told_apart() {
    let folder = Folder::new("stranger");
    let socket = folder.0.join("cni.sock");
    let answer = agent(&socket, b"HTTP/1.1 400 Bad Request\r\n".to_vec());
    let json = text(&execute(built(), "ADD", Some(&socket), CONFIG).stdout);
    assert!(json.contains("\"code\": 11") && json.contains("did not answer as the agent does"), "{json}");
    let _ = answer.join();
}

#[test]
fn a_refusal_before_the_whole_request_is_read_arrives() {
    let folder = Folder::new("early");
    let socket = folder.0.join("cni.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&reply(1, b"{\"code\":6}")).unwrap();
        let _ = stream.shutdown(Shutdown::Both);
    });
    let output = execute(built(), "ADD", Some(&socket), &vec![b' '; 4 << 20]);
    server.join().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), "{\"code\":6}".into()));
}

#[test]
fn a_configuration_without_end_is_refused() {
    let folder = Folder::new("long");
    let output = execute(built(), "ADD", Some(&folder.0.join("none")), &vec![b'['; (8 << 20) + 1]);
    let json = text(&output.stdout);
    assert!(json.contains("\"code\": 6"), "{json}");
    assert_eq!(output.status.code(), Some(1));
}
