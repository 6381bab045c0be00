// Nothing opens an association before there are WebRTC endpoints.
#[allow(dead_code)]
mod handshake;

fn main() {}
