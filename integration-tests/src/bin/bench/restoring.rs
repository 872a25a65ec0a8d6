//! Four services whose applications forward only an id: how many traces stay whole.

use serde_json::{Value, json};
use weir_integration_tests::whole;

const REQUESTS: u64 = 10_000;
const ON: &str = "restore: {keys: [{header: x-request-id}], mint: true}, ";

pub fn lab() -> Result<Value, String> {
    let policy = |restore: &str| format!("{{name: bench, {restore}trace_context: {{}}}}");
    let chain = whole::forgetful(&policy(ON), 1);
    let with = whole::count(&chain, REQUESTS);
    let restored = chain.metric(&["weir_trace_context_restores_total", "outcome=.=restored;"]);
    if restored == 0 {
        return Err("the module restored nothing".to_owned());
    }
    chain.put_policy(&policy(""));
    let without = whole::count(&chain, REQUESTS);
    let share = |whole: u64| whole as f64 * 100.0 / REQUESTS as f64;
    println!(
        "Whole traces over four services that forward only x-request-id, of {REQUESTS} requests, 64 at a \
         time: {:.2} % with restoring, {:.2} % without",
        share(with),
        share(without)
    );
    Ok(json!({"requests": REQUESTS, "whole_with": with, "whole_without": without}))
}
