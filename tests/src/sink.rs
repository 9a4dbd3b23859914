//! Takes JSON by HTTP, as a collector's or an Alertmanager's next stop.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use serde_json::Value;

/// What came: bodies of requests by path, in the order of arrival.
pub type Received = Arc<Mutex<Vec<(String, Value)>>>;

/// Takes JSON by HTTP until the process ends; gives the port.
pub fn listen(received: Received) -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port for a sink")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            let received = received.clone();
            std::thread::spawn(move || converse(stream, &received));
        }
    });
    Ok(port)
}

fn converse(mut stream: std::net::TcpStream, received: &Received) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let path = line.split(' ').nth(1)?.to_string();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok().filter(|n| *n > 0)?;
            match header.trim().to_ascii_lowercase().split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().ok()?,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body = serde_json::from_slice(&body).ok()?;
        received.lock().unwrap_or_else(PoisonError::into_inner).push((path, body));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}").ok()?;
    }
}
