//! A table for the terminal.
use crate::figures::Figure;
use crate::pieces::Piece;
use crate::scenario::Scenario;

/// The figures of one scenario, a line a variant.
#[must_use]
pub fn table(scenario: &Scenario, figures: &[Figure]) -> String {
    let mut text = format!("\n{}: {}\n", scenario.name, scenario.about);
    text.push_str(&line(
        "",
        &["calls/s", "p50 us", "p99 us", "p99.9 us", "CPU s/100k", "MB/s", "CPU ratio", "spread"].map(str::to_owned),
    ));
    for figure in figures {
        let ratio = figure.cpu_ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let cells = [
            format!("{:.0}", figure.calls_per_s),
            format!("{:.0}", figure.p50_us),
            format!("{:.0}", figure.p99_us),
            format!("{:.0}", figure.p999_us),
            format!("{:.2}", figure.cpu_s_per_100k),
            format!("{:.1}", figure.mb_per_s),
            ratio,
            format!("{:.0} %", figure.spread * 100.0),
        ];
        text.push_str(&line(&figure.variant, &cells));
        if let Some(bytes) = figure.bytes_per_connection {
            text.push_str(&format!("  {:14}{:>10.1} KiB a connection\n", "", bytes / 1024.0));
        }
    }
    if let Some(noise) = figures.first().and_then(|figure| figure.noise) {
        text.push_str(&format!("  noise floor of the CPU ratio: {:.0} %\n", noise * 100.0));
    }
    text
}

/// What pieces take, a line each.
#[must_use]
pub fn pieces(pieces: &[Piece]) -> String {
    let line =
        |Piece { name, each, spread }: &Piece| format!("  {name:48}{each:>12.1?}   spread {:.0} %\n", spread * 100.0);
    pieces.iter().map(line).collect()
}

fn line(name: &str, cells: &[String; 8]) -> String {
    let cells: String = cells.iter().map(|cell| format!("{cell:>11}")).collect();
    format!("  {name:14}{cells}\n")
}
