//! Tables for a reader, JSON for a machine.

use serde_json::{Value, json};
use weir_integration_tests::host_calls::{Figures, REQUESTS};
use weir_integration_tests::paths;

use crate::machine::{Machine, busy_share, is_busy};
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
    println!(
        "{:36}  {:>7}  {:>15}  {:>14}  {:>7}",
        "", "us more", "half the rounds", "x does nothing", "at best"
    );
    for variant in measured.iter().filter(|v| v.name != NONE) {
        let over = variant.over(none);
        let (low, high) = middle_half(&over);
        println!(
            "{:36}  {:>7.2}  {:>15}  {:>14.2}  {:>7.2}",
            variant.name,
            median(&over) / 1e3,
            format!("{:.2} to {:.2}", low / 1e3, high / 1e3),
            median(&over) / noop,
            (variant.at_best() - none.at_best()) / 1e3,
        );
    }
    println!("(at best: the fastest round with the filter over the fastest one without)");
}

pub fn print_calls(figures: &[Figures]) {
    println!(
        "\nHost calls per request, exact; docs/performance/host-calls.md tells the kinds, and what fuel is"
    );
    println!("{:40}  {:>10}  {:>9}  {:>7}", "", "host calls", "with data", "fuel");
    for case in figures {
        println!(
            "{:40}  {:>10.3}  {:>9.3}  {:>7}",
            case.name,
            case.per_request(),
            case.with_data(),
            case.fuel_per_request()
        );
    }
}

/// Says plainly when the times are not to be trusted.
pub fn print_noise(before: &Machine, measured: &[Measured]) {
    let none = &named(measured, NONE).rounds;
    let (low, high) = middle_half(none);
    let after = busy_share();
    if before.is_busy() || is_busy(after) {
        println!(
            "\nThe machine was used by others: {:.0} % of it before, {:.0} % after, load average {} \
             before. Take the times as a hint, and run it again when it is quiet; the counts stand.",
            before.busy * 100.0,
            after * 100.0,
            before.load_average
        );
    } else if (high - low) / median(none) > QUIET {
        println!(
            "\nThe rounds without a filter differ by {:.0} %: something disturbed them. More rounds, or \
             a quieter machine, give firmer times; the counts stand.",
            (high - low) / median(none) * 100.0
        );
    }
}

pub fn write_json(
    measured: &[Measured],
    breakers: &[Measured],
    figures: &[Figures],
    options: &Options,
    machine: &Machine,
) -> Result<(), String> {
    let time = |variant: &Measured, all: &[Measured]| {
        let none = named(all, NONE);
        let noop = median(&named(all, NOOP).over(none));
        let over = variant.over(none);
        let (low, high) = middle_half(&over);
        json!({
            "name": variant.name,
            "over_none_ns": {
                "median": median(&over),
                "lower_quartile": low,
                "upper_quartile": high,
                "at_best": variant.at_best() - none.at_best(),
            },
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
            "interpreter_fuel": case.fuel_per_request(),
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
        "without_filter_ns": median(&named(measured, NONE).rounds),
        "variants": measured.iter().map(|variant| time(variant, measured)).collect::<Vec<_>>(),
        "breakers": breakers.iter().map(|variant| time(variant, breakers)).collect::<Vec<_>>(),
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

/// Between which the middle half lies.
fn middle_half(numbers: &[f64]) -> (f64, f64) {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len() / 4;
    (sorted[quarter], sorted[sorted.len() - 1 - quarter])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quartiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(middle_half(&[2.0, -1.0, 3.0]), (-1.0, 3.0));
        assert_eq!(middle_half(&[9.0, 2.0, 1.0, 3.0, 0.0]), (1.0, 3.0));
    }
}
