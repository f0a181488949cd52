//! What runs in the pods of a lab. One small static binary, so that hundreds of pods fit on one machine.

mod http;
mod meter;
mod pause;
mod ping;
mod ping_socket;
mod run;
mod serve;
mod stream;
mod terminal;
mod udp;

const HELP: &str = "\
weft-pod: what runs in the pods of a weft lab

  weft-pod run [options] -- COMMAND [ARGUMENT...]
      Enters namespaces, then becomes the command.
        --netns PATH          join this network namespace
        --join PID            join the network, UTS and mount namespaces of a process
        --hostname NAME       make a UTS namespace with this host name
        --bind FILE:TARGET    make a mount namespace that shows FILE at TARGET (repeatable); a TARGET that does
                              not exist is left out with a warning
        --mount-ns            make a mount namespace also without --bind; /sys is that of the network namespace
        --pid-ns              make a process namespace; this process stays outside and passes signals on
        --tty                 run the command on a terminal of its own, whose bytes are standard input and output
        --sizes FD            lines COLUMNS ROWS on this descriptor set the terminal's size, before and while it runs
        --cwd DIRECTORY       working directory of the command
        --setenv KEY=VALUE    add to the environment (repeatable)
        --clear-env           start from an empty environment

  weft-pod serve [--http PORT]... [--tcp PORT]... [--udp PORT]... [--sctp PORT]...
      Answers who it is and who asks, on IPv4 and IPv6. Without options: --http 8080 --tcp 9000 --udp 9001.
        HTTP: / /hostname /clientip /echo?msg=TEXT /healthz /exit?code=N
        UDP, and the first line of a TCP or SCTP connection: hostname | clientip | echo TEXT
        A TCP or SCTP connection that begins with anything else is echoed byte for byte.

  weft-pod pause
      Waits for SIGTERM and reaps children.

  weft-pod ping1k --to ADDRESS [--icmp | --udp PORT | --tcp PORT] [options]
      Sends numbered messages at a steady rate and prints a JSON line: sent, received, lost, reordered, gaps.
        --rate N              messages a second (1000)
        --ping-pong           send the next message when the last one was answered
        --duration-ms N       how long to send; without it until SIGTERM or SIGINT
        --wait-ms N           how long to wait for the last answers (1000)
        --size N              bytes a message, at least 32 (64)
        --from ADDRESS        send from this address
      Prints \"first reply\" on standard error when the first answer is in.
";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("run") => run::main(&arguments[1..]),
        Some("serve") => serve::main(&arguments[1..]),
        Some("pause") => pause::main(&arguments[1..]),
        Some("ping1k") => ping::main(&arguments[1..]),
        Some("--help" | "-h" | "help") => {
            print!("{HELP}");
            Ok(0)
        }
        Some("--version") => {
            println!("weft-pod {}", env!("CARGO_PKG_VERSION"));
            Ok(0)
        }
        Some(other) => Err(format!("there is no command {other}; see weft-pod --help")),
        None => Err("a command is missing; see weft-pod --help".into()),
    };
    match result {
        Ok(code) => std::process::exit(code),
        Err(problem) => {
            eprintln!("weft-pod: {problem}");
            std::process::exit(125)
        }
    }
}
