//! A control plane that hands out configurations of filters over ADS, state of the world and delta, the way Istio's
//! does to its proxies, and hears what becomes of them.

pub mod messages;
mod streams;

use crate::serving::{self, Serving};
use crate::wait::{DEADLINE, wait_for};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use messages::{EXTENSION_CONFIG, TypedExtensionConfig, any};
use prost_types::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What there is to be had: each resource with the version that it came with.
#[derive(Clone, Default)]
struct Offer {
    version: u64,
    resources: BTreeMap<String, (u64, Any)>,
}

/// What proxies said.
#[derive(Default)]
struct Heard {
    asked: BTreeSet<String>,
    acked: u64,
    /// Version and message of what was refused.
    nacked: Vec<(u64, String)>,
}

type Hearing = Arc<Mutex<Heard>>;

fn lock(heard: &Hearing) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running control plane; it ends with the value.
pub struct ControlPlane {
    pub address: SocketAddr,
    offer: watch::Sender<Offer>,
    heard: Hearing,
    _serving: Serving,
}

impl ControlPlane {
    pub fn start() -> Self {
        let (listener, address) = serving::bind();
        let (offer, following) = watch::channel(Offer::default());
        let heard = Hearing::default();
        let shared = heard.clone();
        let serving = Serving::start(move || async move {
            // Never refuses.
            let (_keep, always) = watch::channel(());
            let talk = move |socket| converse(socket, following.clone(), shared.clone());
            serving::accept(listener, always, |()| false, talk).await;
        });
        Self { address, offer, heard, _serving: serving }
    }

    /// Has these from now on, besides what it has already under other names.
    pub fn offer(&self, configs: impl IntoIterator<Item = TypedExtensionConfig>) {
        self.offer.send_modify(|offer| {
            offer.version += 1;
            for config in configs {
                let resource = (offer.version, any(EXTENSION_CONFIG, &config));
                offer.resources.insert(config.name, resource);
            }
        });
    }

    /// The same, for something that a proxy has asked for: waits for its word, which is an error when it refuses.
    pub fn push(
        &self,
        configs: impl IntoIterator<Item = TypedExtensionConfig>,
    ) -> Result<(), String> {
        self.offer(configs);
        let version = self.offer.borrow().version;
        wait_for("the proxy takes or refuses", DEADLINE, || {
            let heard = lock(&self.heard);
            let refused = heard.nacked.iter().find(|(of, _)| *of == version);
            match refused {
                Some((_, message)) => Some(Err(message.clone())),
                None => (heard.acked >= version).then_some(Ok(())),
            }
        })
    }

    /// Names that proxies have asked for so far.
    pub fn asked(&self) -> BTreeSet<String> {
        lock(&self.heard).asked.clone()
    }

    /// How many answers were refused.
    pub fn refusals(&self) -> usize {
        lock(&self.heard).nacked.len()
    }
}

async fn converse(socket: TcpStream, offer: watch::Receiver<Offer>, heard: Hearing) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (offer, heard) = (offer.clone(), heard.clone());
        async move { Ok::<_, Infallible>(streams::serve(request, offer, heard).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    // A connection that Envoy cuts is no event of the control plane.
    let _ = server.http2_only().serve_connection(TokioIo::new(socket), service).await;
}
