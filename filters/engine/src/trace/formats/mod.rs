//! The forms of a trace context on the wire, one file each. A parser takes the bytes of header
//! values, allocates nothing, and answers with what they say or with nothing.
