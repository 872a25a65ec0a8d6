//! A chart of what passed and what was refused, over time.

use anyhow::anyhow;
use plotters::prelude::*;
use weir_engine::core::ports::Nanos;

use super::replay::Fate;

/// Points of a line: as many as a screen shows.
const POINTS: usize = 200;

/// Requests a second, passed and refused, as SVG.
#[allow(clippy::cast_precision_loss)] // A chart shows three digits.
pub fn svg(starts: &[Nanos], fates: &[Fate]) -> anyhow::Result<String> {
    let (first, last) = (starts.first().copied().unwrap_or(0), starts.last().copied().unwrap_or(0));
    let width = last.saturating_sub(first) / POINTS as u64 + 1;
    let mut points = vec![[0.0_f64; 2]; POINTS];
    for (start, fate) in starts.iter().zip(fates) {
        let place = usize::try_from(start.saturating_sub(first) / width).unwrap_or(0);
        if let Some(point) = points.get_mut(place) {
            let [passed, refused] = point;
            *(if *fate == Fate::Passed { passed } else { refused }) += 1.0;
        }
    }
    let seconds = width as f64 / 1e9;
    let place = |n: usize| n as f64 * seconds;
    let most = points.iter().flatten().copied().fold(0.0, f64::max) / seconds;
    let mut out = String::new();
    let root = SVGBackend::with_string(&mut out, (960, 420)).into_drawing_area();
    let failed = |error| anyhow!("the chart cannot be drawn: {error}");
    root.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..place(POINTS), 0.0..(most * 1.1).max(1.0))
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("seconds since the first request")
        .y_desc("requests a second")
        .draw()
        .map_err(failed)?;
    for (name, color, of) in [("passed", BLUE, 0_usize), ("refused", RED, 1)] {
        let line = points
            .iter()
            .enumerate()
            .filter_map(|(n, point)| Some((place(n), point.get(of).copied()? / seconds)));
        chart
            .draw_series(LineSeries::new(line, color))
            .map_err(failed)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()
        .map_err(failed)?;
    root.present().map_err(failed)?;
    drop(chart);
    drop(root);
    Ok(out)
}
