//! The scenes: each sends traffic, tells what happened in a line or two, and adds its rows.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use weir_integration_tests::load::LoadReport;
use weir_integration_tests::wait::sleep_until;
use weir_integration_tests::{Load, Request};

use crate::policy_file::Verdict;
use crate::stage::Stage;
use crate::table::Table;

/// Of the rule `shop`, as its file says.
const SHOP: Limit = Limit { burst: 200.0, rate: 200.0 };
/// Of the rule `per-user`, for each user.
const USER: Limit = Limit { burst: 20.0, rate: 20.0 };
/// What the edit makes of the rule `shop`.
const EDITED: Limit = Limit { burst: 200.0, rate: 50.0 };

/// An edit is live long before; past this the demo waits no longer.
const VERDICT: Duration = Duration::from_secs(10);

struct Limit {
    burst: f64,
    rate: f64,
}

impl Limit {
    /// What may pass: never more than burst + rate × time, from the first request to the last
    /// answer, and no less than 98 % of it while requests were sent (one token less where that
    /// rounds to nothing).
    fn bounds(&self, start: Instant, report: &LoadReport) -> std::ops::RangeInclusive<u64> {
        let most = self.burst + self.rate * (report.end() - start).as_secs_f64();
        let least = (self.burst + self.rate * report.elapsed.as_secs_f64()) * 0.98 - 1.0;
        least as u64..=most as u64
    }

    /// A rate measured over a part of a load, within 5 %.
    fn near(&self) -> std::ops::RangeInclusive<u64> {
        (self.rate * 0.95) as u64..=(self.rate * 1.05).ceil() as u64
    }
}

/// Twice as much as one rule lets pass.
pub fn limit(stage: &mut Stage, table: &mut Table) {
    println!(
        "1  A limit. 400 requests a second to /shop, where 200/s and a burst of 200 may pass ..."
    );
    let detail: Arc<OnceLock<String>> = Arc::default();
    let first = detail.clone();
    let load = Load::new(stage.address(), Request::get("/shop")).look(move |_, answer| {
        if answer.status == 429 {
            first.get_or_init(|| answer.json()["detail"].to_string());
        }
    });
    let start = Instant::now();
    let report = load.rate(400).lasts(Duration::from_secs(4)).run();
    let (passed, refused) = stage.answers(&report);
    let detail = detail.get().map_or("nothing", String::as_str);
    println!("   {passed} passed, {refused} got a 429 that says {detail}.\n");

    let section =
        table.section("1  a limit for all: offered 400/s for 4 s, limit 200/s + burst 200");
    let admitted = stage.decided("shop", "admitted", passed);
    section.count("passed (burst + rate x time)", passed, admitted, SHOP.bounds(start, &report));
    section.equal("refused with 429", refused, stage.decided("shop", "limited", refused));
}

/// One user wants too much, another does not.
pub fn users(stage: &mut Stage, table: &mut Table) {
    println!(
        "2  A limit for each user. ann sends 90/s to /account, bob 10/s; 20/s each may pass ..."
    );
    let load = Load::labelled(stage.address(), |n| {
        let user = if n % 10 == 0 { "bob" } else { "ann" };
        (user.to_owned(), Request::get("/account").header("x-user", user))
    });
    // 17 and 10 share no divisor, so each user comes over every connection and every worker.
    let start = Instant::now();
    let report = load.connections(17).rate(100).lasts(Duration::from_secs(3)).run();
    let (passed, refused) = stage.answers(&report);
    let of = |user| (report.of(user, 200), report.of(user, 429));
    let (ann, bob) = (of("ann"), of("bob"));
    println!(
        "   ann: {} passed, {} refused. bob: {} passed, {} refused.\n",
        ann.0, ann.1, bob.0, bob.1
    );

    let section =
        table.section("2  a limit for each user: ann 90/s, bob 10/s, limit 20/s + burst 20 each");
    section.figure("ann passed (burst + rate x time)", ann.0, USER.bounds(start, &report));
    section.figure("bob refused: they do not share", bob.1, 0..=0);
    section.equal("both, passed", passed, stage.decided("per-user", "admitted", passed));
    section.equal("both, refused", refused, stage.decided("per-user", "limited", refused));
}

