//! The table at the end: what the clients counted, what Envoy counted, what it had to be.

use std::fmt;
use std::io::IsTerminal;
use std::ops::RangeInclusive;
use std::time::Duration;

#[derive(Default)]
pub struct Table {
    sections: Vec<Section>,
}

pub struct Section {
    title: String,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    clients: String,
    envoy: String,
    must: String,
    held: bool,
}

impl Table {
    /// Starts a section: a sentence above its rows.
    pub fn section(&mut self, title: impl Into<String>) -> &mut Section {
        self.sections.push(Section { title: title.into(), rows: Vec::new() });
        self.sections.last_mut().expect("pushed above")
    }

    /// Says how it went. False when a row did not hold.
    pub fn report(&self, took: Duration) -> bool {
        let rows = || self.sections.iter().flat_map(|s| s.rows.iter().map(move |r| (s, r)));
        let failed: Vec<_> = rows().filter(|(_, row)| !row.held).collect();
        if failed.is_empty() {
            println!(
                "All {} figures are as they must be ({:.0} s).",
                rows().count(),
                took.as_secs_f64()
            );
            return true;
        }
        println!("Not as it must be, {} of {} figures:", failed.len(), rows().count());
        for (section, row) in failed {
            let envoy = match row.envoy.as_str() {
                "" => String::new(),
                envoy => format!(", Envoy counted {envoy}"),
            };
            let (what, clients, must) = (&row.what, &row.clients, &row.must);
            println!("  {}", section.title);
            println!("    {what}: the clients have {clients}{envoy}; it must be: {must}");
        }
        println!("{}", busy_hint());
        false
    }
}

impl Section {
    /// A count that Envoy's must equal, within bounds.
    pub fn count(&mut self, what: &str, clients: u64, envoy: u64, bounds: RangeInclusive<u64>) {
        let must = match (*bounds.start(), *bounds.end()) {
            (low, high) if low == high => format!("{low}, both alike"),
            (low, high) => format!("{low} to {high}, both alike"),
        };
        self.rows.push(Row {
            what: what.to_owned(),
            clients: clients.to_string(),
            envoy: envoy.to_string(),
            must,
            held: clients == envoy && bounds.contains(&clients),
        });
    }

    /// A count that Envoy's must equal.
    pub fn equal(&mut self, what: &str, clients: u64, envoy: u64) {
        self.rows.push(Row {
            what: what.to_owned(),
            clients: clients.to_string(),
            envoy: envoy.to_string(),
            must: "both alike".to_owned(),
            held: clients == envoy,
        });
    }

    /// What the clients alone can tell.
    pub fn figure(&mut self, what: &str, clients: u64, bounds: RangeInclusive<u64>) {
        let must = match (*bounds.start(), *bounds.end()) {
            (low, high) if low == high => low.to_string(),
            (0, high) => format!("at most {high}"),
            (low, high) => format!("{low} to {high}"),
        };
        let held = bounds.contains(&clients);
        let clients = clients.to_string();
        self.rows.push(Row { what: what.to_owned(), clients, envoy: String::new(), must, held });
    }

    /// Something said in words.
    pub fn fact(&mut self, what: &str, clients: &str, must: &str, held: bool) {
        self.rows.push(Row {
            what: what.to_owned(),
            clients: clients.to_owned(),
            envoy: String::new(),
            must: must.to_owned(),
            held,
        });
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = || self.sections.iter().flat_map(|s| &s.rows);
        let widest = |of: fn(&Row) -> &str, least: usize| {
            rows().map(|r| of(r).chars().count()).max().unwrap_or(0).max(least)
        };
        let what = widest(|r| &r.what, 0) + 2;
        let clients = widest(|r| &r.clients, "clients".len());
        let envoy = widest(|r| &r.envoy, "Envoy".len());
        let must = widest(|r| &r.must, 0);
        let paint = Paint::new();
        writeln!(f, "{:what$}  {:>clients$}  {:>envoy$}  must be", "", "clients", "Envoy")?;
        for section in &self.sections {
            writeln!(f, "{}", paint.bold(&section.title))?;
            for row in &section.rows {
                let verdict = if row.held { paint.good("ok") } else { paint.bad("OFF") };
                writeln!(
                    f,
                    "{:what$}  {:>clients$}  {:>envoy$}  {:must$}  {verdict}",
                    format!("  {}", row.what),
                    row.clients,
                    row.envoy,
                    row.must
                )?;
            }
        }
        Ok(())
    }
}

/// Colours on a terminal that wants them.
struct Paint(bool);

impl Paint {
    fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self(std::io::stdout().is_terminal() && !unwanted)
    }

    fn bold(&self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn good(&self, text: &str) -> String {
        self.wrap("32", text)
    }

    fn bad(&self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    fn wrap(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A machine that does other work cannot offer a steady rate.
fn busy_hint() -> String {
    let average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let average = average.split(' ').next().unwrap_or("unknown").to_owned();
    format!(
        "The load average of the machine is {average}. The rates need an otherwise idle machine: if it \
         did other work, run the demo again."
    )
}
