//! What is kept: what was used of a limit outlives edits of it, the upgrade of istiod that calls the plugin by another
//! name, and the change to another kind of resource.

use super::istiod::{Names, Plugin};
use super::mesh::{Api, Mesh, rendered};
use weir_integration_tests::Request;

fn policy(tokens: u32) -> String {
    let rule =
        format!("{{ id: all, max_tokens: {tokens}, tokens_per_fill: 1, fill_interval: 3600s }}");
    format!("name: shop\nrate_limit: {{ rules: [{rule}] }}\n")
}

#[test]
fn what_is_used_outlives_an_edit_and_an_upgrade() {
    let manifests = rendered(&policy(6), "istio");
    let name = |names| Plugin::of(&manifests[0], names).name();
    assert_ne!(name(Names::UpTo1_29), name(Names::Since1_30));
    let mut mesh = Mesh::start(&manifests, Names::UpTo1_29, Api::Delta);
    let statuses = |mesh: &Mesh, count| -> Vec<u16> {
        (0..count).map(|_| mesh.get(&Request::get("/")).status).collect()
    };
    assert_eq!(statuses(&mesh, 2), [200; 2]);

    mesh.edit(&rendered(&policy(7), "istio")).unwrap();
    assert_eq!(statuses(&mesh, 1), [200]);

    // 3 are used. By the new name there is no other bucket.
    let manifests = rendered(&policy(7), "istio");
    mesh.upgrade(&manifests, Names::Since1_30);
    assert_eq!(statuses(&mesh, 2), [200; 2]);

    let extensions = rendered(&policy(7), "traffic-extension");
    mesh.upgrade(&extensions, Names::Since1_30);
    assert_eq!(statuses(&mesh, 3), [200, 200, 429]);
    assert_eq!(
        mesh.plane.asked().into_iter().collect::<Vec<_>>(),
        [
            "extensions.istio.io/trafficextension/shop.weir-rate-limit",
            "extensions.istio.io/trafficextension/shop.weir-rate-limit~istio-translated-wasmplugin",
            "extensions.istio.io/wasmplugin/shop.weir-rate-limit",
        ]
    );
    mesh.envoy.assert_healthy();
}
