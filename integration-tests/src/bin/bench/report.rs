//! Tables for a reader, JSON for a machine.

use serde_json::{Map, Value, json};
use weir_integration_tests::host_calls::{Figures, REQUESTS};
use weir_integration_tests::paths;

use crate::machine::{Machine, busy_share, is_busy};
use crate::options::Options;
use crate::runs::Measured;
use crate::subject::{NONE, NOOP};

/// Rounds that differ by more than this share of their median are not quiet.
const QUIET: f64 = 0.1;

/// What the requests of a section meet.
pub fn what(section: &str) -> &'static str {
    match section {
        "limit" => "Envoy answers by itself, and no limit is reached",
        "breaker" => "an upstream that is well, and breakers that are closed",
        "suite" => "an upstream that is well, and a request that all four filters decide on",
        "trace" => "an upstream that is well, and six header lines of which some mean something",
        _ => "",
    }
}

/// Prints what comes in as it comes, and keeps it for the file.
pub struct Report<'a> {
    pub options: &'a Options,
    pub machine: &'a Machine,
    costs: Map<String, Value>,
    labs: Map<String, Value>,
    calls: Vec<Value>,
    failures: Vec<String>,
    /// By how much the rounds without a filter differ, at the worst section.
    unrest: f64,
}

impl<'a> Report<'a> {
    pub fn new(options: &'a Options, machine: &'a Machine) -> Self {
        let (costs, labs) = (Map::new(), Map::new());
        let (calls, failures) = (Vec::new(), Vec::new());
        Self { options, machine, costs, labs, calls, failures, unrest: 0.0 }
    }

    fn fail(&mut self, what: &str, error: &str) {
        eprintln!("{what}: {error}");
        self.failures.push(format!("{what}: {error}"));
    }

    pub fn costs(&mut self, section: &str, requests: u64, measured: Result<Vec<Measured>, String>) {
        let measured = match measured {
            Ok(measured) => measured,
            Err(error) => return self.fail(section, &error),
        };
        print_times(&measured, requests);
        let none = &named(&measured, NONE).rounds;
        let (low, high) = middle_half(none);
        self.unrest = self.unrest.max((high - low) / median(none));
        let variants: Vec<_> = measured.iter().map(|variant| time(variant, &measured)).collect();
        let section_of = json!({
            "requests_per_round": requests,
            "without_filter_ns": median(none),
            "variants": variants,
        });
        self.costs.insert(section.to_owned(), section_of);
    }

    /// A lab has printed its tables.
    pub fn lab(&mut self, name: &str, figures: Result<Value, String>) {
        match figures {
            Ok(figures) => {
                self.labs.insert(name.to_owned(), figures);
            }
            Err(error) => self.fail(name, &error),
        }
    }

    pub fn calls(&mut self, figures: Vec<Figures>) {
        print_calls(&figures);
        self.calls = figures.iter().map(calls_of).collect();
    }

    /// Writes the file, and says plainly when the times are not to be trusted. Fails where anything
    /// did, or nothing was to be measured.
    pub fn finish(self) -> Result<(), String> {
        let is_empty = self.costs.is_empty() && self.labs.is_empty() && self.calls.is_empty();
        if is_empty && self.failures.is_empty() {
            return Err(format!("nothing has one of {:?} in its name", self.options.only));
        }
        let (machine, after) = (self.machine, busy_share());
        if machine.is_busy() || is_busy(after) {
            println!(
                "\nThe machine was used by others: {:.0} % of it before, {:.0} % after, load average {} \
                 before. Take the times as a hint, and run it again when it is quiet; the counts stand.",
                machine.busy * 100.0,
                after * 100.0,
                machine.load_average
            );
        } else if self.unrest > QUIET {
            println!(
                "\nThe rounds without a filter differ by {:.0} %: something disturbed them. More rounds, \
                 or a quieter machine, give firmer times; the counts stand.",
                self.unrest * 100.0
            );
        }
        let all = json!({
            "rounds": self.options.rounds,
            "only": self.options.only,
            "machine": {
                "model": machine.model,
                "cores": machine.cores,
                "load_average_before": machine.load_average,
                "busy_share_before": machine.busy,
                "busy_share_after": after,
            },
            "costs": self.costs,
            "labs": self.labs,
            "calls_per_request": self.calls,
            "failures": self.failures,
        });
        let path = paths::root().join("target/weir/bench.json");
        std::fs::write(&path, format!("{all:#}\n"))
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        println!("\nwritten: {}", path.display());
        match self.failures.is_empty() {
            true => Ok(()),
            false => Err(format!("not all was measured: {}", self.failures.join("; "))),
        }
    }
}

fn print_times(measured: &[Measured], requests: u64) {
    let none = named(measured, NONE);
    let noop = median(&named(measured, NOOP).over(none));
    println!(
        "\nCPU time of Envoy per request, over {:.2} us without a filter; median of {} rounds of {requests}",
        median(&none.rounds) / 1e3,
        none.rounds.len(),
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

fn print_calls(figures: &[Figures]) {
    println!(
        "\nHost calls per request, exact; docs/performance/host-calls.md tells the kinds, and what fuel is"
    );
    println!("{:44}  {:>10}  {:>9}  {:>7}", "", "host calls", "with data", "fuel");
    for case in figures {
        println!(
            "{:44}  {:>10.3}  {:>9.3}  {:>7}",
            case.name,
            case.per_request(),
            case.with_data(),
            case.fuel_per_request()
        );
    }
}

fn time(variant: &Measured, all: &[Measured]) -> Value {
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
}

fn calls_of(case: &Figures) -> Value {
    let per_request =
        |(kind, n): (&&'static str, &u64)| ((*kind).to_owned(), json!(*n as f64 / REQUESTS as f64));
    json!({
        "name": case.name,
        "host_calls": case.per_request(),
        "by_kind": case.calls.iter().map(per_request).collect::<Map<_, _>>(),
        "interpreter_fuel": case.fuel_per_request(),
    })
}

fn named<'m>(measured: &'m [Measured], name: &str) -> &'m Measured {
    measured.iter().find(|v| v.name == name).expect("the references are always measured")
}

pub fn median(numbers: &[f64]) -> f64 {
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
