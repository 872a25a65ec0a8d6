//! An engine is killed under load, and comes back.

use crate::fleet::{Fleet, alone, shop};
use std::time::Duration;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{Answers, Keeps, Redis, Rls, wait_until};

#[test]
fn no_request_fails_while_the_engine_is_gone() {
    let _alone = alone();
    let redis = Redis::start();
    for keeps in [Keeps::LimitadorWithHeaders, Keeps::Ratelimit(redis.address)] {
        let rls = Rls::start(keeps, 10_000, 1);
        let mesh = "instances: 2, lease: {max: 100}, timeout: 0.1s, safe_share_percent: 5";
        let fleet = Fleet::start(2, &rls, &shop(mesh, 1000, 1));
        let loads = fleet.load(500, Duration::from_millis(3500), "ann");
        let steps = || {
            ["lease", "safe"]
                .map(|step| fleet.count(&["mesh_requests_total", &format!("step=.={step};")]))
        };
        wait_until("leases are spent", DEADLINE, || steps()[0] > 300);
        assert_eq!(steps()[1], 0, "nothing else is while the engine answers");
        rls.play(Answers::Gone);
        // The bucket of 25, that refills at 25 a second, and then the policy, that allows.
        wait_until("the safe bucket is spent", DEADLINE, || steps()[1] >= 50);
        wait_until("the policy decides", DEADLINE, || {
            fleet.count(&["outcome=.=error_allowed;"]) > 50
        });
        let asked = rls.calls();
        rls.play(Answers::Rightly);
        wait_until("the engine is asked again", DEADLINE, || rls.calls() > asked);
        for load in loads {
            let report = load.join().expect("a load");
            assert_eq!(report.failed, 0, "{:?}", report.failure);
            assert_eq!(report.status(200), report.total(), "{:?}", report.answers);
        }
        fleet.assert_healthy();
    }
}
