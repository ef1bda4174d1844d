//! A server on this machine that answers like SQS: moto.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Ends when it is dropped.
pub(crate) struct Mock {
    server: Child,
    port: u16,
}

impl Mock {
    /// Starts `moto_server`, or what the variable `MOTO_SERVER` names.
    pub(crate) fn start() -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let program = std::env::var_os("MOTO_SERVER").unwrap_or_else(|| "moto_server".into());
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let mut mock = Mock { server, port };
        let since = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = mock.server.try_wait()?;
            ensure!(ended.is_none(), "the mock server ended: {ended:?}");
            ensure!(since.elapsed() < Duration::from_secs(60), "the mock server does not listen");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(mock)
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        // It keeps nothing; there is nobody to tell if it has ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
