//! A server behind a line that can be held up and cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

/// What the line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Line {
    /// All goes on.
    Works,
    /// Nothing gets through; connections stay open. A stopped server looks like this.
    Hangs,
    /// Requests get through, replies do not.
    LosesReplies,
    /// Connections are closed, also new ones.
    IsCut,
    /// Requests get through, and the connection is closed instead of the reply.
    CutsReplies,
}

const ALL: [Line; 5] =
    [Line::Works, Line::Hangs, Line::LosesReplies, Line::IsCut, Line::CutsReplies];
const TICK: Duration = Duration::from_millis(5);

/// A server behind a line that can be held up and cut.
pub struct Proxy {
    address: SocketAddr,
    line: Arc<AtomicU8>,
}

impl Proxy {
    /// A line to `server`, on a port of its own.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("no port: {e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("no address: {e}"));
        let line = Arc::new(AtomicU8::new(Line::Works as u8));
        let of_all = Arc::clone(&line);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                pump(&client, &server, &of_all, false);
                pump(&server, &client, &of_all, true);
            }
        });
        Proxy { address, line }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on.
    pub fn set(&self, line: Line) {
        self.line.store(line as u8, Ordering::SeqCst);
    }
}

/// One direction of one connection, in a thread.
fn pump(from: &TcpStream, to: &TcpStream, line: &Arc<AtomicU8>, replies: bool) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    let line = Arc::clone(line);
    thread::spawn(move || {
        let _ = from.set_read_timeout(Some(TICK));
        let mut bytes = [0; 16_384];
        loop {
            let mode = ALL[usize::from(line.load(Ordering::SeqCst))];
            match mode {
                Line::IsCut => break,
                Line::Hangs => {
                    thread::sleep(TICK);
                    continue;
                }
                _ => {}
            }
            let read = match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if is_pause(&error) => continue,
                Err(_) => break,
            };
            match ALL[usize::from(line.load(Ordering::SeqCst))] {
                Line::LosesReplies if replies => {}
                Line::CutsReplies if replies => break,
                _ => {
                    if to.write_all(&bytes[..read]).is_err() {
                        break;
                    }
                }
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

fn is_pause(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
