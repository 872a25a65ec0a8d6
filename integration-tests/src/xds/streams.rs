//! The two streams of the aggregated discovery service. Both tell a proxy what it asked for and does not have yet,
//! and hear its verdicts: an answer's nonce is the version that it was made of.

use super::messages::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    EXTENSION_CONFIG, Resource, Status,
};
use super::{Hearing, Offer, lock};
use hyper::body::Incoming;
use hyper::{Request, Response};
use prost::Message;
use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use tokio::sync::{mpsc, watch};
use tonic::body::Body;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status as Error, Streaming};
use tonic_prost::ProstCodec;

const SERVICE: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";

pub(super) async fn serve(
    request: Request<Incoming>,
    offer: watch::Receiver<Offer>,
    heard: Hearing,
) -> Response<Body> {
    let request = request.map(Body::new);
    match request.uri().path().strip_prefix(SERVICE) {
        Some("StreamAggregatedResources") => {
            let stream = Stream::<Whole> { offer, heard, kind: PhantomData };
            Grpc::new(ProstCodec::default()).streaming(stream, request).await
        }
        Some("DeltaAggregatedResources") => {
            let stream = Stream::<Delta> { offer, heard, kind: PhantomData };
            Grpc::new(ProstCodec::default()).streaming(stream, request).await
        }
        _ => Error::unimplemented("no such method").into_http(),
    }
}

/// How a kind of stream spells what both say.
trait Kind: Send + 'static {
    type Asks: Message + Default + 'static;
    type Answer: Message + 'static;

    fn read(asks: Self::Asks) -> Said;
    /// All of it, or what has changed: `has` is what the proxy was told.
    fn answer(offer: &Offer, has: &BTreeMap<String, u64>) -> Option<Self::Answer>;
}

/// A request of either kind.
struct Said {
    type_url: String,
    asks_for: Vec<String>,
    /// Leaves out what it does not name.
    is_whole: bool,
    leaves: Vec<String>,
    nonce: String,
    error: Option<Status>,
}

struct Whole;

impl Kind for Whole {
    type Asks = DiscoveryRequest;
    type Answer = DiscoveryResponse;

    fn read(asks: DiscoveryRequest) -> Said {
        Said {
            type_url: asks.type_url,
            asks_for: asks.resource_names,
            is_whole: true,
            leaves: Vec::new(),
            nonce: asks.response_nonce,
            error: asks.error_detail,
        }
    }

    fn answer(offer: &Offer, has: &BTreeMap<String, u64>) -> Option<DiscoveryResponse> {
        let known = has.keys().filter_map(|name| offer.resources.get(name));
        let resources: Vec<_> = known.map(|(_, resource)| resource.clone()).collect();
        let version = offer.version.to_string();
        (!resources.is_empty()).then(|| DiscoveryResponse {
            version_info: version.clone(),
            resources,
            type_url: EXTENSION_CONFIG.to_owned(),
            nonce: version,
        })
    }
}

struct Delta;

impl Kind for Delta {
    type Asks = DeltaDiscoveryRequest;
    type Answer = DeltaDiscoveryResponse;

    fn read(asks: DeltaDiscoveryRequest) -> Said {
        Said {
            type_url: asks.type_url,
            asks_for: asks.resource_names_subscribe,
            is_whole: false,
            leaves: asks.resource_names_unsubscribe,
            nonce: asks.response_nonce,
            error: asks.error_detail,
        }
    }

    fn answer(offer: &Offer, has: &BTreeMap<String, u64>) -> Option<DeltaDiscoveryResponse> {
        let newer = has.iter().filter_map(|(name, has)| {
            let (version, resource) = offer.resources.get(name)?;
            (version > has).then(|| Resource {
                version: version.to_string(),
                resource: Some(resource.clone()),
                name: name.clone(),
            })
        });
        let resources: Vec<_> = newer.collect();
        let version = offer.version.to_string();
        (!resources.is_empty()).then(|| DeltaDiscoveryResponse {
            system_version_info: version.clone(),
            resources,
            type_url: EXTENSION_CONFIG.to_owned(),
            nonce: version,
        })
    }
}

struct Stream<K> {
    offer: watch::Receiver<Offer>,
    heard: Hearing,
    kind: PhantomData<K>,
}

impl<K: Kind> StreamingService<K::Asks> for Stream<K> {
    type Response = K::Answer;
    type ResponseStream = ReceiverStream<Result<K::Answer, Error>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Error>>;

    fn call(&mut self, request: tonic::Request<Streaming<K::Asks>>) -> Self::Future {
        let (answers, outgoing) = mpsc::channel(4);
        let (offer, heard) = (self.offer.clone(), self.heard.clone());
        tokio::spawn(talk::<K>(request.into_inner(), answers, offer, heard));
        ready(Ok(tonic::Response::new(ReceiverStream::new(outgoing))))
    }
}

async fn talk<K: Kind>(
    mut incoming: Streaming<K::Asks>,
    answers: mpsc::Sender<Result<K::Answer, Error>>,
    mut offer: watch::Receiver<Offer>,
    heard: Hearing,
) {
    // What was asked for, with the version that was told last.
    let mut has: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        tokio::select! {
            asks = incoming.message() => {
                let Ok(Some(asks)) = asks else { return };
                let said = K::read(asks);
                // Clusters and listeners come from files.
                if said.type_url != EXTENSION_CONFIG {
                    continue;
                }
                hear(&said, &heard);
                if said.is_whole {
                    has.retain(|name, _| said.asks_for.contains(name));
                }
                has.retain(|name, _| !said.leaves.contains(name));
                for name in said.asks_for {
                    has.entry(name).or_insert(0);
                }
            }
            changed = offer.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        let now = offer.borrow_and_update().clone();
        let is_told = |(name, has): (&String, &u64)| {
            now.resources.get(name).is_none_or(|(version, _)| version == has)
        };
        if has.iter().all(is_told) {
            continue;
        }
        if let Some(answer) = K::answer(&now, &has) {
            for (name, has) in &mut has {
                *has = now.resources.get(name).map_or(0, |(version, _)| *version);
            }
            if answers.send(Ok(answer)).await.is_err() {
                return;
            }
        }
    }
}

fn hear(said: &Said, heard: &Hearing) {
    let mut heard = lock(heard);
    heard.asked.extend(said.asks_for.iter().cloned());
    let Ok(version) = said.nonce.parse() else { return };
    match &said.error {
        Some(error) => heard.nacked.push((version, error.message.clone())),
        None => heard.acked = heard.acked.max(version),
    }
}
