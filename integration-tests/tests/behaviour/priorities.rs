//! The last share of a limit is for requests of high priority.

use crate::common::{direct, once, shop, statuses};
use weir_integration_tests::explained::assert_fares;
use weir_integration_tests::{Client, Request};

fn of_class(class: &str) -> Request {
    Request::get("/").header("qos_level", class)
}

fn admitted(client: &mut Client, request: &Request, requests: usize) -> usize {
    statuses(client, request, requests).into_iter().filter(|status| *status == 200).count()
}

#[test]
fn low_is_shed_first() {
    let policy = shop(&format!("{{id: r, {}, priority: {{reserve_percent: 30}}}}", once(10)));
    let envoy = direct(&policy);
    let mut client = envoy.client("in");

    assert_eq!(admitted(&mut client, &of_class("high"), 1), 1);
    assert_eq!(admitted(&mut client, &Request::get("/"), 20), 6, "low, and three are kept");
    assert_eq!(admitted(&mut client, &of_class("low"), 5), 0);
    for (class, left) in [("low", 3), ("high", 3), ("high", 2), ("high", 1), ("high", 0)] {
        let answer = client.send(&of_class(class));
        assert_eq!(answer.status == 200, class == "high" && left > 0, "{class} of {left}");
        let state = format!("r={left}");
        assert_fares(&policy, "inbound", &of_class(class), &answer, &["--state", &state]);
    }
    assert_eq!(admitted(&mut client, &of_class("high"), 5), 0);
    envoy.assert_healthy();
}

#[test]
fn classes_of_the_policys_own_and_an_edit_of_the_share() {
    let policy = |percent: u32| {
        shop(&format!(
            "{{id: r, {}, priority: {{header: x-class, high: [gold, platinum], \
             reserve_percent: {percent}}}}}",
            once(10)
        ))
    };
    let envoy = direct(&policy(80));
    let mut client = envoy.client("in");
    let class = |class: &str| Request::get("/").header("x-class", class);

    assert_eq!(admitted(&mut client, &class("silver"), 5), 2);
    assert_eq!(admitted(&mut client, &of_class("high"), 5), 0);
    envoy.put_policy(&policy(50)).accepted();
    assert_eq!(admitted(&mut client, &class("Gold"), 9), 3, "a value is what it is");
    assert_eq!(admitted(&mut client, &class("gold"), 2), 2);
    assert_eq!(admitted(&mut client, &class("platinum"), 9), 3);
    envoy.assert_healthy();
}
