//! `cargo xtask bench`: what a request costs with the filter, beside Envoy's own filters, and what it
//! asks of the host.

mod breaker;
mod cpu;
mod machine;
mod options;
mod report;
mod runs;
mod variants;

use std::panic;
use std::process::ExitCode;

use options::{Action, Options};
use weir_integration_tests::host_calls;

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
    let path = host_calls::committed();
    std::fs::write(&path, host_calls::render(&figures))
        .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

fn run(options: &Options) -> Result<(), String> {
    let machine = machine::Machine::look();
    println!("{machine}");
    let measured = runs::all(options, &machine)?;
    report::print_times(&measured, options);
    let breakers = breaker::cost(options, &machine)?;
    println!("\nCalls to an upstream that is well, and breakers that are closed:");
    report::print_times(&breakers, options);
    breaker::print_incident(&breaker::incident());
    let figures: Vec<_> = host_calls::all().iter().map(host_calls::measure).collect();
    report::print_calls(&figures);
    report::print_noise(&machine, &measured);
    report::write_json(&measured, &breakers, &figures, options, &machine)
}
