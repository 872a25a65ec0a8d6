//! Frames of RFC 9113 and literals of RFC 7541, as far as a client needs them.

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITY: u8 = 0x20;

/// The largest payload that every peer takes (RFC 9113, 4.2).
pub const MAX_FRAME: usize = 16_384;

/// RFC 9113, 4.1: length, type, flags, stream, payload.
pub fn push_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

pub fn unpadded(kind: u8, flags: u8, payload: &[u8]) -> &[u8] {
    let mut rest = payload;
    if kind == CONTINUATION {
        return rest;
    }
    if flags & PADDED != 0 {
        let padding = usize::from(rest[0]);
        rest = &rest[1..rest.len() - padding];
    }
    if kind == HEADERS && flags & PRIORITY != 0 {
        rest = &rest[5..];
    }
    rest
}

pub fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

/// RFC 7541, 6.2.2: literal header field without indexing, new name; no Huffman code.
pub fn encode(headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in headers {
        out.push(0);
        for string in [name, value] {
            length_prefix(&mut out, string.len());
            out.extend_from_slice(string);
        }
    }
    out
}

/// RFC 7541, 5.1: an integer with a 7-bit prefix.
fn length_prefix(out: &mut Vec<u8>, length: usize) {
    if length < 127 {
        out.push(length as u8);
        return;
    }
    out.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
}
