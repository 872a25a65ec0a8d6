//! HTTP/2 by hand: any header block that a client could send, in literal HPACK without Huffman, and
//! every frame of the answer.

use super::READ_TIMEOUT;
use super::h2_wire::*;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A header block, decoded.
pub type Block = Vec<(Vec<u8>, Vec<u8>)>;

/// All that came back on one stream.
#[derive(Debug, Default)]
pub struct H2Reply {
    /// Header blocks in order: headers, and trailers if any.
    pub blocks: Vec<Block>,
    pub data: Vec<u8>,
    /// The first block ended the stream: for gRPC, a trailers-only reply.
    pub headers_only: bool,
    /// The error code of RST_STREAM.
    pub reset: Option<u32>,
    /// The connection ended: the error code of GOAWAY, if one was sent.
    pub gone: Option<Option<u32>>,
}

impl H2Reply {
    pub fn status(&self) -> Option<u16> {
        self.header(":status")?.parse().ok()
    }

    /// The first line of that name, in any block.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.blocks.iter().flatten();
        let (_, value) = lines.find(|(n, _)| n == name.as_bytes())?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

/// One connection; streams are used one after the other.
pub struct H2Conn {
    socket: TcpStream,
    reader: BufReader<TcpStream>,
    decoder: fluke_hpack::Decoder<'static>,
    next_stream: u32,
}

impl H2Conn {
    /// Connects and exchanges settings with prior knowledge.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        let reader = BufReader::new(socket.try_clone()?);
        let decoder = fluke_hpack::Decoder::new();
        let mut this = Self { socket, reader, decoder, next_stream: 1 };
        this.socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        // INITIAL_WINDOW_SIZE as large as it gets, so that no answer waits for a window update.
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&0x7fff_ffff_u32.to_be_bytes());
        this.frame(SETTINGS, 0, 0, &settings)?;
        // The connection's own window starts at 65535 and is widened by a frame of its own.
        let wider = 0x7fff_ffff_u32 - 65_535;
        this.frame(WINDOW_UPDATE, 0, 0, &wider.to_be_bytes())?;
        Ok(this)
    }

    /// Writes a request and reads until its stream or the connection ends.
    pub fn request(&mut self, headers: &[(&[u8], &[u8])], body: Option<&[u8]>) -> H2Reply {
        let stream = self.next_stream;
        self.next_stream += 2;
        let block = encode(headers);
        let written = self.write_request(stream, &block, body);
        let mut reply = H2Reply::default();
        // A peer that refuses a header block closes while we still write; its answer counts.
        if self.read_reply(stream, &mut reply).is_err() || written.is_err() {
            reply.gone.get_or_insert(None);
        }
        reply
    }

    /// Writes all requests at once, each on a stream of its own, and gives their statuses.
    pub fn batch(&mut self, requests: &[Vec<(&[u8], &[u8])>]) -> io::Result<Vec<u16>> {
        let mut frames = Vec::new();
        for headers in requests {
            let block = encode(headers);
            let flags = END_STREAM | END_HEADERS;
            push_frame(&mut frames, HEADERS, flags, self.next_stream, &block);
            self.next_stream += 2;
        }
        self.socket.write_all(&frames)?;
        let mut statuses = Vec::with_capacity(requests.len());
        let mut ended = 0;
        while ended < requests.len() {
            let (kind, flags, _, payload) = self.read_frame()?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[])?,
                PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload)?,
                GOAWAY | RST_STREAM => return Err(io::Error::other(format!("frame {kind}"))),
                HEADERS => {
                    let block = self.decode(unpadded(kind, flags, &payload))?;
                    let status = block.iter().find(|(name, _)| name == b":status");
                    let status =
                        status.and_then(|(_, v)| std::str::from_utf8(v).ok()?.parse::<u16>().ok());
                    statuses.extend(status);
                }
                _ => {}
            }
            ended += usize::from(matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0);
        }
        Ok(statuses)
    }

    /// Writes a request, waits for what the caller waits for, and resets the stream.
    pub fn cancel(&mut self, headers: &[(&[u8], &[u8])], wait: impl FnOnce()) -> io::Result<()> {
        const CANCEL: u32 = 8;
        let stream = self.next_stream;
        self.next_stream += 2;
        let block = encode(headers);
        self.write_request(stream, &block, None)?;
        wait();
        self.frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
    }

    fn decode(&mut self, block: &[u8]) -> io::Result<Block> {
        let decoded = self.decoder.decode(block);
        decoded.map_err(|e| io::Error::other(format!("HPACK: {e:?}")))
    }

    fn write_request(&mut self, stream: u32, block: &[u8], body: Option<&[u8]>) -> io::Result<()> {
        let ends = if body.is_none() { END_STREAM } else { 0 };
        // A block without a line is a frame without a payload.
        let empty = block.is_empty().then_some(block);
        let mut chunks = empty.into_iter().chain(block.chunks(MAX_FRAME)).peekable();
        let mut kind = HEADERS;
        let mut flags = ends;
        while let Some(chunk) = chunks.next() {
            if chunks.peek().is_none() {
                flags |= END_HEADERS;
            }
            self.frame(kind, flags, stream, chunk)?;
            (kind, flags) = (CONTINUATION, 0);
        }
        match body {
            Some(body) => self.frame(DATA, END_STREAM, stream, body),
            None => Ok(()),
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(9 + payload.len());
        push_frame(&mut frame, kind, flags, stream, payload);
        self.socket.write_all(&frame)
    }

    fn read_reply(&mut self, stream: u32, reply: &mut H2Reply) -> io::Result<()> {
        let mut block = Vec::new();
        let mut ends = false;
        loop {
            let (kind, flags, id, payload) = self.read_frame()?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[])?,
                PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload)?,
                GOAWAY => {
                    let code = payload.get(4..8).map(be32);
                    reply.gone = Some(code);
                    // An error ends every stream; Envoy takes a second to close the socket.
                    if code != Some(0) {
                        return Ok(());
                    }
                }
                RST_STREAM if id == stream => {
                    reply.reset = payload.get(..4).map(be32);
                    return Ok(());
                }
                HEADERS | CONTINUATION => {
                    // Blocks of other streams pass the decoder too: its table is the connection's.
                    if kind == HEADERS {
                        ends = flags & END_STREAM != 0;
                        block.clear();
                    }
                    block.extend_from_slice(unpadded(kind, flags, &payload));
                    if flags & END_HEADERS == 0 {
                        continue;
                    }
                    let decoded = self.decode(&block)?;
                    if id == stream {
                        reply.headers_only = ends && reply.blocks.is_empty();
                        reply.blocks.push(decoded);
                    }
                    if id == stream && ends {
                        return Ok(());
                    }
                }
                DATA if id == stream => {
                    reply.data.extend_from_slice(unpadded(kind, flags, &payload));
                    if flags & END_STREAM != 0 {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }

    fn read_frame(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.reader.read_exact(&mut head)?;
        let length = be32(&[0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.reader.read_exact(&mut payload)?;
        let id = be32(&head[5..9]) & 0x7fff_ffff;
        Ok((head[3], head[4], id, payload))
    }
}
