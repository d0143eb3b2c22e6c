//! The table.
use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;

use super::probe::{Line, Verdict};

/// Prints the table and what follows from it; the exit code is 1 if anything surprised.
#[must_use]
pub fn print(lines: &[Line]) -> ExitCode {
    print!("{}", table(lines, std::io::stdout().is_terminal()));
    if count(lines, Verdict::Surprise) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The table as text, a line a probe and a summary.
#[must_use]
pub fn table(lines: &[Line], coloured: bool) -> String {
    let width = lines.iter().map(|line| line.node.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:9}  {:width$}  {:21}  {:25}  SEEN\n", "", "NODE", "ADDRESS", "PROBE");
    for line in lines {
        let address = line.address.to_string();
        let _ = writeln!(
            text,
            "{}  {:width$}  {address:21}  {:25}  {}",
            mark(line.verdict, coloured),
            line.node,
            line.probe,
            line.seen
        );
    }
    text.push_str(&summary(lines));
    text
}

fn summary(lines: &[Line]) -> String {
    let (surprises, not_tried) = (count(lines, Verdict::Surprise), count(lines, Verdict::NotTried));
    let green = count(lines, Verdict::Green);
    match (surprises, not_tried) {
        (0, 0) => format!("all {green} probes green: intruders are refused, the right client is served\n"),
        (0, _) => format!("{green} probes green, {not_tried} not tried: no surprise, but no full proof\n"),
        _ => {
            format!("{surprises} of {} probes saw what they must not: internal TLS does not hold there\n", lines.len())
        }
    }
}

fn count(lines: &[Line], verdict: Verdict) -> usize {
    lines.iter().filter(|line| line.verdict == verdict).count()
}

fn mark(verdict: Verdict, coloured: bool) -> String {
    let (word, colour) = match verdict {
        Verdict::Green => ("ok", 32),
        Verdict::Surprise => ("SURPRISE", 31),
        Verdict::NotTried => ("not tried", 33),
    };
    if coloured { format!("\x1b[{colour}m{word:9}\x1b[0m") } else { format!("{word:9}") }
}
