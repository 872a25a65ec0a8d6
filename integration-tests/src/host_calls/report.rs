//! The counts as a page of the documentation, and back.

use super::host::{ALLOCATIONS, CALLBACKS, Counts};
use super::scenarios::REQUESTS;
use std::collections::BTreeSet;

/// What a scenario took, over all its requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    pub name: &'static str,
    pub calls: Counts,
    pub fuel: u64,
    /// Blocks of memory that the module took, where that was counted.
    pub allocations: Option<u64>,
}

/// Have columns of their own, and are not in the sum.
const INTO_THE_MODULE: [&str; 2] = [CALLBACKS, ALLOCATIONS];

impl Figures {
    pub(super) fn between(name: &'static str, before: &Counts, after: &Counts, fuel: u64) -> Self {
        let more = |(kind, n): (&&'static str, &u64)| {
            let n = n - before.get(kind).copied().unwrap_or(0);
            (n > 0).then_some((*kind, n))
        };
        Self { name, calls: after.iter().filter_map(more).collect(), fuel, allocations: None }
    }

    /// Calls per request.
    pub fn per_request(&self) -> f64 {
        let calls = self.calls.iter().filter(|(kind, _)| !INTO_THE_MODULE.contains(kind));
        calls.map(|(_, n)| n).sum::<u64>() as f64 / REQUESTS as f64
    }

    /// Those of them that return data, per request.
    pub fn with_data(&self) -> f64 {
        self.calls.get(ALLOCATIONS).copied().unwrap_or(0) as f64 / REQUESTS as f64
    }

    /// The interpreter's fuel per request.
    pub fn fuel_per_request(&self) -> u64 {
        self.fuel / REQUESTS
    }
}

/// The page. Its counts are exact, its fuel has two digits.
pub fn render(all: &[Figures]) -> String {
    let kinds: BTreeSet<&str> = all.iter().flat_map(|f| f.calls.keys().copied()).collect();
    let kinds: Vec<_> = kinds.into_iter().filter(|kind| !INTO_THE_MODULE.contains(kind)).collect();
    let mut page = format!(
        "# Host calls per request\n\
         \n\
         Written by `cargo xtask bench --update`; a test fails when the counts of the built module are\n\
         others. The finished module runs in an interpreter under a host that counts: one worker,\n\
         12 request headers, {REQUESTS} requests after a warm-up, without ticks.\n\
         \n\
         Callbacks are Envoy's calls into the module, host calls the module's into Envoy. A host call that\n\
         returns data makes Envoy ask the module for memory, and costs several times as much as one that\n\
         does not: \"with data\" counts those. A fraction is a call that most requests do without: while a\n\
         worker spends a lease, it does not touch shared data.\n\n"
    );
    let mut line = |cells: &[String]| page.push_str(&format!("| {} |\n", cells.join(" | ")));
    let mut head = ["case", CALLBACKS, "host calls", ALLOCATIONS].map(str::to_owned).to_vec();
    head.extend(kinds.iter().map(|kind| (*kind).to_owned()));
    line(&head);
    let rule: Vec<_> =
        (0..head.len()).map(|n| if n == 0 { "---" } else { "---:" }.to_owned()).collect();
    line(&rule);
    for figures in all {
        let of = |kind: &str| {
            decimal(figures.calls.get(kind).copied().unwrap_or(0) as f64 / REQUESTS as f64)
        };
        let calls = decimal(figures.per_request());
        let mut cells = vec![figures.name.to_owned(), of(CALLBACKS), calls, of(ALLOCATIONS)];
        cells.extend(kinds.iter().map(|kind| of(kind)));
        line(&cells);
    }
    page.push_str(
        "\n## Memory that the module takes\n\
         \n\
         Blocks per request, all of which are given back when it ends. Three of them hold what the host\n\
         hands over. Nearly all come from lists of blocks that were freed before.\n\n\
         | case | blocks |\n| --- | ---: |\n",
    );
    for figures in all {
        if let Some(blocks) = figures.allocations {
            let blocks = decimal(blocks as f64 / REQUESTS as f64);
            page.push_str(&format!("| {} | {blocks} |\n", figures.name));
        }
    }
    page.push_str(
        "\n## Work in the module\n\
         \n\
         The interpreter's fuel per request, in round figures. It grows with the work, but is no count of\n\
         instructions: a stretch of code is charged as a whole, also where it is left early. It moves with\n\
         the compiler; the test allows a fifth.\n\n",
    );
    page.push_str("| case | fuel |\n| --- | ---: |\n");
    for figures in all {
        page.push_str(&format!("| {} | {} |\n", figures.name, round(figures.fuel_per_request())));
    }
    page
}

/// The counts of a page, without the fuel.
pub fn counts_of(page: &str) -> &str {
    page.split("## Work in the module").next().unwrap_or(page)
}

/// The fuel per request that a page gives for a case.
pub fn fuel_of(page: &str, name: &str) -> Option<u64> {
    let (_, fuel) = page.split_once("## Work in the module")?;
    let line = fuel.lines().find_map(|line| line.strip_prefix(&format!("| {name} | ")))?;
    line.trim_end_matches(" |").parse().ok()
}

/// Four digits behind the point are exact for the number of requests; no zeros at the end.
fn decimal(n: f64) -> String {
    let text = format!("{n:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "0" { "".to_owned() } else { text.to_owned() }
}

/// To two digits.
fn round(n: u64) -> u64 {
    let unit = 10_u64.pow(n.checked_ilog10().unwrap_or(0).saturating_sub(1));
    (n + unit / 2) / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_the_page() {
        let calls = Counts::from([("clock", REQUESTS), ("metric", 3), (ALLOCATIONS, REQUESTS)]);
        let figures = Figures {
            name: "a case",
            calls,
            fuel: 5551 * REQUESTS,
            allocations: Some(9 * REQUESTS),
        };
        let page = render(std::slice::from_ref(&figures));
        assert!(page.contains("| a case |  | 1.0015 | 1 | 1 | 0.0015 |"), "{page}");
        assert_eq!(fuel_of(&page, "a case"), Some(5600));
        assert!(counts_of(&page).contains("| a case | 9 |"), "{page}");
        assert_eq!(fuel_of(&page, "another"), None);
        assert!(!counts_of(&page).contains("5600"));
    }
}
