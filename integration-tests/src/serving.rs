//! A server on a thread and a runtime of its own, which ends with the value.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

/// Runs until it is dropped.
pub(crate) struct Serving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Serving {
    /// Runs what `serve` gives, inside a runtime. Servers bind before: [`bind`].
    pub fn start<F: Future<Output = ()>>(serve: impl FnOnce() -> F + Send + 'static) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                tokio::select! {
                    () = serve() => {}
                    _ = stopped => {}
                }
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A free port of the loopback interface, whose connections wait to be accepted.
pub(crate) fn bind() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("a bound socket has an address");
    (listener, address)
}

/// Accepts connections and hands each to a task of its own. While `refuses` holds, connections are
/// refused, and open ones closed.
pub(crate) async fn accept<T, F>(
    listener: std::net::TcpListener,
    mut state: watch::Receiver<T>,
    refuses: impl Fn(&T) -> bool,
    converse: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::from_std(listener).expect("inside a runtime");
    let address = listener.local_addr().expect("a bound socket has an address");
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let refused = refuses(&state.borrow_and_update());
        if refused {
            listener = None;
            connections.shutdown().await;
            // The starter is gone when this fails, and the server with it.
            if state.changed().await.is_err() {
                return;
            }
            continue;
        }
        let open = match listener.take() {
            Some(open) => open,
            None => TcpListener::bind(address).await.expect("the port that we had"),
        };
        tokio::select! {
            accepted = open.accept() => {
                if let Ok((socket, _)) = accepted {
                    let _ = socket.set_nodelay(true);
                    connections.spawn(converse(socket));
                }
            }
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            // Frees what ended connections held.
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
        listener = Some(open);
    }
}
