//! What a request asks of the host does not grow unseen.

use weir_integration_tests::host_calls::{all, committed, counts_of, fuel_of, measure, render};

#[test]
fn host_calls_are_as_committed() {
    let figures: Vec<_> = all().iter().map(measure).collect();
    let now = render(&figures);
    let path = committed();
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let remedy = "if that is meant, run `cargo xtask bench --update` and commit the page";
    if counts_of(&page) != counts_of(&now) {
        panic!("host calls are not what {} says; {remedy}. They are now:\n{now}", path.display());
    }
    for figures in &figures {
        let is = figures.fuel_per_request();
        let said = fuel_of(&page, figures.name).unwrap_or(0);
        assert!(
            is * 5 <= said * 6 && is * 6 >= said * 5,
            "{}: {is} of the interpreter's fuel a request, not about {said}; {remedy}",
            figures.name
        );
    }
}
