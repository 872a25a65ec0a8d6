//! HTTP/1.1 by hand: keep-alive, any bytes, pipelining.

use super::{READ_TIMEOUT, Request, Response};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// One connection.
pub struct H1Conn {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// Start of what was not yet handed out.
    at: usize,
}

impl H1Conn {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(Self { socket, buffer: Vec::new(), at: 0 })
    }

    /// How long to wait for an answer before it counts as none.
    pub fn patience(&self, time: std::time::Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(time))
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    pub fn send(&mut self, request: &Request) -> io::Result<Response> {
        self.write(&request.to_h1())?;
        self.read(request.method == b"HEAD")
    }

    /// Reads one response; interim ones (1xx but 101) are passed over.
    pub fn read(&mut self, to_head: bool) -> io::Result<Response> {
        loop {
            let mut response = self.read_head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                continue;
            }
            let has_body = !to_head && !matches!(response.status, 101 | 204 | 304);
            if has_body {
                response.body = self.read_body(&response)?;
            }
            return Ok(response);
        }
    }

    fn read_head(&mut self) -> io::Result<Response> {
        let mut response = Response::default();
        let status_line = self.line()?;
        response.status = status_line
            .strip_prefix(b"HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|code| std::str::from_utf8(code).ok()?.parse().ok())
            .ok_or_else(|| bad(format!("no status line: {status_line:?}")))?;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(response);
            }
            let colon = line
                .iter()
                .position(|b| *b == b':')
                .ok_or_else(|| bad(format!("no header line: {line:?}")))?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            response.headers.push((name, value.to_vec()));
        }
    }

    fn read_body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| bad("content-length"))?;
            return self.take(length);
        }
        if response.header("transfer-encoding").as_deref() == Some("chunked") {
            return self.read_chunks();
        }
        self.read_to_end()
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = String::from_utf8_lossy(&self.line()?).into_owned();
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| bad("chunk size"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size)?);
            self.line()?;
        }
    }

    /// A body that lasts until the server closes.
    fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            body.extend_from_slice(&self.buffer[self.at..]);
            self.at = self.buffer.len();
            match self.fill() {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(body),
                Err(e) => return Err(e),
            }
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = self.at;
        loop {
            if let Some(n) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let end = searched + n;
                let line = &self.buffer[self.at..end];
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.at = end + 1;
                return Ok(line);
            }
            let unread = self.buffer.len() - self.at;
            self.fill()?;
            searched = self.at + unread;
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() - self.at < length {
            self.fill()?;
        }
        let bytes = self.buffer[self.at..self.at + length].to_vec();
        self.at += length;
        Ok(bytes)
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let mut chunk = [0; 16 * 1024];
        let n = self.socket.read(&mut chunk)?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(())
    }
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

/// A client that keeps its connection and opens a new one when the server closed it.
pub struct Client {
    address: SocketAddr,
    connection: Option<H1Conn>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.send(&Request::get(target))
    }

    /// Sends and waits for the answer. A request is sent a second time only when the kept
    /// connection turned out to be closed before any answer, so no request is counted twice.
    pub fn send(&mut self, request: &Request) -> Response {
        if let Some(mut kept) = self.connection.take() {
            match kept.send(request) {
                Ok(response) => return self.keep(kept, response),
                Err(e) if e.kind() != ErrorKind::UnexpectedEof => {
                    eprintln!("kept connection: {e}; connecting anew");
                }
                Err(_) => {}
            }
        }
        let mut fresh = H1Conn::connect(self.address)
            .unwrap_or_else(|e| panic!("cannot connect to {}: {e}", self.address));
        let response =
            fresh.send(request).unwrap_or_else(|e| panic!("no answer to {request:?}: {e}"));
        self.keep(fresh, response)
    }

    fn keep(&mut self, connection: H1Conn, response: Response) -> Response {
        if response.header("connection").as_deref() != Some("close") {
            self.connection = Some(connection);
        }
        response
    }
}
