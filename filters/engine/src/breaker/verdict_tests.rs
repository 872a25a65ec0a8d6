use super::*;

fn classes(failures: Failures, ignore: Ignore) -> Classes {
    Classes::compile(Some(&failures), Some(&ignore), "p").unwrap()
}

fn default() -> Classes {
    Classes::compile(None, None, "p").unwrap()
}

fn facts(status: u16, flags: u64, attempts: u64, details: &str) -> Facts<'_> {
    let status = (status > 0).then_some(status);
    Facts { attempts, flags, status, grpc: None, details: details.as_bytes() }
}

/// What a real Envoy 1.40 shows in each case.
#[test]
fn endings_of_http_calls() {
    use Verdict::{Failure, Neither, Overload, Success};
    let reset = "upstream_reset_before_response_started{connection_termination}";
    let mid = "upstream_reset_after_response_started{remote_reset}";
    for (what, status, flags, attempts, details, verdict) in [
        ("answered", 200, 0, 1, "via_upstream", Success),
        ("not found", 404, 0, 1, "via_upstream", Success),
        ("upstream error", 500, 0, 1, "via_upstream", Failure),
        ("the last of the range", 599, 0, 1, "via_upstream", Failure),
        ("upstream sheds load", 429, 0, 1, "via_upstream", Overload),
        ("connection refused", 503, 32, 1, reset, Failure),
        ("reset before headers", 503, 64, 1, reset, Failure),
        ("h2 reset before headers", 503, 16, 1, reset, Failure),
        ("h1 close mid body", 200, 8_388_608, 1, mid, Failure),
        ("h2 reset mid body", 200, 16, 1, mid, Failure),
        ("connection lost mid body", 200, 64, 1, mid, Failure),
        ("route timeout", 504, 4, 1, "response_timeout", Failure),
        ("per-try timeout, retries used up", 504, 32_772, 2, "upstream_per_try_timeout", Failure),
        ("503 four times", 503, 32_768, 4, "via_upstream", Failure),
        ("retried, then answered", 200, 0, 3, "via_upstream", Success),
        ("no healthy host", 503, 2, 1, "no_healthy_upstream", Failure),
        ("idle while waiting", 504, 65_536, 1, "stream_idle_timeout", Failure),
        ("client gone while waiting", 0, 16_384, 1, "downstream_remote_disconnect", Neither),
        ("client gone mid body", 200, 16_384, 1, "downstream_remote_disconnect", Neither),
        ("h2 client cancels", 0, 268_435_456, 1, "http2.remote_reset", Neither),
        ("overflow", 503, 128, 1, "upstream_reset_before_response_started{overflow}", Neither),
        ("a header that a filter broke", 503, 262_144, 1, "filter_removed_required", Neither),
        ("an injected fault", 503, 1024, 0, "fault_filter_abort", Neither),
        ("the limiter's refusal", 429, 0, 0, "weir_rate_limited{r}", Neither),
        ("a direct response", 200, 0, 0, "direct_response", Neither),
        ("no route", 404, 256, 0, "route_not_found", Neither),
        ("no cluster", 503, 16_777_216, 0, "cluster_not_found", Neither),
        ("another filter's reply to a response", 503, 0, 1, "ext_proc_error", Neither),
        ("no answer at all", 0, 0, 1, "", Failure),
    ] {
        let facts = facts(status, flags, attempts, details);
        assert_eq!(default().verdict(&facts), verdict, "{what}");
    }
}

#[test]
fn endings_of_grpc_calls() {
    use Verdict::{Failure, Overload, Success};
    let call = |code| Facts {
        attempts: 1,
        status: Some(200),
        grpc: Some(code),
        details: b"via_upstream",
        ..Facts::default()
    };
    for (code, verdict) in [
        (0, Success),
        (1, Success),
        (2, Failure),
        (3, Success),
        (4, Failure),
        (5, Success),
        (8, Overload),
        (13, Failure),
        (14, Failure),
        (15, Failure),
        (16, Success),
        (99, Success),
    ] {
        assert_eq!(default().verdict(&call(code)), verdict, "{code}");
    }
}

#[test]
fn a_policy_says_what_fails_and_what_does_not_count() {
    let text = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let classes = classes(
        Failures { http_statuses: text(&["404", "429", "500-502"]), grpc_codes: vec![8] },
        Ignore {
            http_statuses: text(&["501"]),
            grpc_codes: vec![16],
            response_flags: text(&["UT"]),
        },
    );
    let verdict = |status, flags| classes.verdict(&facts(status, flags, 1, "via_upstream"));
    assert_eq!(verdict(404, 0), Verdict::Failure);
    assert_eq!(verdict(429, 0), Verdict::Failure);
    assert_eq!(verdict(502, 0), Verdict::Failure);
    assert_eq!(verdict(503, 0), Verdict::Success);
    assert_eq!(verdict(501, 0), Verdict::Neither);
    assert_eq!(verdict(504, 4), Verdict::Neither);
    assert_eq!(verdict(501, 16), Verdict::Failure, "a reset, whatever the status says");
    let grpc = |code| Facts { grpc: Some(code), ..facts(200, 0, 1, "via_upstream") };
    assert_eq!(classes.verdict(&grpc(8)), Verdict::Failure);
    assert_eq!(classes.verdict(&grpc(14)), Verdict::Success);
    assert_eq!(classes.verdict(&grpc(16)), Verdict::Neither);
}
