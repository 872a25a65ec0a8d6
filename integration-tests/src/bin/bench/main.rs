//! `cargo xtask bench`: what a request costs with the filters, beside Envoy's own, what it asks of the
//! host, and what clients get of it.

mod breaker;
mod collectors;
mod color;
mod cpu;
mod deadlines;
mod edits;
mod growth;
mod limit;
mod machine;
mod options;
mod pace;
mod quantiles;
mod report;
mod restoring;
mod runs;
mod sampling;
mod subject;
mod suite;
mod trace;

use std::panic;
use std::process::ExitCode;

use machine::Machine;
use options::{Action, Options};
use report::Report;
use subject::Subject;
use weir_integration_tests::{Script, Scripted, host_calls, paths};

fn main() -> ExitCode {
    let action = match options::read() {
        Ok(action) => action,
        Err(error) => {
            eprintln!("bench: {error}; cargo xtask bench -- --help shows the options");
            return ExitCode::from(2);
        }
    };
    // What the harness cannot do it says by a panic; a reader wants the sentence alone.
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("it failed");
        eprintln!("bench: {text}");
    }));
    let done = panic::catch_unwind(|| match action {
        Action::Help => {
            println!("{}", options::HELP);
            Ok(())
        }
        Action::Update => update(),
        Action::Run(options) => run(&options),
    });
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Writes the page of host calls anew.
fn update() -> Result<(), String> {
    let figures: Vec<_> = host_calls::all().iter().map(host_calls::measure).collect();
    write("host-calls.md", &host_calls::render(&figures))
}

/// A page of the documentation.
fn write(name: &str, text: &str) -> Result<(), String> {
    let path = paths::root().join("docs/performance").join(name);
    std::fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

/// What fails is said at once and at the end; the rest is measured all the same.
fn run(options: &Options) -> Result<(), String> {
    let machine = Machine::look();
    println!("{machine}");
    let mut report = Report::new(options, &machine);
    // Envoy answers by itself, or a small upstream does, which is the slowest part then: fewer requests
    // take as long.
    let (all, fewer) = (options.requests, (options.requests / 4).max(1000));
    costs("limit", limit::subjects(options), all, &mut report);
    let upstream = Scripted::start(Script::Ok);
    costs("breaker", breaker::subjects(&upstream), fewer, &mut report);
    costs("suite", suite::subjects(&upstream), fewer, &mut report);
    let around = trace::Surroundings::start();
    costs("trace", trace::subjects(&around), fewer, &mut report);
    drop((upstream, around));

    type Lab = fn() -> Result<serde_json::Value, String>;
    let labs: [(&str, Lab); 7] = [
        ("incident", breaker::lab),
        ("deadlines", deadlines::lab),
        ("restoring", restoring::lab),
        ("collectors", collectors::lab),
        ("sampling", sampling::lab),
        ("color", color::lab),
        ("edits", edits::lab),
    ];
    for (name, lab) in labs.into_iter().filter(|(name, _)| options.wants(name)) {
        println!("\n{name} ...");
        let figures = lab();
        if let ("edits", true, Ok(figures)) = (name, options.update, &figures) {
            let (model, cores, busy) = (&machine.model, machine.cores, machine.busy * 100.0);
            let machine = format!("{model}, {cores} cores, of which others used {busy:.0} %");
            write("edits.md", &edits::page(figures, &machine))?;
        }
        report.lab(name, figures);
    }
    type Weighed = fn(&Options, &Machine) -> Result<serde_json::Value, String>;
    let weighed: [(&str, Weighed); 2] = [("growth", growth::lab), ("pace", pace::lab)];
    for (name, lab) in weighed.into_iter().filter(|(name, _)| options.wants(name)) {
        println!("\n{name} ...");
        let figures = lab(options, &machine);
        if let ("growth", true, Ok(figures)) = (name, options.update, &figures) {
            let (page, plot) = growth::page(figures, &machine.name())?;
            write("growth.md", &page)?;
            write("growth.svg", &plot)?;
        }
        report.lab(name, figures);
    }
    if options.wants("calls") {
        report.calls(host_calls::all().iter().map(host_calls::measure).collect());
    }
    report.finish()
}

/// Measures what is asked for of a section, if anything is.
fn costs(section: &'static str, subjects: Vec<Subject>, requests: u64, report: &mut Report) {
    let (options, machine) = (report.options, report.machine);
    let wanted = |subject: &Subject| options.wants(&format!("{section}: {}", subject.name));
    if !subjects.iter().any(|subject| wanted(subject) && !subject.is_reference()) {
        return;
    }
    println!("\n{section}: {}", report::what(section));
    let chosen = subjects.into_iter().filter(|s| s.is_reference() || wanted(s)).collect();
    report.costs(section, requests, runs::measure(chosen, requests, options, machine));
}
