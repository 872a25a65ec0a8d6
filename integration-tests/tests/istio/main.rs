//! What Istio makes of what we ship: manifests, images, and the resources that its control plane and agent would
//! hand to Envoy. istiod itself is not run; `docs/istio.md` says what stands in its place.

mod ads;
mod bad;
mod kubernetes;
mod manifests;
mod shipped;
