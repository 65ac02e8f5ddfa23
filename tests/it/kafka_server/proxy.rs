//! A way to a broker that can be cut, as a network's can.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Hands on what comes until it is cut. Ends with the test binary.
pub struct Proxy {
    port: u16,
    way: Arc<Mutex<Way>>,
}

#[derive(Default)]
struct Way {
    /// The port it leads to; none while it is cut.
    to: Option<u16>,
    /// Both ends of each connection.
    open: Vec<[TcpStream; 2]>,
}

impl Proxy {
    /// Takes a port; leads nowhere yet.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, way) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Way>>::default());
        let connecting = Arc::clone(&way);
        thread::spawn(move || {
            for from in listener.incoming() {
                // What can't be led on is closed, as everything is while the way is cut.
                let _ = from.and_then(|from| connect(from, &mut connecting.lock().unwrap()));
            }
        });
        Self { port, way }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What clients are told as `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Leads on to a port of the loopback.
    pub fn lead_to(&self, port: u16) {
        self.way.lock().unwrap().to = Some(port);
    }

    /// Cuts every connection, and closes new ones until it leads on again; how many were cut.
    pub fn cut(&self) -> usize {
        let mut way = self.way.lock().unwrap();
        way.to = None;
        // An end may have been closed before.
        let closed =
            |ends: &[TcpStream; 2]| ends.each_ref().map(|end| end.shutdown(Shutdown::Both)).iter().all(Result::is_ok);
        way.open.drain(..).filter(closed).count()
    }
}

fn connect(from: TcpStream, way: &mut Way) -> io::Result<()> {
    let Some(port) = way.to else { return Ok(()) };
    let to = TcpStream::connect(("127.0.0.1", port))?;
    for (mut from, mut to) in [(from.try_clone()?, to.try_clone()?), (to.try_clone()?, from.try_clone()?)] {
        thread::spawn(move || {
            // However it ends, so does the other direction.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    way.open.push([from, to]);
    Ok(())
}