/// The policy is edited under load: once well, once badly.
pub fn edits(stage: &mut Stage, table: &mut Table) {
    let bad = stage.policy.replace("fill_interval: 1s", "fill_interval: 0s");
    let good = stage.policy.replacen("tokens_per_fill: 200", "tokens_per_fill: 50", 1);
    assert!(
        good != stage.policy && bad != stage.policy,
        "demo.yaml has the values that are edited"
    );
    let before = stage.decisions();

    // Refusals say which policy they come from; only the rate differs.
    let refusals: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
    let seen = refusals.clone();
    let load = Load::new(stage.address(), Request::get("/shop")).look(move |at, answer| {
        if let Some(policy) = answer.header("ratelimit-policy") {
            seen.lock().expect("no panic in between").push((at, policy));
        }
    });
    println!("3  An edit under load. Still 400/s; the file's tokens_per_fill: 200 becomes 50 ...");
    let start = Instant::now();
    let load = load.rate(400).lasts(Duration::from_millis(7500)).start();
    sleep_until(start + Duration::from_millis(2500));
    let saved = stage.file.save(&good);
    let live = stage.file.verdict(VERDICT);
    assert!(matches!(live, Some(Verdict::Live(_))), "the edit was not accepted: {live:?}");
    println!("   Accepted, and live on every worker. No restart, no connection dropped.\n");

    sleep_until(start + Duration::from_millis(5000));
    println!("4  A bad edit. fill_interval: 1s becomes 0s ...");
    let bad_saved = stage.file.save(&bad);
    let refused = stage.file.verdict(VERDICT);
    let Some(Verdict::Refused(reason)) = refused else {
        panic!("the bad edit was not refused: {refused:?}");
    };
    println!("   Refused: {reason}");
    let report = load.join().expect("the load runs to its end");

    let refusals = refusals.lock().expect("no panic in between").clone();
    let effect = effect(&refusals, saved);
    let rate = |from: Instant, until: Instant| {
        (report.between(200, from, until) as f64 / (until - from).as_secs_f64()).round() as u64
    };
    // 200 tokens of burst are gone after a second at 200/s too many.
    let old = rate(start + Duration::from_millis(1250), saved);
    let new = rate(effect, bad_saved);
    let kept = rate(bad_saved, report.end());
    println!("   The policy before it still serves: {kept}/s pass.");
    let (passed, limited) = stage.answers(&report);

    let section = table.section("3  a live edit: the limit goes from 200/s to 50/s under load");
    section.figure("passed per second, before", old, SHOP.near());
    section.figure("passed per second, after", new, EDITED.near());
    let took = (effect - saved).as_millis() as u64;
    section.figure("from saving the file to the last worker, ms", took, 0..=2000);
    section.figure("requests without an answer", report.failed, 0..=0);
    let section = table.section("4  a bad edit: fill_interval 0s, which no limit can have");
    let names_field = reason.contains("fill_interval") && reason.contains("0s");
    section.fact(
        "refused",
        if names_field { "yes" } else { "no" },
        "names field and value",
        names_field,
    );
    section.figure("passed per second, since", kept, EDITED.near());
    section.equal("bad edits, refused", 1, stage.reloads("refused", 1));
    // The policy of the start is one of them.
    section.equal("good policies, accepted", 2, stage.reloads("accepted", 2));
    let after = (before.0 + passed, before.1 + limited);
    let admitted = stage.decided("shop", "admitted", after.0) - before.0;
    section.equal("3 and 4, passed", passed, admitted);
    let refused = stage.decided("shop", "limited", after.1) - before.1;
    section.equal("3 and 4, refused", limited, refused);
}

/// Envoy's own counters, which know nothing of ours.
pub fn whole_run(stage: &Stage, table: &mut Table) {
    let section = table.section("the whole run, by Envoy's own counters");
    section.equal("answers 2xx", stage.passed, stage.answered(2, stage.passed));
    section.equal("answers 4xx", stage.refused, stage.answered(4, stage.refused));
    let arrived = (stage.shop.count("/") + stage.account.count("/")) as u64;
    let forwarded = stage.forwarded("shop") + stage.forwarded("account");
    section.count(
        "reached the upstreams (their count)",
        arrived,
        forwarded,
        stage.passed..=stage.passed,
    );
    let by_worker = stage.connections_by_worker();
    let all: u64 = by_worker.iter().sum();
    let spread = by_worker.len() == crate::stage::WORKERS as usize
        && by_worker.iter().all(|taken| taken * 10 >= all);
    let shown: Vec<_> = by_worker.iter().map(u64::to_string).collect();
    section.fact("connections, by worker", &shown.join(" + "), "a tenth each at least", spread);
}

impl Stage {
    /// Adds a load's answers to those of the whole run: passed and refused. Panics when a request
    /// had neither.
    fn answers(&mut self, report: &LoadReport) -> (u64, u64) {
        let (passed, refused) = (report.status(200), report.status(429));
        let others = report.total() - passed - refused;
        assert_eq!(
            others, 0,
            "{others} requests had neither 200 nor 429: {:?} {:?}",
            report.answers, report.failure
        );
        self.passed += passed;
        self.refused += refused;
        (passed, refused)
    }

    /// Envoy's counts of the rule `shop`, flushed by the scene that made them.
    fn decisions(&self) -> (u64, u64) {
        let now = |outcome| self.envoy.metric("demo", "shop", outcome);
        (now("admitted"), now("limited"))
    }
}

/// When the new policy decided for every worker: its first refusal is there, and the last of the
/// old one is past.
fn effect(refusals: &[(Instant, String)], saved: Instant) -> Instant {
    let old = &refusals.iter().min_by_key(|(at, _)| *at).expect("400/s are refused in part").1;
    let last_old = refusals.iter().filter(|(_, p)| p == old).map(|(at, _)| *at).max();
    let first_new = refusals.iter().filter(|(_, p)| p != old).map(|(at, _)| *at).min();
    let first_new = first_new.expect("refusals name the new policy after the edit");
    first_new.max(last_old.unwrap_or(first_new)).max(saved)
}
