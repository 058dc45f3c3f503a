//! What a server that is a process of its own needs, and a child of another program too: a
//! listener, a line that says where it is, and an end.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

use serde::Serialize;
use tokio::io::AsyncReadExt;

/// Listens on an address, with room for hundreds of users that connect at once; std's backlog of
/// 128 is too short for that.
///
/// # Errors
/// When the address cannot be used.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4_096)?;
    Ok(socket.into())
}

/// Says on standard output where a server listens: one line of JSON.
///
/// # Errors
/// When nobody can be told.
pub fn announce(listening: &impl Serialize) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(listening)?)?;
    stdout.flush()
}

/// Waits for Ctrl-C or, where `with_stdin`, for the end of standard input: so a child ends when
/// its parent does, however that came about.
pub async fn ended(with_stdin: bool) {
    let stdin_ended = async {
        let mut rest = Vec::new();
        // An error is an end as well.
        let _ = tokio::io::stdin().read_to_end(&mut rest).await;
    };
    tokio::select! {
        // Without a handler the default action ends the process just as well.
        _ = tokio::signal::ctrl_c() => {}
        () = stdin_ended, if with_stdin => {}
    }
}
