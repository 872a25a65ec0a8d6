//! A chain of services, each behind an Envoy of its own, as in a mesh: the request comes in
//! through the `in` listener of a hop, goes to its application, whose call goes out through the
//! `out` listener to the `in` of the next hop.
//!
//! Without applications the hops are bare proxies: `out` leads to the next `out`, and the last one
//! to an upstream.

use crate::app::{Account, App, Manner};
use crate::envoy::{Cluster, Envoy, Filter, Listener, Route};
use crate::http::{Client, Request};
use crate::policy;
use crate::upstream::Upstream;
use crate::wait::{DEADLINE, wait_until};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Running; the entry is hop 0. All ends with the value.
pub struct Chain {
    pub hops: Vec<Hop>,
    /// What a chain of bare proxies leads to, unless the test gave an upstream of its own.
    pub echo: Option<Upstream>,
}

/// One service.
pub struct Hop {
    pub envoy: Envoy,
    app: Option<App>,
}

impl Hop {
    /// Panics in a chain of bare proxies.
    pub fn app(&self) -> &App {
        self.app.as_ref().expect("the chain has applications")
    }
}

impl Chain {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where requests enter: `in` of the first hop, or its `out` where there are no applications.
    pub fn entry(&self) -> SocketAddr {
        let first = &self.hops[0];
        first.envoy.address(if first.app.is_some() { "in" } else { "out" })
    }

    /// A client with a connection of its own to the entry.
    pub fn client(&self) -> Client {
        Client::new(self.entry())
    }

    /// Sends a request and gives what each application on its way saw.
    pub fn trail(&self, request: &Request) -> Vec<Account> {
        let answer = Account::of(&self.client().send(request));
        answer.trail().into_iter().cloned().collect()
    }

    /// Edits the policy of all hops.
    pub fn put_policy(&self, text: &str) {
        let puts: Vec<_> = self.hops.iter().map(|hop| hop.envoy.put_policy(text)).collect();
        puts.into_iter().for_each(|put| put.accepted());
    }

    /// From now on all applications handle requests so.
    pub fn change(&self, change: impl Fn(&mut Manner)) {
        self.hops.iter().for_each(|hop| hop.app().change(&change));
    }

    /// A counter whose name holds all of these parts, summed over the hops.
    pub fn metric(&self, parts: &[&str]) -> u64 {
        self.hops.iter().map(|hop| hop.envoy.metric_with(parts)).sum()
    }

    /// Waits until the counter stands at exactly this value.
    pub fn await_metric(&self, parts: &[&str], value: u64) {
        wait_until(&format!("{parts:?} = {value}"), DEADLINE, || self.metric(parts) == value);
    }

    pub fn assert_healthy(&self) {
        self.hops.iter().for_each(|hop| hop.envoy.assert_healthy());
    }
}

pub struct Builder {
    hops: usize,
    workers: u32,
    module: Option<PathBuf>,
    policy: Box<dyn Fn(usize) -> String>,
    /// None: bare proxies.
    manner: Option<Manner>,
    to: Option<SocketAddr>,
    clusters: Vec<Cluster>,
    taps: Vec<String>,
    dress: Box<dyn Fn(Listener) -> Listener>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            hops: 4,
            workers: 1,
            module: None,
            policy: Box::new(|_| policy::PASS_THROUGH.to_owned()),
            manner: Some(Manner::default()),
            to: None,
            clusters: Vec::new(),
            taps: Vec::new(),
            dress: Box::new(|listener| listener),
        }
    }
}

impl Builder {
    /// Default 4.
    pub fn hops(mut self, hops: usize) -> Self {
        self.hops = hops;
        self
    }

    /// Worker threads of each Envoy. Default 1.
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// The filter under test, on all listeners. Default: none.
    pub fn module(mut self, module: PathBuf) -> Self {
        self.module = Some(module);
        self
    }

    /// The policy of all hops to start with. Default: everything passes.
    pub fn policy(self, text: &str) -> Self {
        let text = text.to_owned();
        self.policies(move |_| text.clone())
    }

