//! Tables for a reader, JSON for a machine.

use serde_json::{Value, json};
use weir_integration_tests::host_calls::{Figures, REQUESTS};
use weir_integration_tests::paths;

use crate::machine::Machine;
use crate::options::Options;
use crate::runs::Measured;
use crate::variants::{NONE, NOOP};

/// Rounds that differ by more than this share of their median are not quiet.
const QUIET: f64 = 0.1;

pub fn print_times(measured: &[Measured], options: &Options) {
    let none = named(measured, NONE);
    let noop = median(&named(measured, NOOP).over(none));
    println!(
        "\nCPU time of Envoy per request, over {:.2} us without a filter; median of {} rounds of {}",
        median(&none.rounds) / 1e3,
        options.rounds,
        options.requests
    );
    println!("{:36}  {:>8}  {:>16}  {:>11}", "", "us more", "least to most", "x does nothing");
    for variant in measured.iter().filter(|v| v.name != NONE) {
        let over = variant.over(none);
        let (least, most) = ends(&over);
        println!(
            "{:36}  {:>8.2}  {:>16}  {:>11.2}",
            variant.name,
            median(&over) / 1e3,
            format!("{:.2} to {:.2}", least / 1e3, most / 1e3),
            median(&over) / noop,
        );
    }
}

pub fn print_calls(figures: &[Figures]) {
    println!("\nHost calls per request, exact (by kind: docs/performance/host-calls.md)");
    println!("{:40}  {:>10}  {:>9}  {:>17}", "", "host calls", "with data", "interpreter steps");
    for case in figures {
        println!(
            "{:40}  {:>10.3}  {:>9.3}  {:>17}",
            case.name,
            case.per_request(),
            case.with_data(),
            case.steps_per_request()
        );
    }
}

/// Says plainly when the times are not to be trusted.
pub fn print_noise(before: &Machine, measured: &[Measured]) {
    let none = &named(measured, NONE).rounds;
    let (least, most) = ends(none);
    let after = Machine::look();
    if before.is_busy() || after.is_busy() {
        println!(
            "\nThe machine was used by others: {:.0} % of it before, {:.0} % after, load average {} \
             before. Take the times as a hint, and run it again when it is quiet; the counts stand.",
            before.busy * 100.0,
            after.busy * 100.0,
            before.load_average
        );
    } else if (most - least) / median(none) > QUIET {
        println!(
            "\nThe rounds without a filter differ by {:.0} %: something disturbed them. More rounds, or \
             a quieter machine, give firmer times; the counts stand.",
            (most - least) / median(none) * 100.0
        );
    }
}

pub fn write_json(
    measured: &[Measured],
    figures: &[Figures],
    options: &Options,
    machine: &Machine,
) -> Result<(), String> {
    let none = named(measured, NONE);
    let noop = median(&named(measured, NOOP).over(none));
    let time = |variant: &Measured| {
        let over = variant.over(none);
        let (least, most) = ends(&over);
        json!({
            "name": variant.name,
            "over_none_ns": {"median": median(&over), "least": least, "most": most},
            "ratio_to_noop": median(&over) / noop,
            "rounds_ns": variant.rounds,
        })
    };
    let case = |case: &Figures| {
        let calls: Value = case
            .calls
            .iter()
            .map(|(kind, n)| ((*kind).to_owned(), json!(*n as f64 / REQUESTS as f64)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        json!({
            "name": case.name,
            "host_calls": case.per_request(),
            "by_kind": calls,
            "interpreter_steps": case.steps_per_request(),
        })
    };
    let all = json!({
        "rounds": options.rounds,
        "requests_per_round": options.requests,
        "machine": {
            "model": machine.model,
            "cores": machine.cores,
            "load_average_before": machine.load_average,
            "busy_share_before": machine.busy,
        },
        "without_filter_ns": median(&none.rounds),
        "variants": measured.iter().map(time).collect::<Vec<_>>(),
        "calls_per_request": figures.iter().map(case).collect::<Vec<_>>(),
    });
    let path = paths::root().join("target/weir/bench.json");
    std::fs::write(&path, format!("{all:#}\n"))
        .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    println!("\nwritten: {}", path.display());
    Ok(())
}

fn named<'m>(measured: &'m [Measured], name: &str) -> &'m Measured {
    measured.iter().find(|v| v.name == name).expect("the references are always measured")
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

fn ends(numbers: &[f64]) -> (f64, f64) {
    numbers
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), n| (least.min(*n), most.max(*n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ends() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(ends(&[2.0, -1.0, 3.0]), (-1.0, 3.0));
    }
}