    /// The policy of each hop, by its number.
    pub fn policies(mut self, policy: impl Fn(usize) -> String + 'static) -> Self {
        self.policy = Box::new(policy);
        self
    }

    /// What the applications do. Default: they forward everything and do not think.
    pub fn manner(mut self, manner: Manner) -> Self {
        self.manner = Some(manner);
        self
    }

    /// Bare proxies, which lead to an [`Upstream`].
    pub fn without_apps(mut self) -> Self {
        self.manner = None;
        self
    }

    /// Bare proxies, which lead here.
    pub fn leads_to(mut self, upstream: SocketAddr) -> Self {
        self.to = Some(upstream);
        self.without_apps()
    }

    /// One more cluster of every Envoy, such as a collector's.
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.clusters.push(cluster);
        self
    }

    /// Copies this header as it comes to the first listener of each hop, before the filter sees it:
    /// what the hop before has sent. To `x-lab-a-<header>` at hop 0, and so on.
    pub fn tap(mut self, header: &str) -> Self {
        self.taps.push(header.to_owned());
        self
    }

    /// Other options of every listener.
    pub fn dress(mut self, dress: impl Fn(Listener) -> Listener + 'static) -> Self {
        self.dress = Box::new(dress);
        self
    }

    /// Starts the last hop first: each has to know where the next one listens.
    pub fn start(self) -> Chain {
        let echo = (self.manner.is_none() && self.to.is_none()).then(|| Upstream::start("echo"));
        let mut next = echo.as_ref().map(|echo| echo.address).or(self.to);
        let mut hops: Vec<_> = (0..self.hops)
            .rev()
            .map(|number| {
                let hop = self.hop(number, next);
                next = Some(hop.envoy.address(if hop.app.is_some() { "in" } else { "out" }));
                hop
            })
            .collect();
        hops.reverse();
        Chain { hops, echo }
    }

    fn hop(&self, number: usize, next: Option<SocketAddr>) -> Hop {
        let app = self.manner.clone().map(|manner| App::start(&name(number), manner));
        let mut builder = Envoy::builder().workers(self.workers).policy(&(self.policy)(number));
        if let Some(module) = &self.module {
            builder = builder.module(module.clone());
        }
        if let Some(app) = &app {
            let listener =
                self.tapped(number, Listener::inbound("in")).route(Route::prefix("/", "app"));
            builder = builder.listener((self.dress)(self.filtered(listener)));
            builder = builder.cluster(Cluster::h1("app", app.address));
        }
        if let Some(next) = next {
            let mut listener = Listener::outbound("out").route(Route::prefix("/", "next"));
            if app.is_none() {
                listener = self.tapped(number, listener);
            }
            builder = builder.listener((self.dress)(self.filtered(listener)));
            builder = builder.cluster(Cluster::followed("next", next));
        }
        for cluster in &self.clusters {
            builder = builder.cluster(cluster.clone());
        }
        let envoy = builder.start();
        if let (Some(app), Some(_)) = (&app, next) {
            let out = envoy.address("out");
            app.change(|manner| manner.next = Some(out));
        }
        Hop { envoy, app }
    }

    fn tapped(&self, hop: usize, listener: Listener) -> Listener {
        if self.taps.is_empty() {
            return listener;
        }
        let copy = |header: &String| {
            let to = format!("x-lab-{}-{header}", name(hop));
            format!(
                "local v = h:headers():get('{header}') \
                 if v then h:headers():replace('{to}', v) else h:headers():remove('{to}') end "
            )
        };
        let copies: String = self.taps.iter().map(copy).collect();
        listener.filter(Filter::lua(&format!("function envoy_on_request(h) {copies} end")))
    }

    fn filtered(&self, listener: Listener) -> Listener {
        // An access log would be measured along.
        let listener = listener.without_access_log();
        match &self.module {
            Some(_) => listener.filter(Filter::weir()),
            None => listener,
        }
    }
}

/// `a`, `b` and so on.
fn name(hop: usize) -> String {
    let letter = u8::try_from(hop).ok().and_then(|n| b'a'.checked_add(n));
    char::from(letter.expect("at most as many hops as letters")).to_string()
}
